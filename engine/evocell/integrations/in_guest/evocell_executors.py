"""Executors of processes in a sandbox, and waiting for their futures."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, _base
from typing import Any

from evocell_pools import Workers, broken_pool


class PumpedFuture(Future):  # type: ignore[type-arg]
    """A future whose result is fetched from a worker when it is waited for."""

    workers: Workers

    def pump(self, timeout: float | None) -> None:
        """Wait until it is done."""
        until = None if timeout is None else time.monotonic() + timeout
        while not super().done():
            left = None if until is None else max(0.0, until - time.monotonic())
            if not self.workers.pump(left):
                return

    def done(self) -> bool:
        """Return whether it is done."""
        self.pump(0)
        return super().done()

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, or raise the exception."""
        self.pump(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception."""
        self.pump(timeout)
        return super().exception(0)


class ProcessExecutor(Executor):
    """A `concurrent.futures.ProcessPoolExecutor`."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        del mp_context, max_tasks_per_child
        if max_workers is not None and max_workers <= 0:
            message = "max_workers must be greater than 0"
            raise ValueError(message)
        self._workers = Workers(max_workers or 1, initializer, initargs)
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a worker call a function.

        Raises:
            BrokenProcessPool: A worker has ended abruptly.
        """
        if self._workers.broken:
            message = "a process of the pool ended abruptly"
            raise broken_pool()(message)
        if self._closed:
            message = "cannot schedule new futures after shutdown"
            raise RuntimeError(message)
        future: PumpedFuture = PumpedFuture()
        future.workers = self._workers

        def told(good: bool, value: Any) -> None:
            if not future.cancelled():
                (future.set_result if good else future.set_exception)(value)

        try:
            self._workers.send(fn, args, kwargs, told)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the running tasks, and end the workers."""
        self._closed = True
        while wait and self._workers.busy and not cancel_futures:
            self._workers.pump(None)
        self._workers.stop()

    def kill_workers(self) -> None:
        """End the workers."""
        self._closed = True
        self._workers.stop()

    terminate_workers = kill_workers


def wait_for_futures(
    fs: Iterable[Future[Any]], timeout: float | None = None, return_when: str = "ALL_COMPLETED"
) -> Any:
    """Implement `concurrent.futures.wait`."""
    found = set(fs)
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        done = {one for one in found if Future.done(one)}
        failed = any(not one.cancelled() and Future.exception(one, 0) is not None for one in done)
        enough = (
            len(done) == len(found)
            or (return_when == "FIRST_COMPLETED" and done)
            or (return_when == "FIRST_EXCEPTION" and failed)
        )
        left = None if until is None else max(0.0, until - time.monotonic())
        pending = next((one for one in found - done if isinstance(one, PumpedFuture)), None)
        if enough or pending is None or not pending.workers.pump(left):
            return _base.DoneAndNotDoneFutures(done, found - done)


def as_completed(fs: Iterable[Future[Any]], timeout: float | None = None) -> Iterator[Future[Any]]:
    """Implement `concurrent.futures.as_completed`."""
    left = list(dict.fromkeys(fs))
    total = len(left)
    until = None if timeout is None else time.monotonic() + timeout
    while left:
        ready = [one for one in left if Future.done(one)]
        for one in ready:
            left.remove(one)
            yield one
        if ready:
            continue
        span = None if until is None else max(0.0, until - time.monotonic())
        wait_for_futures(left, span, "FIRST_COMPLETED")
        if not any(Future.done(one) for one in left):
            message = f"{len(left)} (of {total}) futures unfinished"
            raise TimeoutError(message)
