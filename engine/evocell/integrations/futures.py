"""`concurrent.futures`: an executor whose work is done in sandboxes.

It goes wherever a library takes an executor, asyncio's ``loop.run_in_executor`` included. What it runs must
be an evaluator of an engine: a plain function would run outside of any sandbox, and is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from typing import Any, TypeVar

from evocell.api.evaluator import Evaluator, bound, not_an_evaluator

__all__ = ["SandboxExecutor"]

T = TypeVar("T")


class SandboxExecutor(Executor):
    """An executor for evaluators; they bring their engine, which it neither makes nor closes.

    Unlike a future of a thread or a process, one of its futures can be cancelled while it runs: the sandbox
    is stopped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: set[Future[Any]] = set()
        self._open = True

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Start an evaluation.

        Args:
            fn: An `Evaluator`, or a partial of one.
            *args: What its ``prepare`` takes.
            **kwargs: The same, by name.

        Raises:
            ConfigurationError: The function is no evaluator.
            RuntimeError: The executor has been shut down.
        """
        inside, (first, named) = bound(fn)
        if not isinstance(inside, Evaluator):
            raise not_an_evaluator(inside)
        with self._lock:
            if not self._open:
                raise RuntimeError("this executor has been shut down and starts nothing more")
            future: Future[T] = inside.submit(*first, *args, **{**named, **kwargs})
            self._pending.add(future)
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._pending.discard(future)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - the base class'
        """Take no more, and wait for what runs; with ``cancel_futures``, stop it instead."""
        with self._lock:
            self._open = False
            pending = list(self._pending)
        if cancel_futures:
            for future in pending:
                future.cancel()
        if wait:
            _wait_for(pending)


def _wait_for(futures: list[Future[Any]]) -> None:
    wait(futures)
