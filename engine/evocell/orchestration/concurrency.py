"""Bounded concurrency whose failures arrive bare, and patience with a worker that has no room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Protocol, TypeVar

import trio

from evocell.errors import CapacityError

__all__ = ["PATIENCE_S", "Room", "Slots", "Turns", "map_bounded", "passes_on"]

PATIENCE_S = 10.0
"""How long something is tried again for which there is no room."""

PAUSE_S = 0.05
"""The first pause before it is tried again, if nothing ends meanwhile; each next one is twice as long."""

T = TypeVar("T")
R = TypeVar("R")


def passes_on(error: BaseException) -> bool:
    """Whether an exception is the business of trio or the interpreter, and not of what was running."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup((trio.Cancelled, GeneratorExit)) is not None
    return isinstance(error, trio.Cancelled | GeneratorExit)


class Slots(Protocol):
    """How much fits into something at once, which may change: a worker, for example."""

    @property
    def slots(self) -> int:
        """How much fits now."""
        ...

    async def wait_slots(self, seen: int) -> int:
        """Wait until `slots` is another number than `seen`, and return it."""
        ...


class Turns:
    """An async context manager that lets so many in at once as there are slots, however many that is by then.

    Args:
        slots: Whose; or a number that stays.
    """

    def __init__(self, slots: Slots | int) -> None:
        self._slots = slots
        self._limiter = trio.CapacityLimiter(self._most)

    @property
    def _most(self) -> int:
        return self._slots if isinstance(self._slots, int) else max(1, self._slots.slots)

    async def __aenter__(self) -> None:
        """Wait for a turn."""
        if self._limiter.total_tokens != self._most:
            self._limiter.total_tokens = self._most
        await self._limiter.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the turn back."""
        self._limiter.release()


async def map_bounded(
    function: Callable[[T], Awaitable[R]],
    items: Sequence[T],
    *,
    at_once: int,
    grows_with: Slots | None = None,
) -> list[R]:
    """Apply an async function to every item, some at a time, starting them in order.

    Args:
        function: What to apply.
        items: What to apply it to.
        at_once: How many may be on their way at the same time, at least 1.
        grows_with: As many more may be on their way as there are more slots here than at the beginning.

    Returns:
        The results in the order of the items.

    Raises:
        BaseException: The first one that `function` raised; the calls still running are cancelled.

    Cancellation: Every call is cancelled, and there is no result.
    """
    waiting = iter(enumerate(items))
    results: dict[int, R] = {}
    failures: list[BaseException] = []

    async def lane() -> None:
        for index, item in waiting:
            try:
                results[index] = await function(item)
            except BaseException as error:
                if passes_on(error):
                    raise
                # Raised again below, outside the nursery, which would wrap it.
                failures.append(error)
                nursery.cancel_scope.cancel()
                return

    async def grow(source: Slots, slots: int) -> None:
        n_lanes, most = at_once, slots
        while n_lanes < len(items):
            slots = await source.wait_slots(slots)
            for _ in range(min(slots - most, len(items) - n_lanes)):
                n_lanes += 1
                lanes.start_soon(lane)
            most = max(most, slots)

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as lanes:
            for _ in range(min(at_once, len(items))):
                lanes.start_soon(lane)
            if grows_with is not None and at_once < len(items):
                nursery.start_soon(grow, grows_with, grows_with.slots)
        nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(items))]


class Room:
    """Tries again what a worker had no room for: in a batch it is the batch itself that fills the worker."""

    def __init__(self) -> None:
        self._one_ended = trio.Event()

    async def wait_for(self, attempt: Callable[[], Awaitable[R]]) -> R:
        """Do something in the worker, if need be when something else has ended.

        Args:
            attempt: What to do, any number of times.

        Raises:
            CapacityError: There was no room for `PATIENCE_S`.
        """
        gives_up_at = trio.current_time() + PATIENCE_S
        pause_s = PAUSE_S
        while True:
            one_ended = self._one_ended
            try:
                result = await attempt()
            except CapacityError:
                left_s = gives_up_at - trio.current_time()
                if left_s <= 0:
                    raise
                with trio.move_on_after(min(pause_s, left_s)):
                    await one_ended.wait()
                await trio.lowlevel.checkpoint()
                pause_s *= 2
            else:
                self._one_ended.set()
                self._one_ended = trio.Event()
                return result
