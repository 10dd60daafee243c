"""Sandbox handles: `AsyncSandbox` for trio programs, `Sandbox` for blocking programs.

Their methods are derived from those of the engine: `AsyncSandbox.run` is `AsyncEngine.run` of this sandbox,
and `Sandbox.run` waits for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, NoReturn, ParamSpec, Protocol, Self, TypeAlias, TypeVar

from evocell.api.arguments import SandboxRef
from evocell.api.async_history import AsyncHistory
from evocell.api.async_sandboxes import AsyncSandboxes
from evocell.api.blocking import Blocking, Derived, blocking, blocking_as, derived
from evocell.api.portal import Portal
from evocell.errors import EvocellError
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.html import facts
from evocell.models.state import SandboxState

__all__ = ["AsyncFitness", "AsyncSandbox", "Fitness", "Sandbox", "one_sandbox", "several_sandboxes"]

P = ParamSpec("P")
R = TypeVar("R")


def _of_engine(
    method: Callable[Concatenate[Any, SandboxRef, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[AsyncSandbox, P], Coroutine[Any, Any, R]]:
    """Derive a sandbox's method from an engine's, whose first argument is the sandbox."""
    name = method.__name__

    async def call(self: AsyncSandbox, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = await getattr(self._engine, name)(self, *args, **kwargs)
        return result

    return derived(call, method, without="sandbox")


class _Engine(Protocol):
    """The part of the engine that `AsyncSandbox` uses."""

    async def batch_evaluate(
        self, sandboxes: Sequence[SandboxRef], fitness: Evaluation, /
    ) -> list[FitnessResult]: ...

    async def fork_sandbox(self, sandbox: SandboxRef, new_id: str | None, /) -> AsyncSandbox: ...

    async def batch_destroy(
        self, sandboxes: Sequence[SandboxRef], *, missing_ok: bool
    ) -> list[SandboxState]: ...


class AsyncSandbox(Derived):
    """A handle of one sandbox of an `AsyncEngine`; made by its `create_sandbox`.

    It is a name, not a resource: any number may exist for one sandbox, and a sandbox outlives them. As an
    async context manager it destroys the sandbox at the end of the block.

    Attributes:
        id: The sandbox's id.
    """

    __slots__ = ("_engine", "id")

    def __init__(self, engine: _Engine, sandbox_id: str) -> None:
        self._engine = engine
        self.id = sandbox_id

    run = _of_engine(AsyncSandboxes.run)
    run_with_timeout = _of_engine(AsyncSandboxes.run_with_timeout)
    get_info = _of_engine(AsyncSandboxes.get_info)
    freeze = _of_engine(AsyncSandboxes.freeze)
    destroy = _of_engine(AsyncSandboxes.destroy_sandbox)

    hot_reload = _of_engine(AsyncHistory.hot_reload)
    hot_reload_source = _of_engine(AsyncHistory.hot_reload_source)
    rollback_module = _of_engine(AsyncHistory.rollback_module)
    get_module_version = _of_engine(AsyncHistory.get_module_version)
    history = _of_engine(AsyncHistory.history)
    diff = _of_engine(AsyncHistory.diff)

    async def evaluate(self, evaluation: Evaluation) -> FitnessResult:
        """Evaluate the sandbox's code in fresh forks, and record the result as its fitness.

        Args:
            evaluation: The evaluation.

        Raises:
            SandboxNotFound: There is no such sandbox.
            ScoringError: A function of the evaluation raised.

        Cancellation: Every call is stopped.
        """
        return (await self._engine.batch_evaluate([self], evaluation))[0]

    async def fork(self, new_id: str | None = None) -> AsyncSandbox:
        """Fork the sandbox: make a sandbox with its code and the current state of its session.

        The two share no mutable state. The fork joins the population and generation of its parent, with the
        mutation type ``"fork"``.

        Args:
            new_id: Id of the fork; None generates one.

        Raises:
            SandboxBusy: Its code has files open, or the worker has no room for the copy.
            SandboxNotFound: There is no such sandbox, or it was destroyed meanwhile.
            SandboxExists: The new id is in use.
            CapacityError: There would be too many sandboxes.

        Cancellation: No sandbox is created.
        """
        return await self._engine.fork_sandbox(self, new_id)

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


def one_sandbox(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, AsyncSandbox]],
) -> Callable[Concatenate[Blocking, P], Sandbox]:
    """Make a blocking method, as `blocking` does, that returns a `Sandbox`."""
    return blocking_as(method, _handle, "Sandbox")


def several_sandboxes(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, list[AsyncSandbox]]],
) -> Callable[Concatenate[Blocking, P], list[Sandbox]]:
    """Make a blocking method, as `blocking` does, that returns a list of `Sandbox`."""
    return blocking_as(method, _handles, "list[Sandbox]")


def _handle(portal: Portal, made: AsyncSandbox) -> Sandbox:
    return Sandbox(portal, made)


def _handles(portal: Portal, made: list[AsyncSandbox]) -> list[Sandbox]:
    return [Sandbox(portal, one) for one in made]


class Sandbox(Blocking):
    """A handle of one sandbox of an `Engine`; made by its `create_sandbox`.

    It is a name, not a resource: any number may exist for one sandbox, and a sandbox outlives them. As a
    context manager it destroys the sandbox at the end of the block. It may be used from any thread.

    Attributes:
        id: The sandbox's id.
    """

    __slots__ = ("_async_sandbox", "_async_side", "id")

    def __init__(self, portal: Portal, async_sandbox: AsyncSandbox) -> None:
        self._async_side = portal, async_sandbox
        self._async_sandbox = async_sandbox
        self.id = async_sandbox.id

    def _repr_html_(self) -> str:
        try:
            return self.get_info()._repr_html_()
        except EvocellError as error:
            return facts(f"sandbox {self.id}", [("state", f"is not there: {error.message}")])

    run = blocking(AsyncSandbox.run)
    run_with_timeout = blocking(AsyncSandbox.run_with_timeout)
    evaluate = blocking(AsyncSandbox.evaluate)
    get_info = blocking(AsyncSandbox.get_info)
    fork = one_sandbox(AsyncSandbox.fork)
    freeze = blocking(AsyncSandbox.freeze)
    destroy = blocking(AsyncSandbox.destroy)

    hot_reload = blocking(AsyncSandbox.hot_reload)
    hot_reload_source = blocking(AsyncSandbox.hot_reload_source)
    rollback_module = blocking(AsyncSandbox.rollback_module)
    get_module_version = blocking(AsyncSandbox.get_module_version)
    history = blocking(AsyncSandbox.history)
    diff = blocking(AsyncSandbox.diff)

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
        portal, _ = self._async_side
        portal.call(partial(self._async_sandbox.__aexit__, exc_type, exc, traceback))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sandbox):
            return NotImplemented
        return self._async_sandbox == other._async_sandbox

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Sandbox {self.id!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Sandbox cannot be pickled: it belongs to an engine of this process; pass its id instead"
        )


Fitness: TypeAlias = Callable[[Sandbox], object]
"""A custom fitness function: called in a thread with a `Sandbox`; returns a number or named numbers."""

AsyncFitness: TypeAlias = Callable[[AsyncSandbox], Awaitable[object]]
"""An async custom fitness function, called in the engine's loop with an `AsyncSandbox`."""
