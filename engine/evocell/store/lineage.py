"""Lineage of individuals: queried in memory, persisted in the store."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from types import MappingProxyType
from typing import Protocol

from attrs import field, frozen

from evocell.errors import ConfigurationError, SandboxNotFound
from evocell.models.references import Completable, SandboxName, sandbox_id, sandbox_ids
from evocell.store.ancestry import AncestryGraph
from evocell.store.changes import Change, Files, diff_files

__all__ = ["Individual", "LineageStore", "LineageTracker"]

LOOSE = 100_000
"""Most parentless individuals in memory that are not kept; further ones are evicted."""

_NO_NOTES: Mapping[str, object] = MappingProxyType({})


@frozen
class Individual:
    """One individual in the lineage.

    Attributes:
        id: Its id.
        number: Its number in the store, which is unique, unlike an id, which may be reused. 0 for a
            parent of which only the id is known.
        parent_ids: Its parents.
        generation: The generation it belongs to.
        mutation_type: The kind of mutation that made it.
        version: Digest of its code, if known.
        depth: Steps to the farthest seed it descends from.
        metadata: Metadata of the mutation.
    """

    id: str
    number: int
    parent_ids: tuple[str, ...] = ()
    generation: int = 0
    mutation_type: str = "seed"
    version: str | None = None
    depth: int = 0
    metadata: Mapping[str, object] = field(factory=dict)


class LineageStore(Protocol):
    """The interface through which lineage is written; implemented by `evocell.store.journal.Journal`."""

    def new_number(self) -> int:
        """Return an unused number for an individual."""
        ...

    def edges(self, child: int, parents: Sequence[tuple[str, int]]) -> None:
        """Record the parents of an individual, each with its number, or 0 for an unknown one."""
        ...

    def notes(self, number: int, metadata: Mapping[str, object]) -> None:
        """Record the metadata of a mutation, replacing earlier metadata."""
        ...

    def past(self, known: frozenset[int]) -> Iterator[Individual]:
        """Return the individuals with lineage, parents first, except known ones."""
        ...

    def find(self, individual_id: str) -> Individual | None:
        """Return the last individual of an id, which memory has forgotten or another process has made."""
        ...

    def version_of(self, number: int) -> str | None:
        """Return the digest of an individual's code."""
        ...

    def files_of(self, version: str) -> Files | None:
        """Return the text of a version; None if it is missing."""
        ...


class LineageTracker(Completable):
    """Lineage of individuals in memory; thread-safe.

    Args:
        kept: Persists it in a store; None keeps it in memory only.
    """

    def __init__(self, kept: LineageStore | None = None) -> None:
        self._kept = kept
        self._lock = threading.RLock()
        self._family = AncestryGraph()
        self._ids: list[str] = []
        self._numbers: list[int] = []
        self._generations: list[int] = []
        self._types: list[str] = []
        self._versions: dict[int, str | None] = {}
        self._notes: dict[int, Mapping[str, object]] = {}
        self._places: dict[str, int] = {}
        self._loose: deque[int] = deque()
        self._past_is_known = kept is None
        self._next = 1

    def __len__(self) -> int:
        """Return the number of individuals in memory, including parents of which only the id is known."""
        return len(self._places)

    def record(
        self,
        child_id: str,
        parent_ids: Sequence[SandboxName] = (),
        *,
        mutation_type: str = "seed",
        version: str | None = None,
        generation: int = 0,
        metadata: Mapping[str, object] | None = None,
        kept: bool = True,
    ) -> int:
        """Record an individual and its parents. A reused id is a new individual, which takes over the id.

        Args:
            child_id: Its id.
            parent_ids: Its parents' ids; an unknown one is recorded with its id alone.
            mutation_type: The kind of mutation that made it.
            version: Digest of its code, if known yet.
            generation: The generation it belongs to.
            metadata: Metadata of the mutation, such as its operator and its location in the code.
            kept: False for an individual that does not become a sandbox; without parents or children it
                may be evicted from memory, not from the store.

        Returns:
            Its number.

        Raises:
            ConfigurationError: The metadata is no plain data.
        """
        with self._lock:
            parents = [self._place_of_parent(parent) for parent in dict.fromkeys(sandbox_ids(parent_ids))]
            number = self._next if self._kept is None else self._kept.new_number()
            self._next += 1
            new = Individual(
                child_id, number, generation=generation, mutation_type=mutation_type, version=version
            )
            place = self._append(new, parents)
            if not kept and not parents:
                self._add_loose(place)
            if self._kept is not None and parents:
                pairs = [(self._ids[parent], self._numbers[parent]) for parent in parents]
                self._kept.edges(number, pairs)
            if metadata:
                self.annotate(child_id, metadata)
            return number

    def release(self, individual_id: str, number: int) -> None:
        """Mark an individual as no longer kept, after its sandbox was destroyed.

        Args:
            individual_id: Its id.
            number: Its number; if the id is in use again, nothing changes.
        """
        with self._lock:
            place = self._places.get(individual_id)
            if place is not None and self._numbers[place] == number and not self._family.parents(place):
                self._add_loose(place)

    def annotate(self, individual_id: SandboxName, metadata: Mapping[str, object]) -> None:
        """Add to the metadata of the mutation that made an individual.

        Args:
            individual_id: The individual, or its id.
            metadata: Plain data by name.

        Raises:
            SandboxNotFound: No individual has the id.
            ConfigurationError: The metadata is no plain data.
        """
        with self._lock:
            place = self._place(sandbox_id(individual_id))
            notes = {**self._notes.get(place, _NO_NOTES), **metadata}
            if self._kept is not None and self._numbers[place]:
                self._kept.notes(self._numbers[place], notes)
            self._notes[place] = notes

    def set_version(self, individual_id: str, version: str | None) -> None:
        """Record the code of an individual without code; no effect on an unknown one."""
        with self._lock:
            place = self._places.get(individual_id)
            if place is not None:
                self._versions[place] = version

    def get(self, individual_id: SandboxName) -> Individual:
        """Return an individual.

        Args:
            individual_id: The individual, or its id.

        Raises:
            SandboxNotFound: No individual has the id.
        """
        with self._lock:
            return self._individual(self._place(sandbox_id(individual_id)))

    def depth(self, individual_id: SandboxName) -> int | None:
        """Return the steps from an individual to the farthest seed it descends from; None if it is unknown.

        Args:
            individual_id: The individual, or its id.
        """
        with self._lock:
            place = self._find(sandbox_id(individual_id))
            return None if place is None else self._family.depth(place)

    def ancestors(self, individual_id: SandboxName) -> list[str]:
        """Return all ancestors of an individual, the youngest first.

        Args:
            individual_id: The individual, or its id.

        Raises:
            SandboxNotFound: No individual has the id.
        """
        with self._lock:
            place = self._place(sandbox_id(individual_id))
            marks = self._family.above([place])
            del marks[place:]
            found = list(compress(self._ids, marks))
            found.reverse()
            return found

    def descendants(self, individual_id: SandboxName) -> list[str]:
        """Return all descendants of an individual, the oldest first.

        Args:
            individual_id: The individual, or its id.

        Raises:
            SandboxNotFound: No individual has the id.
        """
        with self._lock:
            place = self._place(sandbox_id(individual_id))
            if not self._family.has_children(place):
                return []
            return list(compress(self._ids[place + 1 :], self._family.below(place)))

    def line(self, individual_id: SandboxName) -> list[Individual]:
        """Return an individual's line along first parents, the oldest ancestor first and itself last.

        Args:
            individual_id: The individual, or its id.

        Raises:
            SandboxNotFound: No individual has the id.
        """
        with self._lock:
            return [
                self._individual(place) for place in self._family.line(self._place(sandbox_id(individual_id)))
            ]

    def common_ancestor(self, one_id: SandboxName, other_id: SandboxName) -> str | None:
        """Return the youngest common ancestor of two individuals, or None; it may be one of the two.

        Args:
            one_id: One individual, or its id.
            other_id: The other, or its id.

        Raises:
            SandboxNotFound: No individual has one of the ids.
        """
        with self._lock:
            place = self._family.youngest_common(
                self._place(sandbox_id(one_id)), self._place(sandbox_id(other_id))
            )
            return None if place is None else self._ids[place]

    def family(self, individual_ids: Iterable[SandboxName], *, most: int | None = None) -> list[Individual]:
        """Return individuals and all their ancestors, the oldest first.

        Args:
            individual_ids: Individuals, or their ids.
            most: Most individuals, keeping the youngest; None for all.

        Raises:
            SandboxNotFound: No individual has one of the ids.
        """
        with self._lock:
            starts = [self._place(one) for one in sandbox_ids(individual_ids)]
            if not starts:
                return []
            marks = self._family.above(starts)
            places = list(compress(range(len(marks)), marks))
            kept = places if most is None else places[max(0, len(places) - most) :]
            return [self._individual(place) for place in kept]

    def source(self, individual_id: SandboxName) -> dict[str, str | None] | None:
        """Return the text of an individual's code.

        Args:
            individual_id: The individual, or its id.

        Returns:
            Text by path, None for a file that is not text; None if it is unknown.

        Raises:
            SandboxNotFound: No individual has the id.
        """
        found = self._files(self._version(sandbox_id(individual_id)))
        return None if found is None else dict(found)

    def what_changed(self, child_id: SandboxName, parent_id: SandboxName | None = None) -> Change:
        """Return the differences between a child and its parents.

        Args:
            child_id: The child, or its id.
            parent_id: The parent, or any other individual to compare with; None for the first parent.

        Raises:
            SandboxNotFound: No individual has one of the ids.
            ConfigurationError: The two are the same.
        """
        child_id = sandbox_id(child_id)
        parent_id = None if parent_id is None else sandbox_id(parent_id)
        found = self.get(child_id)
        if parent_id == child_id:
            raise ConfigurationError(f"{child_id!r} cannot be compared with itself", "parent_id")
        if parent_id is None:
            parent_id = found.parent_ids[0] if found.parent_ids else None
        version = self._version(child_id)
        parent_version = None if parent_id is None else self._version(parent_id)
        before, after = self._files(parent_version), self._files(version)
        return Change(
            child_id,
            parent_id,
            found.mutation_type,
            found.metadata,
            version,
            parent_version,
            "" if before is None or after is None else diff_files(before, after),
        )

    def _version(self, individual_id: str) -> str | None:
        individual = self.get(individual_id)
        if individual.version is not None or self._kept is None:
            return individual.version
        return self._kept.version_of(individual.number)

    def _files(self, version: str | None) -> Files | None:
        return None if version is None or self._kept is None else self._kept.files_of(version)

    def _individual(self, place: int) -> Individual:
        return Individual(
            id=self._ids[place],
            number=self._numbers[place],
            parent_ids=tuple(self._ids[parent] for parent in self._family.parents(place)),
            generation=self._generations[place],
            mutation_type=self._types[place],
            version=self._versions.get(place),
            depth=self._family.depth(place),
            metadata=self._notes.get(place, _NO_NOTES),
        )

    def _append(self, individual: Individual, parents: Sequence[int]) -> int:
        place = self._family.add(parents)
        self._ids.append(individual.id)
        self._numbers.append(individual.number)
        self._generations.append(individual.generation)
        self._types.append(individual.mutation_type)
        if individual.version is not None:
            self._versions[place] = individual.version
        if individual.metadata:
            self._notes[place] = individual.metadata
        self._places[individual.id] = place
        return place

    def _add_loose(self, place: int) -> None:
        self._loose.append(place)
        if len(self._loose) > LOOSE:
            oldest = self._loose.popleft()
            if oldest not in self._notes and not self._family.has_children(oldest):
                if self._places.get(self._ids[oldest]) == oldest:
                    del self._places[self._ids[oldest]]
                self._ids[oldest] = ""
                self._numbers[oldest] = 0
                self._versions.pop(oldest, None)

    def _place(self, individual_id: str) -> int:
        place = self._find(individual_id)
        if place is None:
            raise SandboxNotFound(individual_id, "lineage knows no such individual")
        return place

    def _find(self, individual_id: str) -> int | None:
        place = self._places.get(individual_id)
        if place is None and not self._past_is_known:
            self._learn_past()
            place = self._places.get(individual_id)
        return self._learn(individual_id) if place is None else place

    def _learn(self, individual_id: str) -> int | None:
        """Take an individual that the store alone knows into memory, after those of its ancestors."""
        if self._kept is None:
            return None
        waiting: list[Individual | str] = [individual_id]
        asked: set[str] = set()
        while waiting:
            next_one = waiting.pop()
            if isinstance(next_one, Individual):
                parents = [self._known(parent) for parent in next_one.parent_ids]
                self._append(next_one, parents)
            elif next_one not in self._places and next_one not in asked:
                asked.add(next_one)
                if (found := self._kept.find(next_one)) is not None:
                    waiting += [found, *found.parent_ids]
        return self._places.get(individual_id)

    def _known(self, individual_id: str) -> int:
        place = self._places.get(individual_id)
        return self._append(Individual(individual_id, 0), ()) if place is None else place

    def _place_of_parent(self, parent_id: str) -> int:
        place = self._find(parent_id)
        return self._known(parent_id) if place is None else place

    def _learn_past(self) -> None:
        assert self._kept is not None
        past = list(self._kept.past(frozenset(self._numbers)))  # all of it, or none on failure
        self._past_is_known = True
        for individual in past:
            newer = self._places.get(individual.id)
            parents = [
                self._places[parent] if parent in self._places else self._append(Individual(parent, 0), ())
                for parent in individual.parent_ids
            ]
            self._append(individual, parents)
            if newer is not None and self._numbers[newer]:  # an id refers to its latest holder
                self._places[individual.id] = newer
