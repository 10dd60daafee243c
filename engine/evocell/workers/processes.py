"""The worker that runs guests in processes of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.execution.interface import Worker
from evocell.execution.payload_cache import CACHE_BYTES
from evocell.guests.images import ImageCatalogue, ensure_image
from evocell.workers.memory_watch import memory_bound, watch_memory
from evocell.workers.pool import HostPool
from evocell.workers.worker import HostWorker
from evocell_runtime.build import BuildProgress
from evocell_runtime.cache import ImageCache

__all__ = ["open_worker_processes"]

_SHELF_PART = 4
"""A worker's shelf takes at most this part of the memory it may hold."""


@asynccontextmanager
async def open_worker_processes(
    config: Config,
    snapshots: SnapshotStore,
    *,
    progress: Callable[[BuildProgress], None] | None = None,
) -> AsyncIterator[Worker]:
    """Open worker processes, building their image first if there is none yet.

    Args:
        config: The engine's configuration.
        snapshots: Where version trees are kept, to be mounted.
        progress: Called in a thread with the steps of an image build.

    Raises:
        ImageError: The image could not be found, built or trusted.

    Cancellation: No process is left.
    """
    manifest = await ensure_image(config, progress)
    realtime = config.profile == "realtime"
    pool = HostPool(
        manifest,
        str(config.cache_path().absolute()),
        workers=config.worker_count(),
        realtime=realtime,
        memory_bytes=memory_bound(config),
        cache_bytes=min(CACHE_BYTES, memory_bound(config) // _SHELF_PART),
    )
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.supervise)
        if config.enforcement_enabled:
            interval_s = config.enforcement_poll_interval_ms / 1000
            watch = partial(watch_memory, pool.processes, bound=memory_bound(config), interval_s=interval_s)
            nursery.start_soon(watch)
        if pool.failure is None:
            try:
                catalogue = ImageCatalogue(manifest, ImageCache(config.cache_path()))
                yield HostWorker(pool, catalogue, snapshots, realtime=realtime)
            except BaseException as raised:  # noqa: BLE001 - raised again below, without the nursery's wrapping
                error = raised
        await pool.aclose()
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error
    if pool.failure is not None:
        raise pool.failure
