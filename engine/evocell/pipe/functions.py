"""Callbacks: registration of a client's functions, calls by the server, checks of the answers."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import trio
from attrs import frozen

from evocell.api.portal import TokenPortal
from evocell.api.sandbox import AsyncSandbox, Sandbox
from evocell.errors import ConfigurationError
from evocell.pipe.channel import Channel
from evocell.pipe.serialization import decode, encode

if TYPE_CHECKING:
    from evocell.api.async_engine import AsyncEngine

__all__ = ["CALL", "TOLD_ROLES", "CallbackRegistry", "ClientContext"]

_THREADS = 8

CALL = "call"
"""Method by which the server calls one of the client's functions."""
TOLD_ROLES = frozenset({"progress"})
"""Functions that receive notifications and return nothing."""
_IN_LOOP = frozenset({"fitness"})


@frozen
class _Lent:
    """One function that the client has registered for callbacks.

    Attributes:
        role: The field or argument it is for.
        function: The function.
        owner: The model that holds it.
        takes: The annotations of its parameters; None if unknown.
    """

    role: str
    function: Callable[..., Any]
    owner: object
    takes: Sequence[Any] | None


class _Names:
    """Registers a request's functions; implements `evocell.pipe.serialization.Context` for sending."""

    def __init__(self, functions: CallbackRegistry) -> None:
        self._functions = functions
        self.names: list[str] = []

    def handle(self, sandbox_id: str) -> AsyncSandbox:
        """Return a sandbox behind the pipe."""
        return self._functions.handle(sandbox_id)

    def function(self, role: str, name: str, owner: Mapping[str, Any]) -> Callable[..., Any]:  # noqa: ARG002
        """Refuse: a server has no functions to call."""
        raise ConfigurationError(
            f"{role}: the server named a function ({name}), and it has none to lend", role
        )

    def name_of(
        self, role: str, function: Callable[..., Any], owner: object, takes: Sequence[Any] | None
    ) -> str:
        """Lend a function and return its name."""
        name = self._functions.lend(role, function, owner, takes)
        self.names.append(name)
        return name


class CallbackRegistry:
    """The functions of a client that the server may currently call.

    Args:
        engine: The client's view of the remote engine.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._lent: dict[str, _Lent] = {}
        self._numbers = count(1)
        self._threads = trio.CapacityLimiter(_THREADS)

    def handle(self, sandbox_id: str) -> AsyncSandbox:
        """Return a sandbox behind the pipe."""
        return AsyncSandbox(self._engine, sandbox_id)

    def lend(
        self, role: str, function: Callable[..., Any], owner: object, takes: Sequence[Any] | None
    ) -> str:
        """Lend a function and return its name."""
        name = f"{role}-{next(self._numbers)}"
        self._lent[name] = _Lent(role, function, owner, takes)
        return name

    @contextmanager
    def request(self) -> Iterator[_Names]:
        """Register the functions of a request for its duration."""
        names = _Names(self)
        try:
            yield names
        finally:
            for name in names.names:
                del self._lent[name]

    def told(self, params: Mapping[str, Any]) -> None:
        """Call a function that takes a notification."""
        lent = self._lent.get(str(params.get("function")))
        if lent is not None:
            lent.function(*self._read(lent, params.get("args")))

    async def asked(self, params: Mapping[str, Any]) -> Any:
        """Call a function that returns an answer, in a thread unless it is async.

        Raises:
            ConfigurationError: There is no such function, or it raised.
        """
        lent = self._lent.get(str(params.get("function")))
        if lent is None:
            raise ConfigurationError(f"no function {params.get('function')!r} is lent", "function")
        args = params.get("args")
        given = self._given_sandbox(lent, args) if lent.role == "fitness" else self._read(lent, args)
        try:
            if inspect.iscoroutinefunction(lent.function) or inspect.iscoroutinefunction(
                getattr(type(lent.function), "__call__", None)  # noqa: B004 - it is looked at, not called
            ):
                answer = await lent.function(*given)
            else:
                answer = await trio.to_thread.run_sync(
                    partial(lent.function, *given), abandon_on_cancel=True, limiter=self._threads
                )
        except Exception as error:
            raise ConfigurationError(f"{type(error).__name__}: {error}", lent.role) from error
        return encode(answer, None)

    def _read(self, lent: _Lent, args: object) -> list[Any]:
        if not isinstance(args, list | tuple):
            raise ConfigurationError(f"{lent.role}: args must be a list", "args")
        if lent.role == "score":
            index, value = args
            return [lent.owner.cases[index], value]  # type: ignore[attr-defined]  # an Evaluation
        hints = (Any,) * len(args) if lent.takes is None else lent.takes
        return [
            decode(arg, hint, f"{lent.role}: args[{index}]", _Names(self))
            for index, (arg, hint) in enumerate(zip(args, hints, strict=True))
        ]

    def _given_sandbox(self, lent: _Lent, args: Any) -> list[AsyncSandbox | Sandbox]:
        twin = self.handle(str(args[0]))
        if inspect.iscoroutinefunction(lent.function):
            return [twin]
        return [Sandbox(TokenPortal(trio.lowlevel.current_trio_token()), twin)]


class ClientContext:
    """Resolves the names in a client's request; implements `evocell.pipe.serialization.Context`.

    Args:
        channel: The connection to the client.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.holds_threads = False
        """Whether a function was named that is called from a thread, which waits for the answer."""

    def handle(self, sandbox_id: str) -> str:
        """Return the id, which the engine accepts in place of the sandbox."""
        return sandbox_id

    def function(self, role: str, name: str, owner: Mapping[str, Any]) -> Callable[..., Any]:
        """Return a function that calls the client."""
        if role in TOLD_ROLES:
            return partial(self._tell, name)
        if role in _IN_LOOP:
            return self._in_loop(name)
        self.holds_threads = True
        cases = owner.get("cases")
        places = {id(case): index for index, case in enumerate(cases or ())}

        def ask(*args: Any) -> Any:
            if role == "score":
                case, value = args
                plain = [places[id(case)], value]
            else:
                plain = [encode(arg, None) for arg in args]
            answer = trio.from_thread.run(partial(self._ask, name, plain))
            # Several objectives are a tuple in Python, which most other languages lack.
            return tuple(answer) if role == "aggregate" and isinstance(answer, list) else answer

        # Cases are identified by content, so they must not be changed.
        ask.__dict__["cases"] = cases
        return ask

    def name_of(self, role: str, *_: object) -> str:
        """Refuse: functions of a server have no names."""
        raise TypeError(f"{role}: a server has no functions that a client could ask for")

    def _in_loop(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*args: Any) -> Any:
            return await self._ask(name, [encode(arg, None) for arg in args])

        return ask

    def _tell(self, name: str, *args: Any) -> None:
        params = {"function": name, "args": [encode(arg, None) for arg in args]}
        self._channel.notify_nowait(CALL, params)

    async def _ask(self, name: str, args: list[Any]) -> Any:
        return await self._channel.request(CALL, {"function": name, "args": args}, trusting=False)
