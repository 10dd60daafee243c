"""One set of workers for several engines, none of which can reach the guests of another, or starve it.

Session names are unique in the process, so engines that share workers never meet. What one of them may have
under way at once is bounded; the rest waits where it does not stand in anybody's way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import trio
from attrs import evolve

from evocell.code.compiler import CompiledVersion
from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.errors import ConfigurationError
from evocell.execution.interface import SessionCopy, Worker
from evocell.execution.messages import GuestRequest, GuestResult
from evocell.models.info import ImageInfo, WorkerKill
from evocell.models.limits import Limits
from evocell.workers.worker import HostWorker

__all__ = ["SharedWorkers"]

RUNS_PER_SLOT = 2
"""Runs that one engine may have under way, for each one that the workers can use."""

_ENDED_AT_ONCE = 64


class SharedWorkers:
    """Lends workers to engines.

    Args:
        worker: The workers, opened by somebody who outlives the engines.
        apart: Whether the engines belong to different people: none then sees an image that another one made.

    Raises:
        ConfigurationError: It is a worker of a kind that cannot be shared.
    """

    def __init__(self, worker: Worker, *, apart: bool) -> None:
        if not isinstance(worker, HostWorker):
            raise ConfigurationError(
                f"a {type(worker).__name__} cannot be shared by several engines", "worker"
            )
        self._worker = worker
        self._apart = apart
        self._lent: set[TenantWorker] = set()
        self._numbers = count(1)
        worker.on_kill = self._tell_kill

    @property
    def image_id(self) -> str:
        """Content hash of the image that every fork starts from."""
        return self._worker.image_id

    @property
    def slots(self) -> int:
        """How many calls the workers can usefully have in flight."""
        return self._worker.slots

    @asynccontextmanager
    async def open_worker(
        self,
        config: Config,  # noqa: ARG002 - what opens a worker takes one
        snapshots: SnapshotStore,
        *,
        progress: Callable[..., None] | None = None,  # noqa: ARG002 - there is nothing to build
    ) -> AsyncIterator[Worker]:
        """Lend the workers to one engine; its sessions end with the block."""
        lent = TenantWorker(self._worker, snapshots, number=next(self._numbers), apart=self._apart)
        self._lent.add(lent)
        try:
            yield lent
        finally:
            self._lent.discard(lent)
            with trio.CancelScope(shield=True):
                await lent.aclose()

    def _tell_kill(self, kill: WorkerKill) -> None:
        """Tell every engine of a worker that is killed, and each only of its own calls in it."""
        for lent in tuple(self._lent):
            lent.tell_kill(kill)


class TenantWorker(HostWorker):
    """The workers as one of several engines has them."""

    def __init__(self, worker: HostWorker, snapshots: SnapshotStore, *, number: int, apart: bool) -> None:
        super().__init__(worker.host, worker.images, snapshots, realtime=worker.realtime)
        self._apart = apart
        self._mark = f"{number}:"
        self._told: Callable[[WorkerKill], None] | None = None
        self._sessions: set[str] = set()
        self._turns = trio.Semaphore(RUNS_PER_SLOT * worker.slots)

    @property
    def on_kill(self) -> Callable[[WorkerKill], None] | None:
        """See `Worker`."""
        return self._told

    @on_kill.setter
    def on_kill(self, told: Callable[[WorkerKill], None] | None) -> None:
        self._told = told

    def tell_kill(self, kill: WorkerKill) -> None:
        """Tell this engine of a worker that is killed."""
        if self._told is not None:
            mark = self._mark
            ids = tuple(one.removeprefix(mark) for one in kill.sandbox_ids if one.startswith(mark))
            self._told(evolve(kill, sandbox_ids=ids))

    async def _run(self, request: GuestRequest) -> GuestResult:
        if request.sandbox_id:
            request = evolve(request, sandbox_id=self._mark + request.sandbox_id)
        async with self._turns:
            if request.session is not None:
                self._sessions.add(request.session)
            return await super()._run(request)

    async def fork_session(self, session: str, new: str) -> bool:
        """Copy what a session holds into a new one; see `Worker`."""
        self._sessions.add(new)
        return await super().fork_session(session, new)

    async def import_session(
        self, session: str, copy: SessionCopy, *, image: str | None, code: CompiledVersion, limits: Limits
    ) -> None:
        """Begin a session with what one elsewhere held; see `Worker`."""
        self._sessions.add(session)
        await super().import_session(session, copy, image=image, code=code, limits=limits)

    def find_image(self, wanted: str) -> ImageInfo | None:
        """Find an image by its name or id."""
        found = super().find_image(wanted)
        return None if self._apart and found is not None and found.id != self.image_id else found

    def list_images(self) -> list[ImageInfo]:
        """List the images there are, the newest first."""
        return [image for image in super().list_images() if not self._apart or image.id == self.image_id]

    async def end_session(self, session: str) -> None:
        """Drop a session and its fork, after the call in it if there is one; idempotent."""
        self._sessions.discard(session)
        await super().end_session(session)

    async def aclose(self) -> None:
        """Drop the sessions of this engine; the workers go on."""
        async with trio.open_nursery() as nursery:
            at_once = trio.CapacityLimiter(_ENDED_AT_ONCE)
            for session in tuple(self._sessions):
                nursery.start_soon(self._end, session, at_once)

    async def _end(self, session: str, at_once: trio.CapacityLimiter) -> None:
        async with at_once:
            await self.end_session(session)
