"""Populations in the store: their existence, descent and members."""

from __future__ import annotations

import json
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from attrs import field, frozen
from attrs.validators import instance_of, optional

from evocell.models.specs import SandboxSpec
from evocell.store.encoding import check_time, unpack
from evocell.store.fitness import FitnessEntry
from evocell.store.inspection import blaming, blaming_store
from evocell.store.revival import read_source_text
from evocell.store.store import Store

__all__ = ["UNDECIDED", "KeptPopulation", "LostMember", "PopulationStore"]

UNDECIDED = ""
"""Direction of a population without one."""

_ALL = "SELECT id, parent_id, generation, direction, created_at FROM populations"
_KEEP = """
    INSERT INTO populations VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET generation = max(generation, excluded.generation),
        direction = CASE WHEN direction = '' THEN excluded.direction ELSE direction END
"""
_MEMBERS = """
    SELECT generation, id, fitness, valid, status <> 'stopped' FROM sandboxes
    WHERE population = ? AND kept AND (? IS NULL OR generation = ?) ORDER BY generation, sandbox
"""
_EDGES = """
    SELECT child.generation, child.id, lineage.parent_id, child.mutation_type
    FROM sandboxes AS child JOIN lineage ON lineage.child = child.sandbox
    WHERE child.population = ? AND child.kept AND (? IS NULL OR child.generation = ?)
    ORDER BY child.sandbox, lineage.place
"""
_ALIVE = "SELECT id FROM sandboxes WHERE population = ? AND kept AND status <> 'stopped'"
_OTHERS = "SELECT count(*) FROM runs WHERE outcome = 'open' AND run <> ?"


_LAST_OF_EACH = """
    SELECT max(sandbox), id FROM sandboxes WHERE population = ? AND kept GROUP BY id
"""
_RESUMABLE = """
    SELECT s.id, s.sandbox, s.generation, s.mutation_type, s.version, s.fitness, coalesce(s.valid, 0),
        s.evaluated_at, s.transitions, files
    FROM sandboxes s LEFT JOIN sources USING (version) WHERE sandbox IN (SELECT value FROM json_each(?))
    ORDER BY s.sandbox
"""
_PARENTS = """
    SELECT child, parent_id FROM lineage WHERE child IN (SELECT value FROM json_each(?))
    ORDER BY child, place
"""
_RANKED = """
    SELECT sandbox FROM sandboxes
    WHERE sandbox IN (SELECT value FROM json_each(?)) AND valid AND fitness IS NOT NULL
    ORDER BY fitness {order}, sandbox LIMIT ?
"""


@frozen
class LostMember:
    """A member of a population whose engine has ended.

    Attributes:
        spec: The specification to recreate it from.
        fitness: Its fitness; None if it has none.
        version: Digest of its code.
    """

    spec: SandboxSpec
    fitness: FitnessEntry | None
    version: str | None


@frozen
class KeptPopulation:
    """A population in the store.

    Attributes:
        id: Its name.
        parent_id: The population it descends from.
        generation: Its latest generation.
        direction: Its direction; `UNDECIDED` until its first member is evaluated.
        created_at: When it was created, in seconds since 1970.
    """

    id: str = field(validator=instance_of(str))
    parent_id: str | None = field(validator=optional(instance_of(str)))
    generation: int = field(validator=instance_of(int))
    direction: str = field(validator=instance_of(str))
    created_at: float = field(validator=check_time)


class PopulationStore:
    """Writes populations, and reads their members.

    Args:
        store: The store.
        run: The number of this engine's run.
    """

    def __init__(self, store: Store, run: int) -> None:
        self._store = store
        self._run = run

    def past(self) -> list[KeptPopulation]:
        """Return the populations of earlier engines."""
        with blaming_store(self._store.path):
            return [KeptPopulation(*row) for row in self._store.query(_ALL)]

    def keep(self, population: KeptPopulation) -> None:
        """Record a population, or its latest generation."""
        self._store.execute(
            _KEEP,
            (
                population.id,
                population.parent_id,
                population.generation,
                population.direction,
                population.created_at,
            ),
        )

    async def members(self, population: str, generation: int | None) -> list[Sequence[Any]]:
        """Return (generation, id, fitness, valid, alive) of all members ever, by generation and age.

        Raises:
            StoreError: The store cannot be used.
        """
        await self._store.flush()
        return list(self._store.query(_MEMBERS, (population, generation, generation)))

    def edges(self, population: str, generation: int | None) -> list[Sequence[Any]]:
        """Return (generation, child, parent, mutation type) of all edges into it; see `members`."""
        return list(self._store.query(_EDGES, (population, generation, generation)))

    @blaming(attrgetter("_store.path"))
    def lost(self, population: str, *, oldest: int, n_elites: int, direction: str) -> list[LostMember]:
        """Return the members of ended engines that retention would have kept.

        Destroyed members are excluded, as are those whose source is not in the store.

        Args:
            population: The population.
            oldest: The oldest generation that is retained in full.
            n_elites: Number of the fittest that are retained, regardless of generation.
            direction: The direction of the fitness.

        Raises:
            StoreError: The store cannot be read, or is damaged.
        """
        self._store.flush_blocking()
        latest = json.dumps([number for number, _ in self._store.query(_LAST_OF_EACH, (population,))])
        order = "ASC" if direction == "minimize" else "DESC"
        elites = {row[0] for row in self._store.query(_RANKED.format(order=order), (latest, n_elites))}
        parents: dict[int, list[str]] = {}
        for child, parent_id in self._store.query(_PARENTS, (latest,)):
            parents.setdefault(child, []).append(parent_id)
        alive = {row[0] for row in self._store.query(_ALIVE, (population,))}
        found = []
        for row in self._store.query(_RESUMABLE, (latest,)):
            one_id, number, generation, made_by, version, score, valid, at, steps, files = row
            if one_id in alive or (generation < oldest and number not in elites) or _was_destroyed(steps):
                continue
            source = read_source_text(files, version, self._store.path)
            if source is None:
                continue
            entry = FitnessEntry(one_id, score, bool(valid), generation, at=at or 0.0, version=version)
            spec = SandboxSpec(
                one_id,
                source=source,
                population=population,
                generation=generation,
                parent_ids=tuple(parents.get(number, ())),
                mutation_type=made_by,
            )
            found.append(LostMember(spec, None if score is None else entry, version))
        return found

    def is_shared(self) -> bool:
        """Return whether another engine has the store open, or had when it was killed."""
        return bool(self._store.query(_OTHERS, (self._run,))[0][0])


def _was_destroyed(steps: bytes | None) -> bool:
    """Return whether a sandbox was destroyed by a call, not by its engine's end, from its transitions."""
    try:
        found = unpack(steps) if steps is not None else []
        return isinstance(found, list) and bool(found) and found[-1][1] == "stopped"
    except (IndexError, TypeError, ValueError):
        return False
