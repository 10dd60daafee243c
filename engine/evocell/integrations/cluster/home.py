"""Local worker processes of a cluster engine, started on first use."""

from __future__ import annotations

from collections.abc import Callable

import trio

from evocell.config import Config
from evocell.errors import EngineClosed
from evocell.models.info import WorkerInfo, WorkerKill
from evocell.workers.open_worker import keep_pool, pool_for
from evocell.workers.pool import HostPool
from evocell_runtime.cache import ImageManifest

__all__ = ["Home"]


class Home:
    """Holds the sessions of sandboxes, and freezes, writes and reads images.

    Args:
        manifest: The image.
        config: The engine's configuration.
        nursery: Owns the processes.
        on_kill: Called for each process that is killed for its memory.
    """

    def __init__(
        self,
        manifest: ImageManifest,
        config: Config,
        nursery: trio.Nursery,
        on_kill: Callable[[WorkerKill], None],
    ) -> None:
        self._manifest = manifest
        self._config = config
        self._nursery = nursery
        self._on_kill = on_kill
        self._starting = trio.Lock()
        self._started = trio.Event()
        self._closed = False
        self.pool: HostPool | None = None
        """The processes; None before the first use."""

    async def started(self) -> HostPool:
        """Return the processes, starting them on the first call.

        Raises:
            EngineClosed: The engine is closed.
            ImageError: They cannot load the image.
        """
        async with self._starting:
            if self._closed:
                raise EngineClosed("the engine is closed")
            if self.pool is None:
                workers = max(1, self._config.worker_count())
                pool = pool_for(self._config, self._manifest, workers=workers)
                pool.on_kill = self._on_kill
                await self._nursery.start(keep_pool, pool, self._config)
                if pool.failure is not None:
                    raise pool.failure
                self.pool = pool
                self._started.set()
        return self.pool

    def workers(self) -> list[WorkerInfo]:
        """Return the state of each process; empty before the first use."""
        return [] if self.pool is None else self.pool.workers()

    async def wait_session_losses(self, seen: int) -> int:
        """Wait until sessions have been lost more than `seen` times; see `Host`."""
        await self._started.wait()
        assert self.pool is not None
        return await self.pool.wait_session_losses(seen)

    async def aclose(self) -> None:
        """Refuse further requests; the processes end with the nursery. Idempotent."""
        self._closed = True
        if self.pool is not None:
            await self.pool.aclose()
