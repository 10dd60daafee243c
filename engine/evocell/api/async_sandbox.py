"""A sandbox in a trio program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.info import ImageInfo
from evocell.models.limits import Limits
from evocell.models.outcome import Outcome
from evocell.models.references import Completable, Source
from evocell.models.state import SandboxState
from evocell.models.versions import ModuleVersion, VersionDiff
from evocell.sandboxes.calls import RunIsolation

if TYPE_CHECKING:
    from evocell.api.async_engine import AsyncEngine

__all__ = ["AsyncSandbox"]


class AsyncSandbox(Completable):
    """One individual of an `AsyncEngine`; made by its `create_sandbox`.

    It is a name, not a resource: any number may exist for one sandbox, and a sandbox outlives them. As an
    async context manager it destroys the sandbox at the end of the block.

    Attributes:
        id: The sandbox's id.
    """

    __slots__ = ("_engine", "id")

    def __init__(self, engine: AsyncEngine, sandbox_id: str) -> None:
        self._engine = engine
        self.id = sandbox_id

    async def run(
        self,
        entry: str,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        limits: Limits | None = None,
        isolation: RunIsolation = "session",
        deadline_s: float | None = None,
    ) -> Outcome:
        """Call a function of the sandbox; see `AsyncEngine.run`."""
        return await self._engine.run(
            self,
            entry,
            args=args,
            kwargs=kwargs,
            seed=seed,
            limits=limits,
            isolation=isolation,
            deadline_s=deadline_s,
        )

    async def run_with_timeout(
        self,
        entry: str,
        *,
        timeout_s: float,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        limits: Limits | None = None,
        isolation: RunIsolation = "session",
        deadline_s: float | None = None,
    ) -> Outcome:
        """Call a function of the sandbox for a limited time; see `AsyncEngine.run_with_timeout`."""
        return await self._engine.run_with_timeout(
            self,
            entry,
            timeout_s=timeout_s,
            args=args,
            kwargs=kwargs,
            seed=seed,
            limits=limits,
            isolation=isolation,
            deadline_s=deadline_s,
        )

    async def evaluate(self, evaluation: Evaluation) -> FitnessResult:
        """Evaluate the sandbox's code and note its fitness; see `AsyncEngine.batch_evaluate`."""
        return (await self._engine.batch_evaluate([self], evaluation))[0]

    async def hot_reload(
        self, bundle: bytes, *, mutation_type: str = "mutation", keep_state: bool = False
    ) -> Outcome:
        """Put a bundle's code into the sandbox; see `AsyncEngine.hot_reload`."""
        return await self._engine.hot_reload(self, bundle, mutation_type=mutation_type, keep_state=keep_state)

    async def hot_reload_source(
        self, source: Source, *, mutation_type: str = "mutation", keep_state: bool = False
    ) -> Outcome:
        """Put other code into the sandbox; see `AsyncEngine.hot_reload_source`."""
        return await self._engine.hot_reload_source(
            self, source, mutation_type=mutation_type, keep_state=keep_state
        )

    async def get_info(self) -> SandboxState:
        """Return what the engine knows about the sandbox."""
        return await self._engine.get_info(self)

    async def rollback_module(self, module: str, version: int, *, keep_state: bool = False) -> Outcome:
        """Give a module the files of an earlier version; see `AsyncEngine.rollback_module`."""
        return await self._engine.rollback_module(self, module, version, keep_state=keep_state)

    async def get_module_version(self, module: str) -> ModuleVersion | None:
        """Return the loaded version of a module; see `AsyncEngine.get_module_version`."""
        return await self._engine.get_module_version(self, module)

    async def history(self, module: str) -> tuple[ModuleVersion, ...]:
        """Return the versions of a module, oldest first; see `AsyncEngine.history`."""
        return await self._engine.history(self, module)

    async def diff(self, module: str, old: int | None = None, new: int | None = None) -> VersionDiff:
        """Say what changed in a module between two versions; see `AsyncEngine.diff`."""
        return await self._engine.diff(self, module, old, new)

    async def fork(self, new_id: str | None = None) -> AsyncSandbox:
        """Make a sandbox that holds what this one holds; see `AsyncEngine.fork_sandbox`."""
        return await self._engine.fork_sandbox(self, new_id)

    async def freeze(self, name: str, *, replace: bool = False) -> ImageInfo:
        """Make a named image of what the sandbox holds; see `AsyncEngine.freeze`."""
        return await self._engine.freeze(self, name, replace=replace)

    async def destroy(self) -> SandboxState:
        """Destroy the sandbox; see `AsyncEngine.destroy_sandbox`."""
        return await self._engine.destroy_sandbox(self)

    async def __aenter__(self) -> Self:
        """Return the sandbox itself."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Destroy the sandbox, if it is still there."""
        await self._engine.batch_destroy([self], missing_ok=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AsyncSandbox):
            return NotImplemented
        return self.id == other.id and self._engine is other._engine

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<AsyncSandbox {self.id!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an AsyncSandbox cannot be pickled: it belongs to an engine of this process; pass its id instead"
        )
