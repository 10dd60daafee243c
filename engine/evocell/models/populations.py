"""Offspring, generations of a population, and reports of the garbage collector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

from attrs import field, frozen

from evocell.errors import ConfigurationError
from evocell.models.equality import ByContent
from evocell.models.limits import Limits, optional_limits
from evocell.models.references import SandboxName, Source, sandbox_id

__all__ = ["GarbageCause", "GarbageReport", "GenerationState", "Offspring"]

GarbageCause = Literal["interval", "demand", "pressure", "capacity"]


def _parent_ids(value: SandboxName | Iterable[SandboxName]) -> tuple[str, ...]:
    given = cast("object", value)
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes)
    try:
        return tuple(sandbox_id(one) for one in (cast("Iterable[object]", given) if several else (given,)))
    except ConfigurationError as error:
        raise ConfigurationError(
            f"offspring parents must be sandboxes or their ids: {error.message}", "parents"
        ) from None


@frozen
class Offspring:
    """An individual of the next generation.

    Attributes:
        source: Its code.
        parents: Its parents, or their ids: one for a mutation, two or more for a crossover, none for a seed.
        mutation_type: The kind of mutation that made it; None chooses ``"seed"``, ``"mutation"`` or
            ``"crossover"`` by the number of its parents.
        metadata: Metadata of the mutation, for lineage: plain data.
        id: Its id; None generates one.
        image: Name of the image it starts from; None for the one that follows from its imports.
        limits: Limits of each call; None for the engine's.

    Raises:
        ConfigurationError: A field is invalid.
    """

    source: Source = field(repr=False, eq=ByContent)
    parents: tuple[str, ...] = field(default=(), converter=_parent_ids)
    mutation_type: str | None = field(default=None, kw_only=True)
    metadata: Mapping[str, Any] | None = field(default=None, kw_only=True)
    id: str | None = field(default=None, kw_only=True)
    image: str | None = field(default=None, kw_only=True)
    limits: Limits | None = field(default=None, kw_only=True, validator=optional_limits)

    @property
    def kind(self) -> str:
        """The kind of mutation that made it."""
        if self.mutation_type is not None:
            return self.mutation_type
        return ("seed", "mutation", "crossover")[min(len(self.parents), 2)]


@frozen(kw_only=True)
class GenerationState:
    """One generation of a population, including destroyed members.

    Attributes:
        population: The population.
        generation: Its number, from 0.
        sandbox_ids: Its members, oldest first.
        alive: Number of members that are sandboxes now.
        fitness_stats: Statistics of their latest fitness; see `fitness_statistics`.
        edges: Child, parent and mutation type of each lineage edge into it, in the order of the children.
    """

    population: str
    generation: int
    sandbox_ids: tuple[str, ...]
    alive: int
    fitness_stats: Mapping[str, float]
    edges: tuple[tuple[str, str, str], ...] = ()


@frozen(kw_only=True)
class GarbageReport:
    """Report of one cycle of the garbage collector.

    Attributes:
        cause: ``"interval"``, ``"demand"``, ``"pressure"`` (memory), or ``"capacity"`` (no room for further
            sandboxes).
        sandboxes: Ids of the destroyed sandboxes.
        sessions: Number of those that had a session.
        kept_elites: Number of members of retired generations kept for their fitness.
        kept_pinned: Number kept because they are pinned.
        kept_busy: Number kept because they were in use; a later cycle collects them.
        trees: Number of removed version trees.
        files: Number of removed file contents that no other tree holds.
        bytes: Total size of these.
        directories: Number of removed temporary directories of killed processes.
        duration_s: Duration in seconds.
    """

    cause: GarbageCause
    sandboxes: tuple[str, ...] = ()
    sessions: int = 0
    kept_elites: int = 0
    kept_pinned: int = 0
    kept_busy: int = 0
    trees: int = 0
    files: int = 0
    bytes: int = 0
    directories: int = 0
    duration_s: float = 0.0
