"""Helpers for structured concurrency: bounded maps, capacity retries, deadlines, restarts, threads."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from types import TracebackType
from typing import NoReturn, Protocol, TypeVar, TypeVarTuple, cast

import trio

from evocell.errors import CapacityError

__all__ = [
    "BACK_OFF_S",
    "CAPACITY_TIMEOUT_S",
    "FEW_BYTES",
    "CapacityRetry",
    "Deadline",
    "Slots",
    "Turns",
    "back_off_s",
    "both",
    "in_thread_if_large",
    "keep_running",
    "map_bounded",
    "passes_on",
    "running_beside",
]

CAPACITY_TIMEOUT_S = 10.0
"""Seconds for which a request without capacity is retried."""

BACK_OFF_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Pauses before a process or a task is restarted, by the number of failures in a row."""
LONG_LIFE_S = 60.0
"""Uptime after which earlier failures of a task no longer count."""

PAUSE_S = 0.05
"""The first pause before a retry, if no other request ends meanwhile; doubled each time."""

_log = logging.getLogger("evocell")

T = TypeVar("T")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

FEW_BYTES = 16 << 10
"""Bytes below which no thread is used: at worst some 20 ms of work. Source: 3 to 9 microseconds a value."""


def passes_on(error: BaseException) -> bool:
    """Return whether an exception belongs to trio or the interpreter, and must be propagated."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup((trio.Cancelled, GeneratorExit)) is not None
    return isinstance(error, trio.Cancelled | GeneratorExit)


class Slots(Protocol):
    """Protocol of something with a changing capacity, such as a worker."""

    @property
    def slots(self) -> int:
        """The current capacity."""
        ...

    async def wait_slots(self, seen: int) -> int:
        """Wait until `slots` differs from `seen`, and return it."""
        ...


class Turns:
    """Async semaphore whose limit follows a changing number of slots.

    Args:
        slots: The source of the limit; or a constant number.
    """

    def __init__(self, slots: Slots | int) -> None:
        self._slots = slots
        self._inside = 0
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def _most(self) -> int:
        return self._slots if isinstance(self._slots, int) else max(1, self._slots.slots)

    async def __aenter__(self) -> None:
        """Wait for a turn; one that is free is taken without giving way to other tasks.

        Cancellation: There is no turn to give back.
        """
        if self._waiting:
            self._let_in()
        if self._inside < self._most:
            self._inside += 1
        else:
            await self._waiting.park()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the slot."""
        self._inside -= 1
        if self._waiting:
            self._let_in()

    def _let_in(self) -> None:
        """Let in as many of those who wait as there are turns for."""
        while self._waiting and self._inside < self._most:
            self._inside += 1  # for the one that is woken: it has its turn from now on
            self._waiting.unpark()


async def map_bounded(
    function: Callable[[T], Awaitable[R]],
    items: Sequence[T],
    *,
    at_once: int,
    grows_with: Slots | None = None,
) -> list[R]:
    """Apply an async function to every item with bounded concurrency, starting in order.

    Args:
        function: The function.
        items: The items.
        at_once: Most concurrent calls, at least 1.
        grows_with: Raises the bound by as many slots as this has gained since the start.

    Returns:
        The results in the order of the items.

    Raises:
        BaseException: The first exception of `function`; the calls still running are cancelled.

    Cancellation: Every call is cancelled, and there is no result.
    """
    if len(items) == 1:  # a single sandbox, or case: two nurseries would take as long as half of it
        return [await function(items[0])]
    waiting = iter(enumerate(items))
    results: dict[int, R] = {}
    failures: list[BaseException] = []
    n_open = min(at_once, len(items))

    async def lane() -> None:
        nonlocal n_open
        try:
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
        finally:
            n_open -= 1

    async def grow(source: Slots, slots: int) -> None:
        nonlocal n_open
        n_lanes, most = at_once, slots
        while n_lanes < len(items):
            slots = await source.wait_slots(slots)
            if not n_open:  # the last lane has ended, and with it the nursery of all
                return
            for _ in range(min(slots - most, len(items) - n_lanes)):
                n_lanes += 1
                n_open += 1
                lanes.start_soon(lane)
            most = max(most, slots)

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as lanes:
            for _ in range(n_open):
                lanes.start_soon(lane)
            if grows_with is not None and at_once < len(items):
                nursery.start_soon(grow, grows_with, grows_with.slots)
        nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(items))]


async def both(first: Callable[[], Awaitable[T]], second: Callable[[], Awaitable[R]]) -> tuple[T, R]:
    """Run two async functions at once; the first begins first.

    Returns:
        Their results.

    Raises:
        BaseException: The first exception of either, not wrapped in a group; the other is cancelled.

    Cancellation: Both are cancelled.
    """
    failures: list[BaseException] = []
    seconds: list[R] = []

    async def run_second() -> None:
        try:
            seconds.append(await second())
        except BaseException as error:
            if passes_on(error):
                raise
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_second)
        try:
            found = await first()
        except BaseException as error:
            if passes_on(error):
                raise
            failures.append(error)
            nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return found, seconds[0]


class CapacityRetry:
    """Retries requests for which a worker lacks capacity, because the batch itself may fill the worker."""

    def __init__(self) -> None:
        self._one_ended = trio.Event()
        self._n_waiting = 0

    async def wait_for(self, attempt: Callable[[], Awaitable[R]]) -> R:
        """Run a request in the worker; if it lacks capacity, retry when another request has ended.

        Args:
            attempt: The request; may be called any number of times.

        Raises:
            CapacityError: There was no room for `CAPACITY_TIMEOUT_S`.
        """
        gives_up_at = trio.current_time() + CAPACITY_TIMEOUT_S
        pause_s = PAUSE_S
        while True:
            one_ended = self._one_ended
            try:
                result = await attempt()
            except CapacityError:
                left_s = gives_up_at - trio.current_time()
                if left_s <= 0:
                    raise
                self._n_waiting += 1
                try:
                    with trio.move_on_after(min(pause_s, left_s)):
                        await one_ended.wait()
                finally:
                    self._n_waiting -= 1
                await trio.lowlevel.checkpoint()
                pause_s *= 2
            else:
                if self._n_waiting:
                    self._one_ended.set()
                    self._one_ended = trio.Event()
                return result


_NEVER = cast("AbstractContextManager[trio.CancelScope, bool]", nullcontext(trio.CancelScope()))
"""In place of a scope that is never cancelled: entering a real one takes as long as some scoring does."""


class Deadline:
    """A time by which everything must be over, on a clock that can be stopped.

    Args:
        seconds: How long from now; may be infinite.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends_at = trio.current_time() + seconds
        self._scopes: set[trio.CancelScope] = set()
        self._stops = 0
        self._stopped_at = 0.0

    def scope(self) -> AbstractContextManager[trio.CancelScope, bool]:
        """Cancel a block of work at the deadline, wherever that has moved by then."""
        if self.seconds == math.inf:
            return _NEVER
        return cast("AbstractContextManager[trio.CancelScope, bool]", self._scope())

    @contextmanager
    def _scope(self) -> Iterator[trio.CancelScope]:
        with trio.CancelScope(deadline=math.inf if self._stops else self._ends_at) as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the clock during a block of work that is not the caller's to pay for."""
        if not self._stops:
            self._stopped_at = trio.current_time()
            self._move(math.inf)
        self._stops += 1
        try:
            yield
        finally:
            self._stops -= 1
            if not self._stops:
                self._ends_at += trio.current_time() - self._stopped_at
                self._move(self._ends_at)

    def _move(self, deadline: float) -> None:
        for scope in self._scopes:
            scope.deadline = deadline


async def in_thread_if_large(size_bytes: int, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """Call a function on the loop if its input is small, else in a thread.

    Args:
        size_bytes: Size of its input.
        function: The function; it must not need the loop.
        *arguments: Its arguments.

    A million small values in an answer, well within the default limits, take seconds to scan and to
    decode, and would block all other calls and clients of the engine on its loop. A thread shares the
    interpreter's lock with the loop every few milliseconds.

    Cancellation: Waits until the function has returned.
    """
    if size_bytes <= FEW_BYTES:
        return function(*arguments)
    return await trio.to_thread.run_sync(function, *arguments)


def back_off_s(failures: int) -> float:
    """Return the seconds to wait before a restart, by the number of failures in a row."""
    return BACK_OFF_S[min(max(failures, 0), len(BACK_OFF_S) - 1)]


async def keep_running(task: Callable[[], Awaitable[object]], *, name: str) -> NoReturn:
    """Run a task for ever; if it raises or returns, log that and restart it.

    A restarted task has lost its state, so a task must read the current state when it starts.

    Args:
        task: The task.
        name: Its name in the log.

    Cancellation: The task is cancelled and not restarted.
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
        await trio.sleep(back_off_s(short_lives - 1))


@asynccontextmanager
async def running_beside(task: Callable[[], Awaitable[object]], *, name: str) -> AsyncIterator[None]:
    """Run a task during a block; it is cancelled at the end of the block."""
    async with trio.open_nursery() as nursery:

        async def keep() -> None:
            await keep_running(task, name=name)

        nursery.start_soon(keep, name=name)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
