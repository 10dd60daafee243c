"""Worker processes under one nursery: started, watched, restarted, and given work.

A worker is disposable. When one dies its sessions are gone with it (the next run in one starts from the
version again), and the runs it had under way are lost. A run that needs no session is tried again
elsewhere, since most likely a neighbour killed the worker; lost a third time, it is named as lost.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from subprocess import PIPE

import trio

from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.errors import EngineClosed, ImageError, ProtocolError
from evocell.execution.connection import Connection, ConnectionLost, RequestFailed
from evocell.execution.front import HostWorker
from evocell.execution.images import ensure_image
from evocell.execution.run import Run, Sighting
from evocell.execution.worker import Worker
from evocell_runtime.build import BuildProgress
from evocell_runtime.cache import ImageManifest

__all__ = ["HostPool", "open_worker_processes"]

SLOTS_PER_WORKER = 2
PING_S = 1.0
"""How often a worker is asked whether it is there."""
HANG_S = 10.0
"""A worker that has not answered for so long is killed."""
BACK_OFF_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Pauses before a worker is started again, by how often it died without having finished a run."""
GRACE_S = 2.0
"""How long a worker that was told to end may take."""

_TRIES = 3


class _Member:
    """A worker's place in the pool; the process in it changes."""

    def __init__(self, number: int) -> None:
        self.name = f"worker-{number}"
        self.connection: Connection | None = None
        self.process: trio.Process | None = None
        self.life = trio.CancelScope()
        self.under_way = 0
        self.finished = 0
        self.restarts = 0

    @property
    def is_up(self) -> bool:
        """Whether it can be given work: its process has opened the image and has not ended."""
        return self.connection is not None and self.process is not None and self.process.poll() is None


class HostPool:
    """Spreads runs over worker processes; implements `evocell.execution.run.Host`.

    Args:
        manifest: The image the workers fork from.
        cache_root: Where it lies.
        workers: How many processes.
        realtime: Whether guests see the real clock and real entropy.
    """

    def __init__(self, manifest: ImageManifest, cache_root: str, *, workers: int, realtime: bool) -> None:
        self._opening = {"cache": cache_root, "image_id": manifest.image_id, "realtime": realtime}
        self._members = [_Member(n) for n in range(workers)]
        self._homes: dict[str, _Member] = {}
        self._changed = trio.Condition()
        self._closed = False
        self.failure: ImageError | None = None
        """Why the workers cannot load the image; None while they can."""
        self.slots = workers * SLOTS_PER_WORKER

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are up, for tests and doctors."""
        return [m.process.pid for m in self._members if m.process is not None and m.connection is not None]

    @property
    def restarts(self) -> int:
        """How often a worker was started again."""
        return sum(member.restarts for member in self._members)

    async def run(self, run: Run) -> Sighting:
        """Run one request on the worker with the least to do, or on the session's own; see `Host`."""
        lost = "the worker died"
        for _ in range(_TRIES):
            member = await self._place(run.session)
            connection = member.connection
            assert connection is not None
            member.under_way += 1
            try:
                seen = Sighting.from_wire(await connection.request("run", run.to_wire()))
            except ConnectionLost:
                lost = f"{member.name} died while it had {member.under_way} calls under way"
                if run.session is not None:
                    break
            except RequestFailed as error:
                raise ProtocolError(f"{member.name} refused a run: {error}") from error
            except (KeyError, TypeError, ValueError) as error:
                member.life.cancel()
                raise ProtocolError(
                    f"{member.name} answered with nonsense, and is replaced: {error}"
                ) from error
            else:
                member.finished += 1
                return seen
            finally:
                member.under_way -= 1
        return Sighting(lost=lost)

    async def end_session(self, session: str) -> None:
        """Drop a session and its fork, after the run in it if there is one; idempotent."""
        member = self._homes.pop(session, None)
        if member is not None and member.connection is not None:
            with suppress(ConnectionLost, RequestFailed):
                await member.connection.request("end_session", {"session": session})

    async def aclose(self) -> None:
        """Refuse further runs; the processes end with the nursery that `supervise` runs in. Idempotent."""
        self._closed = True
        async with self._changed:
            self._changed.notify_all()

    async def supervise(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep all workers up until cancelled. Started once one of them is up, or `failure` is set."""
        async with trio.open_nursery() as nursery:
            for member in self._members:
                nursery.start_soon(self._keep, member)
            async with self._changed:
                while self.failure is None and not any(member.connection for member in self._members):
                    await self._changed.wait()
            task_status.started()

    async def _place(self, session: str | None) -> _Member:
        async with self._changed:
            while True:
                if self._closed:
                    raise EngineClosed("the engine is closed")
                home = None if session is None else self._homes.get(session)
                if home is not None and home.is_up:
                    return home
                up = [member for member in self._members if member.is_up]
                if up:
                    chosen = min(up, key=lambda member: member.under_way)
                    if session is not None:
                        self._homes[session] = chosen
                    return chosen
                if self.failure is not None:
                    raise self.failure
                await self._changed.wait()

    async def _keep(self, member: _Member) -> None:
        """Start a worker, and again whenever it ends."""
        fruitless = 0
        while True:
            before = member.finished
            await trio.sleep(BACK_OFF_S[min(fruitless, len(BACK_OFF_S) - 1)])
            with suppress(OSError):
                await self._live(member)
            fruitless = 0 if member.finished > before else fruitless + 1
            member.restarts += 1

    async def _live(self, member: _Member) -> None:
        """One life of a worker, from its start to its end, whoever ends it."""
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "evocell.execution.worker_process"],
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        member.process = process
        connection = Connection(process.stdout, process.stdin)
        try:
            async with trio.open_nursery() as nursery:
                member.life = nursery.cancel_scope
                nursery.start_soon(self._serve, connection, nursery.cancel_scope)
                try:
                    await connection.request("open", self._opening)
                except RequestFailed as error:
                    self.failure = ImageError(str(error))
                    await self._announce(member, None)
                    nursery.cancel_scope.cancel()
                    return
                except ConnectionLost:
                    return
                self.failure = None
                await self._announce(member, connection)
                await self._watch(connection)
                nursery.cancel_scope.cancel()
        finally:
            member.connection = None
            with trio.CancelScope(shield=True):
                await _end(process)
                member.process = None

    async def _serve(self, connection: Connection, life: trio.CancelScope) -> None:
        await connection.serve()
        life.cancel()

    async def _announce(self, member: _Member, connection: Connection | None) -> None:
        member.connection = connection
        async with self._changed:
            self._changed.notify_all()

    async def _watch(self, connection: Connection) -> None:
        """Ask a worker now and then whether it is there; returns when it does not answer."""
        while True:
            await trio.sleep(PING_S)
            with trio.move_on_after(HANG_S) as patience, suppress(ConnectionLost):
                await connection.probe("ping")
            if patience.cancelled_caught:
                return


async def _end(process: trio.Process) -> None:
    """End a process and wait for it: its input ends first, then it is killed."""
    if process.stdin is not None:
        await process.stdin.aclose()
    with trio.move_on_after(GRACE_S):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    if process.stdout is not None:
        await process.stdout.aclose()


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
        manifest, str(config.cache_path().absolute()), workers=config.worker_count(), realtime=realtime
    )
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.supervise)
        if pool.failure is None:
            try:
                yield HostWorker(pool, manifest, snapshots, realtime=realtime)
            except BaseException as raised:  # noqa: BLE001 - raised again below, without the nursery's wrapping
                error = raised
        await pool.aclose()
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error
    if pool.failure is not None:
        raise pool.failure
