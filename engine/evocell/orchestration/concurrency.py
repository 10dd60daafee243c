"""Bounded concurrency whose failures arrive bare, not wrapped in exception groups."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

__all__ = ["map_bounded"]

T = TypeVar("T")
R = TypeVar("R")


async def map_bounded(function: Callable[[T], Awaitable[R]], items: Sequence[T], *, at_once: int) -> list[R]:
    """Apply an async function to every item, some at a time, starting them in order.

    Args:
        function: What to apply.
        items: What to apply it to.
        at_once: How many may be on their way at the same time, at least 1.

    Returns:
        The results in the order of the items.

    Raises:
        Exception: The first one that `function` raised; the calls still running are cancelled.

    Cancellation: Every call is cancelled, and there is no result.
    """
    waiting = iter(enumerate(items))
    results: dict[int, R] = {}
    failures: list[Exception] = []

    async def lane() -> None:
        for index, item in waiting:
            try:
                results[index] = await function(item)
            except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery
                failures.append(error)
                nursery.cancel_scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        for _ in range(min(at_once, len(items))):
            nursery.start_soon(lane)
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(items))]
