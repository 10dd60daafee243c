"""Opening the worker of an engine with guests on a pool's nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from evocell.api.portal import bare
from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.execution.interface import Worker
from evocell.guests.images import ImageCatalogue, ensure_image
from evocell.integrations.cluster.home import Home
from evocell.integrations.cluster.host import ClusterHost
from evocell.integrations.cluster.joining import Terms, read_layers
from evocell.integrations.cluster.luggage import Luggage
from evocell.integrations.cluster.protocol import Pool
from evocell.models.info import WorkerKill
from evocell.workers.worker import HostWorker
from evocell_runtime.build import BuildProgress
from evocell_runtime.cache import ImageCache

__all__ = ["open_cluster_worker"]


@asynccontextmanager
async def open_cluster_worker(
    pool: Pool,
    config: Config,
    snapshots: SnapshotStore,
    *,
    progress: Callable[[BuildProgress], None] | None = None,
) -> AsyncIterator[Worker]:
    """Open a worker on a pool, once one of its nodes accepts requests.

    Args:
        pool: The pool.
        config: The engine's configuration; `workers` is the number of local processes.
        snapshots: Where version trees are kept.
        progress: Called in a thread with the steps of an image build on this machine.

    Raises:
        ClusterLost: The pool cannot be reached, or has no usable node.
        ImageError: The image could not be found, built or trusted.

    Cancellation: Nothing remains on the nodes.
    """
    manifest = await ensure_image(config, progress)
    terms = Terms(manifest=manifest, layers=await read_layers(config), config=config, pool=pool)
    catalogue = ImageCatalogue(manifest, ImageCache(config.cache_path()))
    luggage = Luggage(snapshots, catalogue)
    error: BaseException | None = None
    async with pool.link() as link, trio.open_nursery() as nursery:

        def tell_kill(kill: WorkerKill) -> None:
            if host.on_kill is not None:
                host.on_kill(kill)

        home = Home(manifest, config, nursery, tell_kill)
        host = ClusterHost(link, terms, luggage, home, patience_s=pool.patience_s)
        try:
            try:
                await nursery.start(host.supervise)
            except BaseExceptionGroup as group:
                raise bare(group) from None
            yield HostWorker(host, catalogue, snapshots, realtime=config.profile == "realtime")
        except BaseException as raised:  # noqa: BLE001 - raised again below, without the nursery's wrapping
            error = raised
        await host.aclose()
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error
