"""Functions of a client as functions of this process: each call is a request through the pipe.

The engine calls some of them in threads (``score``, ``aggregate``, ``stop``, ``keep``) and some in its loop
(``fitness``, ``progress``). A ``score`` is asked with the number of a case, since the client has the cases.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import trio

from evocell.pipe.channel import Channel
from evocell.pipe.shapes import encode

__all__ = ["CALL", "TOLD_ROLES", "ClientContext"]

CALL = "call"
"""The method by which the server asks for one of the client's functions."""

TOLD_ROLES = frozenset({"progress"})
"""Functions that are told something and asked nothing."""

_IN_LOOP = frozenset({"fitness"})


class ClientContext:
    """What stands behind the names in a request of a client; implements `evocell.pipe.shapes.Context`.

    Args:
        channel: The connection to the client.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.holds_threads = False
        """Whether a function was named that is asked from a thread, which waits for the answer."""

    def handle(self, sandbox_id: str) -> str:
        """Return the id: the engine takes it as well as the sandbox."""
        return sandbox_id

    def function(self, role: str, name: str, owner: Mapping[str, Any]) -> Callable[..., Any]:
        """Return a function that asks the client."""
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
            # Several objectives are a tuple in Python, which most other languages do not have.
            return tuple(answer) if role == "aggregate" and isinstance(answer, list) else answer

        # The cases are found by what they are, so they must stay what they are.
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
