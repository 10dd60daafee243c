"""`concurrent.futures`: an executor that runs its work in sandboxes.

It can be used wherever a library accepts an executor, including asyncio's ``loop.run_in_executor``. It runs
only evaluators of an engine: a plain function would run outside of any sandbox, and is refused.
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
    """An executor for evaluators, whose engine it neither creates nor closes.

    Unlike those of threads or processes, its futures can be cancelled while running: the sandbox is stopped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: set[Future[Any]] = set()
        self._open = True

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Start an evaluation.

        Args:
            fn: An `Evaluator`, or a partial of one.
            *args: The arguments of its ``prepare``.
            **kwargs: The same, by name.

        Raises:
            ConfigurationError: The function is not an evaluator.
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
        """Refuse further work, and wait for running evaluations; ``cancel_futures`` stops them instead."""
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
