"""The worker that runs guests in the calling process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.execution.interface import Worker
from evocell.guests.capacity import capacity, own_resources
from evocell.guests.host import GuestHost
from evocell.guests.images import ImageCatalogue, LoadedImages, load_image
from evocell.guests.thread_scheduler import ThreadScheduler
from evocell.workers.memory_watch import memory_bound
from evocell.workers.worker import HostWorker
from evocell_runtime.build import BuildProgress
from evocell_runtime.cache import ImageCache


@asynccontextmanager
async def open_local_worker(
    config: Config,
    snapshots: SnapshotStore,
    *,
    progress: Callable[[BuildProgress], None] | None = None,
) -> AsyncIterator[Worker]:
    """Open the worker, building its image first if there is none yet.

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
