"""The worker that a configuration asks for, or that lives on a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module

from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.errors import ConfigurationError
from evocell.execution.interface import OpenWorker, Worker
from evocell.workers.local import open_local_worker
from evocell.workers.processes import open_worker_processes
from evocell_runtime.build import BuildProgress

__all__ = ["open_on", "open_worker"]

POOLS = {"distributed": "evocell.integrations.dask"}
"""The package that a cluster's class is of, and the module whose `pool_of` makes a pool of it."""


def open_on(cluster: object) -> OpenWorker:
    """Return what opens a worker on a cluster.

    Args:
        cluster: A client of a kind that is known, or a pool: anything with a method `open_worker`.

    Raises:
        ConfigurationError: It is nothing of the sort.
    """
    # By name: frameworks are imported by whoever uses them, and integrations stand above all else.
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
    """Open worker processes, or with `workers=0` the one in this process; see there."""
    opening = open_worker_processes if config.worker_count() else open_local_worker
    async with opening(config, snapshots, progress=progress) as worker:
        yield worker
