"""Snapshots of the state of a sandbox and of a population."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from attrs import Factory, evolve, field, frozen

from evocell.models.html import facts
from evocell.models.specs import SandboxSpec


class SandboxStatus(StrEnum):
    """Status of a sandbox. The values are those in the store and on the wire."""

    CREATING = "creating"
    RUNNING = "running"
    ERROR = "error"
    STOPPED = "stopped"


#: Allowed transitions. A sandbox in error recovers by loading working code.
ALLOWED_TRANSITIONS: Mapping[SandboxStatus, frozenset[SandboxStatus]] = MappingProxyType(
    {
        SandboxStatus.CREATING: frozenset(
            {SandboxStatus.RUNNING, SandboxStatus.ERROR, SandboxStatus.STOPPED}
        ),
        SandboxStatus.RUNNING: frozenset({SandboxStatus.ERROR, SandboxStatus.STOPPED}),
        SandboxStatus.ERROR: frozenset({SandboxStatus.RUNNING, SandboxStatus.STOPPED}),
        SandboxStatus.STOPPED: frozenset(),
    }
)


def utc_now() -> datetime:
    """Return the current time, aware and in UTC."""
    return datetime.now(UTC)


@frozen
class Transition:
    """One change of a sandbox's status.

    Attributes:
        before: The status it left; None when it was created.
        after: The status it entered.
        at: Time, in UTC.
        reason: The reason, in a sentence; may be empty.
    """

    before: SandboxStatus | None
    after: SandboxStatus
    at: datetime = field(factory=utc_now)
    reason: str = ""


_NO_CONFIG = SandboxSpec()


def _first_parent(state: SandboxState) -> str | None:
    return state.parent_ids[0] if state.parent_ids else None


@frozen
class SandboxState:
    """The state of one sandbox at one moment.

    Attributes:
        id: Its name, unique within the engine.
        status: Its status.
        config: Its specification, without the code.
        supervisor: Name of the worker that holds its session; None while it has none.
        monitor: Name of the task that watches its session; None while it has none.
        created_at: When it was created, in UTC.
        restart_count: Number of times its session was replaced by a fresh fork after a failure.
        error: Why it is in status ``error``, in a sentence.
        generation: Generation it belongs to, from 0.
        parent_ids: All its parents.
        parent_id: The first parent; None for a seed.
        mutation_type: The kind of mutation that made it.
        fitness: Its latest fitness score.
        evaluated_at: Time of the evaluation, in UTC.
        lineage_depth: Generations between it and the seed it descends from.
        population: The population it belongs to.
        version: Digest of the code it holds; None while it holds none.
        image: The image that calls of that code start from: the name or id that was asked for, ``"base"`` for
            the engine's own, or the name of an image with the packages that the code imports.
        transitions: Its changes of status so far, oldest first.
    """

    id: str
    status: SandboxStatus = SandboxStatus.CREATING
    config: SandboxSpec = _NO_CONFIG
    supervisor: str | None = None
    monitor: str | None = None
    created_at: datetime = field(factory=utc_now)
    restart_count: int = 0
    error: str | None = None
    generation: int = 0
    parent_ids: tuple[str, ...] = ()
    parent_id: str | None = Factory(_first_parent, takes_self=True)
    mutation_type: str = "seed"
    fitness: float | None = None
    evaluated_at: datetime | None = None
    lineage_depth: int = 0
    population: str | None = None
    version: str | None = None
    image: str = "base"
    transitions: tuple[Transition, ...] = ()

    def _repr_html_(self) -> str:
        return facts(
            f"sandbox {self.id}",
            [
                ("status", self.status.value),
                ("error", self.error),
                ("fitness", "none yet" if self.fitness is None else self.fitness),
                ("population", self.population),
                ("generation", self.generation),
                ("parents", ", ".join(self.parent_ids) or None),
                ("made by", self.mutation_type),
                ("version", self.version and self.version[:12]),
                ("image", self.image),
            ],
        )

    def moved_to(
        self,
        status: SandboxStatus,
        reason: str = "",
        **changes: Any,
    ) -> SandboxState:
        """Return the state after a transition, which is added to `transitions`.

        A move to the current status adds no transition and only applies the changes.

        Args:
            status: The status to enter.
            reason: Why, in a sentence.
            **changes: Other fields that change with it.

        Raises:
            ValueError: The transition is not allowed, which is a bug of the engine.
        """
        if status is self.status:
            return evolve(self, **changes)
        if status not in ALLOWED_TRANSITIONS[self.status]:
            raise ValueError(f"sandbox {self.id!r} cannot go from {self.status.value!r} to {status.value!r}")
        step = Transition(self.status, status, reason=reason)
        return evolve(self, status=status, transitions=(*self.transitions, step), **changes)


@frozen
class PopulationState:
    """The state of one population, a named group of sandboxes, at one moment.

    Attributes:
        id: Its name.
        generation: Its latest generation, from 0.
        sandbox_ids: Its members.
        fitness_stats: Statistics of the valid members, see `fitness_statistics`.
        created_at: When it was created, in UTC.
        parent_population_id: The population it descends from.
    """

    id: str
    generation: int = 0
    sandbox_ids: tuple[str, ...] = ()
    fitness_stats: Mapping[str, float] = field(factory=dict)
    created_at: datetime = field(factory=utc_now)
    parent_population_id: str | None = None

    def _repr_html_(self) -> str:
        return facts(
            f"population {self.id}",
            [
                ("generation", self.generation),
                ("members", len(self.sandbox_ids)),
                ("descends from", self.parent_population_id),
                *self.fitness_stats.items(),
            ],
        )
