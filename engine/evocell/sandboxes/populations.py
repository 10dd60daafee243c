"""Populations: their members, their generations, and the creation of the next generation.

Membership is a field of each sandbox. The registry holds the rest: which populations exist, even if empty,
the latest generation and parent population of each, and the pinned sandboxes. The store keeps that as well,
so that the numbering of generations continues after a restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from attrs import evolve

from evocell.concurrency import map_bounded
from evocell.config import Config
from evocell.errors import ConfigurationError, SandboxNotFound
from evocell.models.fitness import Direction, check_direction
from evocell.models.populations import GenerationState, Offspring
from evocell.models.ranking import score_statistics
from evocell.models.specs import SandboxSpec, check_id
from evocell.models.state import PopulationState
from evocell.sandboxes.manager import Manager
from evocell.sandboxes.record import SandboxRecord
from evocell.store.populations import UNDECIDED, KeptPopulation, LostMember, PopulationStore

__all__ = ["PopulationRegistry"]

_log = logging.getLogger("evocell")
_NAMED = 20
_LOADS_AT_ONCE = 8


class PopulationRegistry:
    """The registry of populations.

    Args:
        manager: The manager of the sandboxes.
        kept: The populations of the store.
        config: The retention of a population's members.
    """

    def __init__(self, manager: Manager, kept: PopulationStore, config: Config) -> None:
        self._config = config
        self._manager = manager
        self._kept = kept
        self._known = {population.id: population for population in kept.past()}
        self._pins: set[str] = set()
        self._contradicted: set[str] = set()
        manager.admission.on_join = self._joined
        manager.on_scored = self._scored
        manager.direction_of = self.direction

    def create(
        self, population_id: str, *, parent_population_id: str | None, direction: Direction | None
    ) -> PopulationState:
        """Create an empty population.

        Raises:
            ConfigurationError: The name is in use or invalid, or the parent does not exist.
        """
        check_id(population_id, "population id")
        if population_id in self._known:
            raise ConfigurationError(
                f"there is a population {population_id!r} already; choose another name", "population"
            )
        if direction is not None:
            check_direction(direction)
        if parent_population_id is not None:
            self._find(parent_population_id)
        self._keep(
            KeptPopulation(population_id, parent_population_id, -1, direction or UNDECIDED, time.time())
        )
        return self.state(population_id)

    def state(self, population_id: str) -> PopulationState:
        """Return the current state of a population.

        Raises:
            ConfigurationError: No population has that name.
        """
        found = self._find(population_id)
        members = self._manager.members(population_id)
        return PopulationState(
            id=found.id,
            generation=max(0, found.generation),
            sandbox_ids=tuple(record.id for record in members),
            fitness_stats=score_statistics(self.score(one) for one in members if _is_scored(one)),
            created_at=datetime.fromtimestamp(found.created_at, UTC),
            parent_population_id=found.parent_id,
        )

    def states(self) -> list[PopulationState]:
        """Return the state of every population, oldest first."""
        known = sorted(self._known.values(), key=lambda population: population.created_at)
        return [self.state(population.id) for population in known]

    def resume(self, population_id: str, direction: Direction | None) -> list[LostMember]:
        """Create a population, or return those former members that retention keeps and no engine holds.

        Raises:
            ConfigurationError: A name or the direction is invalid.
            StoreError: The store cannot be read.
        """
        if population_id not in self._known:
            self.create(population_id, parent_population_id=None, direction=direction)
            return []
        if direction is not None:
            check_direction(direction)
        retain = self._config.gc_retain_generations
        return self._kept.lost(
            population_id,
            oldest=self.latest(population_id) - retain + 1 if retain else 0,
            n_elites=self._config.gc_elites,
            direction=self.direction(population_id),
        )

    async def bring_back(self, lost: Sequence[LostMember]) -> list[SandboxRecord]:
        """Recreate members with their former code and fitness.

        Raises:
            CapacityError: The sandboxes exceed the capacity; none has been created.

        Cancellation: None of them remains.
        """

        async def load(pair: tuple[SandboxRecord, LostMember]) -> None:
            record, member = pair
            await self._manager.load(record, member.spec.source)
            if member.fitness is not None and record.state.version == member.version:
                self._manager.inherit_fitness(record, member.fitness)

        specs = [evolve(member.spec, source=None) for member in lost]
        async with self._manager.reserved(specs) as records:
            await map_bounded(load, list(zip(records, lost, strict=True)), at_once=_LOADS_AT_ONCE)
            return records

    def members(self, population_id: str, generation: int | None = None) -> list[SandboxRecord]:
        """Return the sandboxes of a population, or of one generation of it, oldest first.

        Raises:
            ConfigurationError: There is no such population.
        """
        self._find(population_id)
        return [
            record
            for record in self._manager.members(population_id)
            if generation is None or record.state.generation == generation
        ]

    def latest(self, population_id: str) -> int:
        """Return the latest generation of a population.

        Raises:
            ConfigurationError: There is no such population.
        """
        return max(0, self._find(population_id).generation)

    async def generations(self, population_id: str, generation: int | None) -> list[GenerationState]:
        """Return all generations of a population, or one, including destroyed members.

        Raises:
            ConfigurationError: There is no such population.
            StoreError: The store cannot be used.
        """
        self._find(population_id)
        rows: dict[int, dict[str, Sequence[Any]]] = {}
        for row in await self._kept.members(population_id, generation):
            # The latest holder of an id represents it: a revived member is not counted twice.
            rows.setdefault(row[0], {})[row[1]] = row
        edges: dict[int, list[tuple[str, str, str]]] = {}
        for of, child, parent, kind in self._kept.edges(population_id, generation):
            edges.setdefault(of, []).append((child, parent, kind))
        return [
            GenerationState(
                population=population_id,
                generation=number,
                sandbox_ids=tuple(dict.fromkeys(row[1] for row in members)),
                alive=sum(bool(row[4]) for row in members),
                fitness_stats=score_statistics((r[2], bool(r[3])) for r in members if r[3] is not None),
                edges=tuple(dict.fromkeys(edges.get(number, ()))),
            )
            for number, members in ((one, list(found.values())) for one, found in sorted(rows.items()))
        ]

    def offspring(
        self, population_id: str, offspring: Sequence[Offspring], *, into: str | None
    ) -> list[SandboxSpec]:
        """Return the specifications of the sandboxes of the next generation.

        Args:
            population_id: The population.
            offspring: The individuals.
            into: A population for them, created as a descendant if it does not exist; None for the
                same.

        Raises:
            ConfigurationError: There is no such population, or an item is not an `Offspring`.
            SandboxNotFound: A parent never existed.
        """
        found = goal = self._find(population_id)
        for one in offspring:
            if not isinstance(one, Offspring):
                raise ConfigurationError(
                    f"next_generation takes Offspring, not {type(one).__name__}", "offspring"
                )
            for parent in one.parents:
                self._manager.observer.lineage.get(parent)
        if into is not None and into != population_id:
            if into not in self._known:
                self.create(
                    into,
                    parent_population_id=population_id,
                    direction=cast("Direction", found.direction) if found.direction else None,
                )
            goal = self._known[into]
        number = max(found.generation, goal.generation) + 1
        return [
            SandboxSpec(
                one.id,
                source=one.source,
                image=one.image,
                limits=one.limits,
                population=goal.id,
                generation=number,
                parent_ids=one.parents,
                mutation_type=one.kind,
            )
            for one in offspring
        ]

    def elite(self, population_id: str, most: int, generation: int | None = None) -> list[SandboxRecord]:
        """Return the fittest valid sandboxes of a population, best first.

        Raises:
            ConfigurationError: There is no such population.
        """
        self._find(population_id)
        sign = 1 if self.direction(population_id) == "minimize" else -1
        ranked = []
        for place, record in enumerate(self.members(population_id, generation)):
            score, valid = self.score(record)
            if valid and score is not None:
                ranked.append((sign * score, place, record))
        return [record for _, _, record in sorted(ranked, key=lambda row: row[:2])[:most]]

    def score(self, record: SandboxRecord) -> tuple[float | None, bool]:
        """Return the latest fitness of a sandbox's current code, and whether it is valid."""
        if not _is_scored(record):
            return None, False
        entry = self._manager.observer.fitness.get(record.id)
        return record.state.fitness, entry is not None and entry.valid

    def pin(self, sandbox_ids: Iterable[str]) -> None:
        """Pin sandboxes, which exempts them from garbage collection.

        Raises:
            SandboxNotFound: One of them does not exist; none has been pinned.
        """
        ids = list(sandbox_ids)
        for sandbox_id in ids:
            self._manager.get(sandbox_id)
        self._pins.update(ids)

    def unpin(self, sandbox_ids: Iterable[str]) -> None:
        """Unpin sandboxes; no effect on others."""
        self._pins.difference_update(sandbox_ids)

    def pinned(self) -> list[str]:
        """Return the sorted ids of the pinned sandboxes; destroyed ones are dropped."""
        for sandbox_id in list(self._pins):
            try:
                self._manager.get(sandbox_id)
            except SandboxNotFound:
                self._pins.discard(sandbox_id)
        return sorted(self._pins)

    def ids(self) -> list[str]:
        """Return the names of all populations."""
        return list(self._known)

    def _find(self, population_id: str) -> KeptPopulation:
        found = self._known.get(population_id)
        if found is None:
            known = ", ".join(map(repr, list(self._known)[:_NAMED])) or "none yet"
            raise ConfigurationError(
                f"there is no population {population_id!r}; there are {known}", "population"
            )
        return found

    def direction(self, population_id: str | None) -> Direction:
        """Return the direction of a population; ``"maximize"`` if unknown."""
        found = None if population_id is None else self._known.get(population_id)
        return "minimize" if found is not None and found.direction == "minimize" else "maximize"

    def _scored(self, population_id: str, direction: Direction) -> None:
        """Record the direction of a member's evaluation as the population's, if that has none yet."""
        found = self._known.get(population_id)
        if found is None or found.direction == direction:
            return
        if found.direction == UNDECIDED:
            self._keep(evolve(found, direction=direction))
        elif population_id not in self._contradicted:
            self._contradicted.add(population_id)
            _log.warning(
                "population %r was created with direction=%r, and an evaluation of its members has %r: its "
                "best and its elite are those of the population's direction",
                population_id,
                found.direction,
                direction,
            )

    def _joined(self, population_id: str, generation: int) -> None:
        """Record that a sandbox of some generation joins a population."""
        found = self._known.get(population_id)
        if found is None:
            self._keep(KeptPopulation(population_id, None, generation, UNDECIDED, time.time()))
        elif generation > found.generation:
            self._keep(evolve(found, generation=generation))

    def _keep(self, population: KeptPopulation) -> None:
        self._known[population.id] = population
        self._kept.keep(population)


def _is_scored(record: SandboxRecord) -> bool:
    """Return whether a sandbox's current code has been evaluated."""
    return record.state.fitness is not None
