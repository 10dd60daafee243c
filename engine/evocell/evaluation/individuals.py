"""Individuals of a batch: as handed in, as candidates under evaluation, and as members of the batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from attrs import define, field, frozen

from evocell.code.compiler import CompiledVersion
from evocell.execution.interface import FollowUpJob
from evocell.models.fitness import FitnessResult
from evocell.models.outcome import Rejected
from evocell.models.references import Source
from evocell.models.security import SecurityProfile
from evocell.models.specs import SandboxSpec
from evocell.sandboxes.package_images import ChosenImage
from evocell.sandboxes.record import SandboxRecord

__all__ = [
    "Candidate",
    "LoadCode",
    "NewIndividual",
    "Progress",
    "SandboxIndividual",
    "TransientIndividual",
]

Progress = Callable[[FitnessResult, int, int], None]
"""Called with each result as it arrives, the number of results so far, and the total."""

LoadCode: TypeAlias = Callable[[], Awaitable[CompiledVersion | Rejected]]
"""Loads an individual's code."""


@frozen(kw_only=True)
class Candidate:
    """An individual to evaluate.

    Attributes:
        sandbox_id: Its name in the result.
        generation: The generation it belongs to.
        load: Loads its code; called once.
        image: The image that it was made with, if it was with one.
        in_use: Context manager entered for the evaluation. If the sandbox is destroyed, it cancels the block
            and raises `SandboxNotFound`.
        security: Its own security profile; None for the engine's.
        follow_up: Its first call, if that may be begun as soon as its code is compiled.
    """

    sandbox_id: str
    generation: int
    load: LoadCode
    image: ChosenImage | None = None
    in_use: Callable[[], AbstractContextManager[None]] = nullcontext
    security: SecurityProfile | None = None
    follow_up: FollowUpJob | None = None


@frozen
class NewIndividual:
    """A source to evaluate, with its specification.

    Attributes:
        source: Its code.
        spec: Its specification.
        keep: Whether it is kept as a sandbox; otherwise only its result remains.
    """

    source: Source = field(repr=False)
    spec: SandboxSpec = field(factory=SandboxSpec)
    keep: bool = False


@define(eq=False)
class TransientIndividual:
    """An individual of which only the result is kept.

    Attributes:
        sandbox_id: Its name in the result.
        generation: The generation it belongs to.
        number: Its number in lineage and store.
        version: Digest of its code, once it has been read.
    """

    sandbox_id: str
    generation: int
    number: int
    version: str | None = None


@define(eq=False)
class SandboxIndividual:
    """A sandbox under evaluation.

    An evaluation concerns one version: a concurrent reload affects the next evaluation.

    Attributes:
        record: The sandbox.
        load_first: Loads its code.
        code: The loaded code; None before.
        version: Digest of its code, also of rejected code, once it has been read.
    """

    record: SandboxRecord
    load_first: LoadCode | None = None
    code: CompiledVersion | Rejected | None = None
    version: str | None = None

    @property
    def number(self) -> int:
        """Its number in lineage and store."""
        return self.record.number

    async def load(self) -> CompiledVersion | Rejected:
        """Load the code once; later calls return the same result."""
        if self.code is None:
            assert self.load_first is not None
            self.code = await self.load_first()
            if isinstance(self.code, CompiledVersion):
                self.version = self.code.digest
        return self.code

    @property
    def is_current(self) -> bool:
        """Whether the sandbox still holds the evaluated version."""
        version = self.code.digest if isinstance(self.code, CompiledVersion) else None
        return self.code is None or self.record.state.version == version

    def candidate(self) -> Candidate:
        """Return the sandbox as a candidate."""
        return Candidate(
            sandbox_id=self.record.id,
            generation=self.record.state.generation,
            load=self.load,
            image=self.record.asked_image,
            in_use=self.record.in_use,
            security=self.record.security_profile,
        )
