"""The thread that runs the trio loop of a blocking engine, and calls into the loop from other threads."""

from __future__ import annotations

import atexit
import multiprocessing.process
import multiprocessing.util
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

import trio

from evocell.errors import EngineClosed, EngineForked, EvocellError, StoreError

__all__ = ["Portal", "Task", "TokenPortal", "TrioThread", "is_multiprocessing_child"]

T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")


class Portal(Protocol):
    """The interface for running an async function in a trio loop from another thread."""

    def call(self, function: Callable[[], Awaitable[R]]) -> R:
        """Run `function` to its end; return its result or raise its exception."""
        ...


class Task(Generic[R]):
    """An async function scheduled or running in a trio loop.

    Attributes:
        future: Holds the result; done only when the function has unwound completely.
        token: The loop it belongs to.
    """

    def __init__(self, function: Callable[[], Awaitable[R]], token: trio.lowlevel.TrioToken) -> None:
        self.future: Future[R] = Future()
        self.token = token
        self._function = function
        self._begun = False
        self._scope = trio.CancelScope()

    def begin(self, nursery: trio.Nursery | None) -> None:
        """Start the function, or settle the future if the nursery has closed; called in the loop."""
        self._begun = True
        if nursery is None:
            self.future.set_exception(EngineClosed())
        else:
            nursery.start_soon(self.run)

    def cancel(self) -> None:
        """Request cancellation of the function; safe from any thread, before its start and after its end."""
        try:
            self.token.run_sync_soon(self._stop)
        except trio.RunFinishedError:  # the function ended with the loop
            self._settle()

    def _stop(self) -> None:
        if self._begun:
            self._scope.cancel()
        else:
            self._settle()

    def _settle(self) -> None:
        if not self.future.done():
            self.future.set_exception(EngineClosed("the engine was closed during this call"))

    def unwind(self) -> None:
        """Cancel the function and wait until it has unwound; after its end, do nothing."""
        if not self.future.done():
            self.cancel()
            self.future.exception()

    async def run(self) -> None:
        """Run in the loop and settle the future, which alone receives the function's failure."""
        try:
            with self._scope:
                try:
                    result = await self._function()
                except trio.Cancelled:
                    raise
                except BaseExceptionGroup as group:
                    # Nurseries also wrap cancellations, which belong to the loop; other errors to the thread.
                    cancelled, failed = group.split(trio.Cancelled)
                    if failed is not None:
                        self.future.set_exception(failed)
                    if cancelled is not None:
                        raise cancelled from None
                except BaseException as error:  # noqa: BLE001 - it belongs to the thread that waits
                    self.future.set_exception(error)
                else:
                    self.future.set_result(result)
        finally:
            self._settle()


class TrioThread(Generic[T_co]):
    """Owns one thread that runs trio with one async context manager open in it.

    Args:
        open_resource: Makes the context manager; called and entered inside the loop.
        name: The thread's name.

    Raises:
        Exception: The failure of entering the context manager.
    """

    def __init__(self, open_resource: Callable[[], AbstractAsyncContextManager[T_co]], *, name: str) -> None:
        self._open_resource = open_resource
        self._pid = os.getpid()
        self._ready: Future[T_co] = Future()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._stop = trio.Event()
        self._startup = trio.CancelScope()
        self._abandoned = False
        self._closing = False
        self._failure: BaseException | None = None
        self._unwritten: StoreError | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        _running.add(self)
        if is_multiprocessing_child():
            _close_at_the_end_of(self._pid)
        try:
            self._thread.start()
            self.resource = self._ready.result()
        except BaseException:
            self._abandon()
            raise

    def call(self, function: Callable[[], Awaitable[R]]) -> R:
        """Run `function` in the loop and wait for it.

        Raises:
            EngineClosed: The loop has been closed, before or during the call.
            EngineForked: This process inherited the loop by ``os.fork``.

        Cancellation: An interrupt (Ctrl-C) cancels this function only, waits for it to unwind, and is
        re-raised. A second interrupt does not wait.
        """
        if threading.current_thread() is self._thread:
            raise EvocellError(
                "a blocking Engine method was called inside the engine's own thread (from a progress "
                "callback or an async fitness function), where it would wait for itself for ever; "
                "call it from another thread, or use the AsyncSandbox that an async fitness function is given"
            )
        task = self._task(function)
        try:  # around the start as well: an interrupt may come before it, or before the wait
            self._start(task)
            return task.future.result()
        except BaseException:
            task.unwind()
            raise

    def submit(self, function: Callable[[], Awaitable[R]]) -> Task[R]:
        """Start `function` in the loop and return at once; raises as `call` does."""
        task = self._task(function)
        self._start(task)
        return task

    def _task(self, function: Callable[[], Awaitable[R]]) -> Task[R]:
        self.check()
        if self._token is None:
            raise EngineClosed
        return Task(function, self._token)

    def _start(self, task: Task[R]) -> None:
        try:
            # Looks up the nursery in the loop, so that it cannot close between the check and the start.
            task.token.run_sync_soon(lambda: task.begin(self._nursery))
        except trio.RunFinishedError:
            task.future.set_exception(EngineClosed())
            raise EngineClosed from self._failure

    @property
    def usable(self) -> bool:
        """Whether the loop runs and belongs to this process."""
        return os.getpid() == self._pid and not self._closing

    def check(self) -> None:
        """Refuse a process that inherited the loop, and a closed loop."""
        if os.getpid() != self._pid:
            raise EngineForked(owner_pid=self._pid)
        if self._closing:
            raise EngineClosed from self._failure

    def close(self) -> None:
        """Cancel all functions, leave the context manager and end the thread. Idempotent.

        No effect in a process that inherited the loop by ``os.fork``, which does not have its thread.

        Raises:
            StoreError: Leaving the context manager raised it, because data could not be written; raised once.
        """
        if os.getpid() != self._pid:
            return
        self.stop_soon()
        if threading.current_thread() is not self._thread and self._thread.ident is not None:
            self._thread.join()
            unwritten, self._unwritten = self._unwritten, None
            if unwritten is not None:
                raise unwritten

    def stop_soon(self) -> None:
        """Begin to close without waiting; safe in the loop's own thread, where waiting would deadlock."""
        if os.getpid() == self._pid:
            self._closing = True
            self._soon(self._stop.set)

    def _abandon(self) -> None:
        self._abandoned = True  # for a loop that has not started yet
        self._soon(self._startup.cancel)
        if self._thread.ident is not None:
            self._thread.join()

    def _soon(self, function: Callable[[], None]) -> None:
        if self._token is not None:
            with suppress(trio.RunFinishedError):  # it has ended already
                self._token.run_sync_soon(function)

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001 - raised again by the next call
            self._failure = bare(error)
        finally:
            self._closing = True
            if not self._ready.done():
                self._ready.set_exception(self._failure or EngineClosed())
            elif isinstance(self._failure, StoreError):
                self._unwritten = self._failure

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        if self._abandoned:
            return
        with self._startup:
            async with self._open_resource() as resource, trio.open_nursery() as nursery:
                self._nursery = nursery
                self._ready.set_result(resource)
                try:
                    await self._stop.wait()
                finally:
                    self._nursery = None
                    nursery.cancel_scope.cancel()


def bare(error: BaseException) -> BaseException:
    """Unwrap an exception group that holds a single error."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


_running: weakref.WeakSet[TrioThread[Any]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # The interpreter must not end while a guest is in native code.
    for thread in tuple(_running):
        with suppress(StoreError):  # it has been logged
            thread.close()


def is_multiprocessing_child() -> bool:
    """Whether `multiprocessing`, or an executor built on it, started this process."""
    return multiprocessing.process.parent_process() is not None


@cache
def _close_at_the_end_of(child_pid: int) -> None:  # noqa: ARG001 - once for each process
    """Register closing at the end of a multiprocessing child, which runs no `atexit` functions."""
    multiprocessing.util.Finalize(None, _close_all, exitpriority=0)


class TokenPortal:
    """Calls into a trio loop that another owner runs.

    Args:
        token: The loop.
    """

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token

    def call(self, function: Callable[[], Awaitable[R]]) -> R:
        """Run `function` in the loop and wait for it."""
        return trio.from_thread.run(function, trio_token=self._token)
