"""Tasks that run as long as the engine does, whatever goes wrong in them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import trio

__all__ = ["keep_running", "running_beside"]

PAUSES_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Pauses before a task is started again, by how many of its last lives were short."""
LONG_LIFE_S = 60.0
"""A life after which what went wrong before is forgiven."""

_log = logging.getLogger("evocell")


async def keep_running(task: Callable[[], Awaitable[object]], *, name: str) -> NoReturn:
    """Run a task for ever: one that raises, or returns, is logged and started again.

    What the task knew is lost with it, so a task must find out by itself, when it starts, how things are.

    Args:
        task: What to run.
        name: What to call it in the log.

    Cancellation: The task is cancelled and not started again.
    """
    short_lives = 0
    while True:
        started = trio.current_time()
        try:
            await task()
        except Exception:  # noqa: BLE001 - whatever it was, the task is needed
            _log.exception("the task %r failed and is started again", name)
        else:
            _log.error("the task %r ended and is started again", name)
        short_lives = 0 if trio.current_time() - started >= LONG_LIFE_S else short_lives + 1
        await trio.sleep(PAUSES_S[min(max(short_lives - 1, 0), len(PAUSES_S) - 1)])


@asynccontextmanager
async def running_beside(task: Callable[[], Awaitable[object]], *, name: str) -> AsyncIterator[None]:
    """Keep a task running during a block of work; it is cancelled at the end of the block."""
    async with trio.open_nursery() as nursery:

        async def keep() -> None:
            await keep_running(task, name=name)

        nursery.start_soon(keep, name=name)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
