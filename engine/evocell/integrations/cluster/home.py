"""The worker processes of the caller's own machine, for what does not leave it: started when first needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from evocell.config import Config
from evocell.errors import EngineClosed
from evocell.execution.payload_cache import CACHE_BYTES
from evocell.models.info import WorkerInfo, WorkerKill
from evocell.workers.memory_watch import memory_bound, watch_memory
from evocell.workers.pool import HostPool
from evocell_runtime.cache import ImageManifest

__all__ = ["Home"]

_SHELF_PART = 4


class Home:
    """Sandboxes that keep state live here, and images are frozen, written and read here.

    Args:
        manifest: What is forked.
        config: The engine's configuration.
        nursery: Owns the processes.
        on_kill: Told of each process that is killed for its memory.
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
        """The processes; None as long as nothing has needed them."""

    async def started(self) -> HostPool:
        """Return the processes, starting them if need be.

        Raises:
            EngineClosed: The engine is closed.
            ImageError: They cannot load the image.
        """
        async with self._starting:
            if self._closed:
                raise EngineClosed("the engine is closed")
            if self.pool is None:
                bound = memory_bound(self._config)
                pool = HostPool(
                    self._manifest,
                    str(self._config.cache_path().absolute()),
                    workers=max(1, self._config.worker_count()),
                    realtime=self._config.profile == "realtime",
                    memory_bytes=bound,
                    cache_bytes=min(CACHE_BYTES, bound // _SHELF_PART),
                )
                pool.on_kill = self._on_kill
                await self._nursery.start(self._live, pool, bound)
                if pool.failure is not None:
                    raise pool.failure
                self.pool = pool
                self._started.set()
        return self.pool

    def workers(self) -> list[WorkerInfo]:
        """What is seen of each process; none before they are needed."""
        return [] if self.pool is None else self.pool.workers()

    async def wait_session_losses(self, seen: int) -> int:
        """Wait until sessions have been lost more than `seen` times; see `Host`."""
        await self._started.wait()
        assert self.pool is not None
        return await self.pool.wait_session_losses(seen)

    async def aclose(self) -> None:
        """Refuse further work; the processes end with the nursery. Idempotent."""
        self._closed = True
        if self.pool is not None:
            await self.pool.aclose()

    async def _live(
        self, pool: HostPool, bound: int, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.supervise)
            task_status.started()
            if self._config.enforcement_enabled:
                interval_s = self._config.enforcement_poll_interval_ms / 1000
                await watch_memory(pool.processes, bound=bound, interval_s=interval_s)
            await trio.sleep_forever()
