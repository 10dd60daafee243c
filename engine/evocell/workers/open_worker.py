"""Opening the configured worker: guests in this process, in worker processes, or on a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module

import trio

from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.errors import ConfigurationError
from evocell.execution.interface import OpenWorker, Worker
from evocell.execution.payload_cache import CACHE_BYTES
from evocell.guests.capacity import capacity, own_resources
from evocell.guests.host import GuestHost
from evocell.guests.images import ImageCatalogue, LoadedImages, ensure_image, load_image
from evocell.guests.thread_scheduler import ThreadScheduler
from evocell.workers.memory_watch import memory_bound, watch_memory
from evocell.workers.pool import HostPool
from evocell.workers.worker import HostWorker
from evocell_runtime.build import BuildProgress
from evocell_runtime.cache import ImageCache, ImageManifest

__all__ = ["keep_pool", "open_on", "open_worker", "open_worker_processes", "pool_for"]

POOLS = {"distributed": "evocell.integrations.dask"}
"""Package of a cluster client's class -> module whose `pool_of` makes a pool of the client."""

_CACHE_PART = 4
"""Share of a worker's memory that its payload cache may take."""


def open_on(cluster: object) -> OpenWorker:
    """Return the `OpenWorker` of a cluster.

    Args:
        cluster: A client of a supported framework, or a pool: any object with a method `open_worker`.

    Raises:
        ConfigurationError: It is neither.
    """
    # Imported by name: frameworks are imported by their users, and `integrations` is the top layer.
    package = type(cluster).__module__.partition(".")[0]
    if package in POOLS:
        cluster = import_module(POOLS[package]).pool_of(cluster)
    opening: OpenWorker | None = getattr(cluster, "open_worker", None)
    if opening is None:
        raise ConfigurationError(
            f"cluster must be a distributed.Client, or a pool with a method open_worker, not "
            f"{type(cluster).__name__}; see docs/guides/cluster.md",
            "cluster",
        )
    return opening


@asynccontextmanager
async def open_worker(
    config: Config,
    snapshots: SnapshotStore,
    *,
    progress: Callable[[BuildProgress], None] | None = None,
) -> AsyncIterator[Worker]:
    """Open worker processes, or with `workers=0` a worker in this process; see the two functions below."""
    opening = open_worker_processes if config.worker_count() else open_local_worker
    async with opening(config, snapshots, progress=progress) as worker:
        yield worker


@asynccontextmanager
async def open_local_worker(
    config: Config,
    snapshots: SnapshotStore,
    *,
    progress: Callable[[BuildProgress], None] | None = None,
) -> AsyncIterator[Worker]:
    """Open the worker in this process, building its image first if need be.

    Args:
        config: The engine's configuration.
        snapshots: Where version trees are kept, to be mounted.
        progress: Called in a thread with the steps of an image build.

    Raises:
        ImageError: The image could not be found, built or trusted.

    Cancellation: A build is killed; what it left is swept up by the next.
    """
    image = await load_image(config, progress)
    realtime = config.profile == "realtime"
    cache = ImageCache(config.cache_path())
    room = capacity(own_resources(memory_bound(config)))
    driver = ThreadScheduler(config.thread_count())
    host = GuestHost(LoadedImages(image, cache), driver, realtime=realtime, capacity=room)
    try:
        yield HostWorker(host, ImageCatalogue(image.manifest, cache), snapshots, realtime=realtime)
    finally:
        await host.aclose()


@asynccontextmanager
async def open_worker_processes(
    config: Config,
    snapshots: SnapshotStore,
    *,
    progress: Callable[[BuildProgress], None] | None = None,
) -> AsyncIterator[Worker]:
    """Open worker processes, building their image first if need be.

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
    pool = pool_for(config, manifest, workers=config.worker_count())
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(keep_pool, pool, config)
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


def pool_for(config: Config, manifest: ImageManifest, *, workers: int) -> HostPool:
    """Return the configured pool of worker processes; `keep_pool` starts them.

    Args:
        config: The engine's configuration.
        manifest: The image they fork from.
        workers: How many processes.
    """
    return HostPool(
        manifest,
        str(config.cache_path().absolute()),
        workers=workers,
        realtime=config.profile == "realtime",
        memory_bytes=memory_bound(config),
        cache_bytes=min(CACHE_BYTES, memory_bound(config) // _CACHE_PART),
    )


async def keep_pool(
    pool: HostPool, config: Config, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Supervise the processes of a pool, and their memory, until cancelled.

    Reports started once one process is up, or the pool has failed.
    """
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.supervise)
        task_status.started()
        if config.enforcement_enabled:
            interval_s = config.enforcement_poll_interval_ms / 1000
            await watch_memory(pool.processes, bound=memory_bound(config), interval_s=interval_s)
