"""The processes that run guests, as their owner sees and replaces them; the part of `Engine`."""

from __future__ import annotations

from functools import partial

from evocell.api.async_workers import AsyncWorkers
from evocell.api.portal import Portal
from evocell.models.info import WorkerInfo

__all__ = ["Workers"]


class Workers:
    """The part of `Engine` that is about workers; see there."""

    _thread: Portal
    _engine: AsyncWorkers

    def workers(self) -> list[WorkerInfo]:
        """Return what is seen of each worker at this moment; see `AsyncEngine.workers`."""
        return self._thread.call(self._engine.workers)

    def drain_worker(self, name: str) -> None:
        """Replace a worker by a new process, and lose nothing; see `AsyncEngine.drain_worker`."""
        self._thread.call(partial(self._engine.drain_worker, name))
