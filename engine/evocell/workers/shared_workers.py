"""Workers shared by several engines, with isolation and fairness between the engines.

Session names are unique in the process, so no engine can address a session of another. Each engine may
have a bounded number of requests under way; further ones wait in the engine's own queue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import trio
from attrs import evolve

from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.errors import ConfigurationError
from evocell.execution.interface import Worker
from evocell.execution.messages import GuestRequest, GuestResult, Host
from evocell.models.info import ImageInfo, WorkerInfo, WorkerKill
from evocell.workers.worker import HostWorker

__all__ = ["SharedWorkers"]

REQUESTS_PER_SLOT = 2
"""Requests that one engine may have under way, per slot of the workers."""

_ENDED_AT_ONCE = 64


class SharedWorkers:
    """Lends workers to engines.

    Args:
        worker: The workers; they must outlive the engines.
        apart: Whether the engines belong to different tenants, and do not see each other's images.

    Raises:
        ConfigurationError: This kind of worker cannot be shared.
    """

    def __init__(self, worker: Worker, *, apart: bool) -> None:
        if not isinstance(worker, HostWorker):
            raise ConfigurationError(
                f"a {type(worker).__name__} cannot be shared by several engines", "worker"
            )
        self._worker = worker
        self._apart = apart
        self._tenants: set[TenantHost] = set()
        self._numbers = count(1)
        worker.host.on_kill = self._report_kill

    @property
    def image_id(self) -> str:
        """Content hash of the image that every fork starts from."""
        return self._worker.image_id

    @property
    def slots(self) -> int:
        """Number of calls that the workers can usefully have in flight."""
        return self._worker.host.slots

    @asynccontextmanager
    async def open_worker(
        self,
        config: Config,  # noqa: ARG002 - what opens a worker takes one
        snapshots: SnapshotStore,
        *,
        progress: Callable[..., None] | None = None,  # noqa: ARG002 - there is nothing to build
    ) -> AsyncIterator[Worker]:
        """Lend the workers to one engine; its sessions end with the block."""
        host = TenantHost(self._worker.host, number=next(self._numbers))
        self._tenants.add(host)
        try:
            yield TenantWorker(self._worker, host, snapshots, apart=self._apart)
        finally:
            self._tenants.discard(host)
            with trio.CancelScope(shield=True):
                await host.aclose()

    def _report_kill(self, kill: WorkerKill) -> None:
        """Report a killed worker to each engine, with that engine's own calls in it."""
        for tenant in tuple(self._tenants):
            tenant.report_kill(kill)


class TenantWorker(HostWorker):
    """One engine's view of shared workers: without images that other engines made."""

    def __init__(
        self, worker: HostWorker, host: TenantHost, snapshots: SnapshotStore, *, apart: bool
    ) -> None:
        super().__init__(host, worker.images, snapshots, realtime=worker.realtime)
        self._apart = apart

    def find_image(self, wanted: str) -> ImageInfo | None:
        """Find an image by its name or id."""
        found = super().find_image(wanted)
        return None if self._apart and found is not None and found.id != self.image_id else found

    def list_images(self) -> list[ImageInfo]:
        """List the images there are, the newest first."""
        return [image for image in super().list_images() if not self._apart or image.id == self.image_id]


class TenantHost:
    """One engine's view of a shared host; implements `evocell.execution.messages.Host`.

    Bounds the engine's requests under way, tags them so that a killed worker is reported to the engines
    concerned, and ends the engine's sessions with the engine. Delegates the rest to the shared host.
    """

    def __init__(self, host: Host, *, number: int) -> None:
        self._host = host
        self._mark = f"{number}:"
        self._sessions: set[str] = set()
        self._turns = trio.Semaphore(REQUESTS_PER_SLOT * host.slots)
        self.on_kill: Callable[[WorkerKill], None] | None = None

    @property
    def slots(self) -> int:
        """Number of requests that the workers can usefully have under way."""
        return self._host.slots

    async def wait_slots(self, seen: int) -> int:
        """Wait until `slots` is another number than `seen`, and return it."""
        return await self._host.wait_slots(seen)

    def report_kill(self, kill: WorkerKill) -> None:
        """Report a killed worker to this engine."""
        if self.on_kill is not None:
            mark = self._mark
            ids = tuple(one.removeprefix(mark) for one in kill.sandbox_ids if one.startswith(mark))
            self.on_kill(evolve(kill, sandbox_ids=ids))

    async def run(self, request: GuestRequest) -> GuestResult:
        """Run one request when this engine has a free slot; see `Host`."""
        if request.sandbox_id:
            request = evolve(request, sandbox_id=self._mark + request.sandbox_id)
        if request.follow_up is not None:
            # It would be a second request under way, in no slot of this engine's.
            request = evolve(request, follow_up=None)
        async with self._turns:
            if request.session is not None:
                self._sessions.add(request.session)
            return await self._host.run(request)

    async def end_session(self, session: str) -> None:
        """Drop a session and its fork; see `Sessions`."""
        self._sessions.discard(session)
        await self._host.end_session(session)

    async def fork_session(self, session: str, new: str) -> bool:
        """Copy a session's state into a new session; see `Sessions`."""
        self._sessions.add(new)
        return await self._host.fork_session(session, new)

    async def export_session(self, session: str) -> dict[str, Any] | None:
        """Export a session's state; see `Sessions`."""
        return await self._host.export_session(session)

    async def import_session(self, session: str, state: Mapping[str, Any]) -> None:
        """Create a session from exported state; see `Sessions`."""
        self._sessions.add(session)
        await self._host.import_session(session, state)

    def session_home(self, session: str) -> str | None:
        """Return the name of the process that holds a session; None if none does."""
        return self._host.session_home(session)

    async def wait_session_losses(self, seen: int) -> int:
        """Wait until sessions have been lost more than `seen` times; see `Sessions`."""
        return await self._host.wait_session_losses(seen)

    async def freeze_session(
        self, request: GuestRequest, *, name: str, replace: bool, version: str | None
    ) -> str:
        """Freeze a session into an image; see `Host`."""
        return await self._host.freeze_session(request, name=name, replace=replace, version=version)

    async def export_image(self, image: str | None, path: Path) -> str:
        """Write an image to a file; see `Host`."""
        return await self._host.export_image(image, path)

    async def import_image(self, path: Path, *, name: str | None, replace: bool) -> str:
        """Make an image from a file; see `Host`."""
        return await self._host.import_image(path, name=name, replace=replace)

    def workers(self) -> list[WorkerInfo]:
        """Return the state of each process."""
        return self._host.workers()

    async def drain(self, name: str) -> None:
        """Replace a process by another; see `Host`."""
        await self._host.drain(name)

    async def aclose(self) -> None:
        """Drop this engine's sessions; the workers keep running."""
        async with trio.open_nursery() as nursery:
            at_once = trio.CapacityLimiter(_ENDED_AT_ONCE)
            for session in tuple(self._sessions):
                nursery.start_soon(self._end, session, at_once)

    async def _end(self, session: str, at_once: trio.CapacityLimiter) -> None:
        async with at_once:
            await self.end_session(session)
