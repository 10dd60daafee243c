"""The processes that run guests, as their owner sees and replaces them; the part of `AsyncEngine`."""

from __future__ import annotations

from evocell.api.lifecycle import EngineLifecycle
from evocell.errors import ConfigurationError
from evocell.models.info import WorkerInfo

__all__ = ["AsyncWorkers"]


class AsyncWorkers(EngineLifecycle):
    """The part of `AsyncEngine` that is about workers; see there."""

    async def workers(self) -> list[WorkerInfo]:
        """Return what is seen of each worker at this moment; with ``workers=0`` that is this process."""
        with self._request():
            return self._worker.host.workers()

    async def drain_worker(self, name: str) -> None:
        """Replace a worker by a new process, and lose nothing.

        The new process is started first. Calls under way end in the old one; sandboxes that keep state in it
        move to the new one, each after the call in it, and go on as if nothing had been. One that has files
        open cannot move: it loses its state, as when a worker dies. Returns when the old process is gone,
        which takes as long as the longest call in it.

        Args:
            name: The worker, as `workers` names it.

        Raises:
            ConfigurationError: There is no such worker; with ``workers=0`` there is none at all.
            EvocellError: No new process could be started; the old one goes on.

        Cancellation: It is replaced all the same.
        """
        if not isinstance(name, str):
            raise ConfigurationError(f"a worker is named by a string, not {type(name).__name__}", "name")
        with self._request():
            await self._worker.host.drain(name)
