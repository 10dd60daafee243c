"""A sandbox in a program that blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self

from evocell.api.async_sandbox import AsyncSandbox
from evocell.api.portal import Portal
from evocell.errors import EvocellError
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.html import facts
from evocell.models.info import ImageInfo
from evocell.models.limits import Limits
from evocell.models.outcome import Outcome
from evocell.models.references import Completable, Source
from evocell.models.state import SandboxState
from evocell.models.versions import ModuleVersion, VersionDiff
from evocell.sandboxes.calls import RunIsolation

__all__ = ["Sandbox"]


class Sandbox(Completable):
    """One individual of an `Engine`; made by its `create_sandbox`.

    It is a name, not a resource: any number may exist for one sandbox, and a sandbox outlives them. As a
    context manager it destroys the sandbox at the end of the block. It may be used from any thread.

    Attributes:
        id: The sandbox's id.
    """

    __slots__ = ("_portal", "_twin", "id")

    def __init__(self, portal: Portal, twin: AsyncSandbox) -> None:
        self._portal = portal
        self._twin = twin
        self.id = twin.id

    def _repr_html_(self) -> str:
        try:
            return self.get_info()._repr_html_()
        except EvocellError as error:
            return facts(f"sandbox {self.id}", [("state", f"is not there: {error.message}")])

    def run(
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
        """Call a function of the sandbox; see `Engine.run`."""
        return self._portal.call(
            partial(
                self._twin.run,
                entry,
                args=args,
                kwargs=kwargs,
                seed=seed,
                limits=limits,
                isolation=isolation,
                deadline_s=deadline_s,
            )
        )

    def run_with_timeout(
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
        """Call a function of the sandbox for a limited time; see `Engine.run_with_timeout`."""
        return self._portal.call(
            partial(
                self._twin.run_with_timeout,
                entry,
                timeout_s=timeout_s,
                args=args,
                kwargs=kwargs,
                seed=seed,
                limits=limits,
                isolation=isolation,
                deadline_s=deadline_s,
            )
        )

    def evaluate(self, evaluation: Evaluation) -> FitnessResult:
        """Evaluate the sandbox's code and note its fitness; see `Engine.batch_evaluate`."""
        return self._portal.call(partial(self._twin.evaluate, evaluation))

    def hot_reload(
        self, bundle: bytes, *, mutation_type: str = "mutation", keep_state: bool = False
    ) -> Outcome:
        """Put a bundle's code into the sandbox; see `Engine.hot_reload`."""
        return self._portal.call(
            partial(self._twin.hot_reload, bundle, mutation_type=mutation_type, keep_state=keep_state)
        )

    def hot_reload_source(
        self, source: Source, *, mutation_type: str = "mutation", keep_state: bool = False
    ) -> Outcome:
        """Put other code into the sandbox; see `Engine.hot_reload_source`."""
        return self._portal.call(
            partial(self._twin.hot_reload_source, source, mutation_type=mutation_type, keep_state=keep_state)
        )

    def get_info(self) -> SandboxState:
        """Return what the engine knows about the sandbox."""
        return self._portal.call(self._twin.get_info)

    def rollback_module(self, module: str, version: int, *, keep_state: bool = False) -> Outcome:
        """Give a module the files of an earlier version; see `Engine.rollback_module`."""
        return self._portal.call(partial(self._twin.rollback_module, module, version, keep_state=keep_state))

    def get_module_version(self, module: str) -> ModuleVersion | None:
        """Return the loaded version of a module; see `Engine.get_module_version`."""
        return self._portal.call(partial(self._twin.get_module_version, module))

    def history(self, module: str) -> tuple[ModuleVersion, ...]:
        """Return the versions of a module, oldest first; see `Engine.history`."""
        return self._portal.call(partial(self._twin.history, module))

    def diff(self, module: str, old: int | None = None, new: int | None = None) -> VersionDiff:
        """Say what changed in a module between two versions; see `Engine.diff`."""
        return self._portal.call(partial(self._twin.diff, module, old, new))

    def fork(self, new_id: str | None = None) -> Sandbox:
        """Make a sandbox that holds what this one holds; see `Engine.fork_sandbox`."""
        return Sandbox(self._portal, self._portal.call(partial(self._twin.fork, new_id)))

    def freeze(self, name: str, *, replace: bool = False) -> ImageInfo:
        """Make a named image of what the sandbox holds; see `Engine.freeze`."""
        return self._portal.call(partial(self._twin.freeze, name, replace=replace))

    def destroy(self) -> SandboxState:
        """Destroy the sandbox; see `Engine.destroy_sandbox`."""
        return self._portal.call(self._twin.destroy)

    def __enter__(self) -> Self:
        """Return the sandbox itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Destroy the sandbox, if it is still there."""
        self._portal.call(partial(self._twin.__aexit__, exc_type, exc, traceback))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sandbox):
            return NotImplemented
        return self._twin == other._twin

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Sandbox {self.id!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Sandbox cannot be pickled: it belongs to an engine of this process; pass its id instead"
        )
