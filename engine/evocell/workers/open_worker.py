"""The worker that a configuration asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.execution.interface import Worker
from evocell.workers.local import open_local_worker
from evocell.workers.processes import open_worker_processes
from evocell_runtime.build import BuildProgress


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
