"""What the store keeps of populations: that they were, and whom they descend from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from evocell.observability.store import Store

__all__ = ["UNDECIDED", "KeptPopulation", "PopulationStore"]

UNDECIDED = ""
"""The direction of a population that has none yet."""

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
_OTHERS = "SELECT count(*) FROM runs WHERE outcome = 'open' AND run <> ?"


@frozen
class KeptPopulation:
    """A population as it is kept.

    Attributes:
        id: Its name.
        parent_id: The population it descends from.
        generation: The latest in it.
        direction: Which of its members are its elite; `UNDECIDED` until the first of them is evaluated.
        created_at: When it was created, in seconds since 1970.
    """

    id: str
    parent_id: str | None
    generation: int
    direction: str
    created_at: float


class PopulationStore:
    """Keeps populations, and asks for their members.

    Args:
        store: Where.
        run: The number of this engine's run.
    """

    def __init__(self, store: Store, run: int) -> None:
        self._store = store
        self._run = run

    def past(self) -> list[KeptPopulation]:
        """Return the populations that earlier engines kept here."""
        return [KeptPopulation(*row) for row in self._store.query(_ALL)]

    def keep(self, population: KeptPopulation) -> None:
        """Keep a population, or its latest generation."""
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
        """Return (generation, id, fitness, valid, alive) of all who ever were in it, by generation and age.

        Raises:
            StoreError: The store cannot be used.
        """
        await self._store.flush()
        return list(self._store.query(_MEMBERS, (population, generation, generation)))

    def edges(self, population: str, generation: int | None) -> list[Sequence[Any]]:
        """Return (generation, child, parent, mutation type) of all descents into it; see `members`."""
        return list(self._store.query(_EDGES, (population, generation, generation)))

    def is_shared(self) -> bool:
        """Whether another engine has the store open, or had when it was killed."""
        return bool(self._store.query(_OTHERS, (self._run,))[0][0])
