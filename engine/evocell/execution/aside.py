"""Work on bytes of a guest's own length, kept off the event loop if there are many of them.

A million small values in an answer, well within the default limits, take seconds to scan and to decode. All
other calls and clients of the engine would wait for that on its loop; a thread shares the interpreter's lock
with it every few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

FEW_BYTES = 16 << 10
"""What is worth no thread, in bytes: at worst some 20 ms of work. Source: 3 to 9 microseconds a value."""


async def aside(size_bytes: int, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """Call a function on the loop if it has few bytes to work on, else in a thread.

    Args:
        size_bytes: How many bytes it works on.
        function: What to call; it must not need the loop.
        *arguments: Its arguments.

    Cancellation: Waits until the function has returned.
    """
    if size_bytes <= FEW_BYTES:
        return function(*arguments)
    return await trio.to_thread.run_sync(function, *arguments)
