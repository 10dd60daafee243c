"""Worker processes under one nursery: started, watched, restarted, and given work.

A worker is disposable. When one dies its sessions are gone with it (the next run in one starts from the
version again), and the runs it had under way are lost. A run that needs no session is tried again
elsewhere, since most likely a neighbour killed the worker; lost a third time, it is named as lost.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial

import trio

from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.errors import ConfigurationError, EngineClosed, ImageError, ProtocolError
from evocell.execution.blobs import NAMED_BYTES, SHELF_BYTES, Recent, RunSender
from evocell.execution.child import WorkerChild
from evocell.execution.connection import Connection, ConnectionLost, RequestFailed
from evocell.execution.enforcer import WatchedWorker, memory_bound, watch_memory
from evocell.execution.front import HostWorker
from evocell.execution.images import ensure_image
from evocell.execution.run import Run, Sighting
from evocell.execution.vigil import IDLE_PING_S, PING_S, Vigil
from evocell.execution.worker import Worker
from evocell_runtime.build import BuildProgress
from evocell_runtime.cache import ImageManifest

__all__ = ["HostPool", "open_worker_processes"]

SLOTS_PER_WORKER = 2
START_S = 120.0
"""How long a worker may take to start and open the image; a cold disk is slow."""
BACK_OFF_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Pauses before a worker is started again, by how often it died without having finished a run."""
GRACE_S = 2.0
"""How long a worker that was told to end may take."""

_log = logging.getLogger("evocell")

_TRIES = 3
_SHELF_PART = 4
"""A worker's shelf takes at most this part of the memory it may hold."""


class _Member:
    """A worker's place in the pool; the process in it changes."""

    def __init__(self, number: int) -> None:
        self.name = f"worker-{number}"
        self.connection: Connection | None = None
        self.sender: RunSender | None = None
        self.process: WorkerChild | None = None
        self.life = trio.CancelScope()
        self.under_way = 0
        self.finished = 0
        self.restarts = 0
        self.draining = False
        self.busy = trio.Event()
        self.drain_asked = trio.Event()
        self.lives = 0
        self._idle = trio.Event()
        self._verdict: str | None = None

    @property
    def pid(self) -> int | None:
        """The process, once it can be given work."""
        return self.process.pid if self.process is not None and self.is_up else None

    def condemn(self, why: str) -> None:
        """Take note why the process is being killed; forgotten when the next one is up."""
        self._verdict = why

    def acquit(self) -> None:
        """Forget why the former process was killed, or was to end."""
        self._verdict = None
        self.draining = False

    def obituary(self) -> str:
        """Say what became of the process while it had calls under way."""
        how = "died" if self._verdict is None else "was killed"
        why = "" if self._verdict is None else f": {self._verdict}"
        return f"{self.name} {how} with calls under way{why}"

    def begin_run(self) -> None:
        """Count a run in."""
        self.under_way += 1
        self.busy.set()

    def end_run(self) -> None:
        """Count a run out, and tell whoever waits for the last one."""
        self.under_way -= 1
        if not self.under_way:
            self.busy = trio.Event()
            self._idle.set()
            self._idle = trio.Event()

    async def wait_idle(self) -> None:
        """Wait until no run is under way."""
        while self.under_way:
            await self._idle.wait()

    @property
    def takes_work(self) -> bool:
        """Whether further runs may be given to it."""
        return self.is_up and not self.draining

    @property
    def is_up(self) -> bool:
        """Whether its process has opened the image and has not ended."""
        if self.connection is None or self._verdict is not None:
            return False
        return self.process is not None and self.process.is_alive


class HostPool:
    """Spreads runs over worker processes; implements `evocell.execution.run.Host`.

    Args:
        manifest: The image the workers fork from.
        cache_root: Where it lies.
        workers: How many processes.
        realtime: Whether guests see the real clock and real entropy.
        shelf_bytes: How much of what runs refer to each worker keeps.
    """

    def __init__(
        self,
        manifest: ImageManifest,
        cache_root: str,
        *,
        workers: int,
        realtime: bool,
        shelf_bytes: int = SHELF_BYTES,
    ) -> None:
        self._opening = {
            "cache": cache_root,
            "image_id": manifest.image_id,
            "realtime": realtime,
            "shelf_bytes": shelf_bytes,
        }
        self._shelf_bytes = shelf_bytes
        self._members = [_Member(n) for n in range(workers)]
        self._homes: dict[str, _Member] = {}
        self._names: Recent[bytes, str] = Recent(NAMED_BYTES)
        self._changed = trio.Condition()
        # Runs that were lost are tried again one at a time: the one that killed its worker, if one did, takes
        # none of the others along a second time.
        self._again = trio.Lock()
        self._closed = False
        self._losses = 0
        self._loss = trio.Event()
        self.failure: ImageError | None = None
        """Why the workers cannot load the image; None while they can."""
        self.slots = workers * SLOTS_PER_WORKER

    @property
    def workers(self) -> Sequence[WatchedWorker]:
        """The workers' places, to be watched."""
        return self._members

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
        turns: list[AbstractAsyncContextManager[object]] = [nullcontext(), *[self._again] * (_TRIES - 1)]
        for turn in turns:
            async with turn:
                member = await self._place(run.session)
                try:
                    return await self._run_on(member, run)
                except ConnectionLost:
                    lost = member.obituary()
            if run.session is not None:
                break
        return Sighting(lost=lost)

    async def _run_on(self, member: _Member, run: Run) -> Sighting:
        sender = member.sender
        assert sender is not None
        member.begin_run()
        try:
            seen = await sender.run(run)
        except RequestFailed as error:
            raise ProtocolError(f"{member.name} refused a run: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            member.life.cancel()
            raise ProtocolError(f"{member.name} answered with nonsense, and is replaced: {error}") from error
        else:
            member.finished += 1
            return seen
        finally:
            member.end_run()

    async def drain(self, name: str) -> None:
        """Replace a worker without losing a run: it gets no further ones and ends after its last.

        A new one takes its place. Its sessions end with it, as they do when it dies.

        Raises:
            ConfigurationError: There is no such worker.

        Cancellation: It is replaced all the same, once its last run is over.
        """
        member = next((member for member in self._members if member.name == name), None)
        if member is None:
            names = ", ".join(member.name for member in self._members)
            raise ConfigurationError(f"there is no worker {name!r}; there are {names}", "name")
        lives = member.lives
        if member.is_up:
            member.draining = True
            member.drain_asked.set()
        async with self._changed:
            while member.lives == lives and not (self._closed or self.failure):
                await self._changed.wait()

    async def end_session(self, session: str) -> None:
        """Drop a session and its fork, after the run in it if there is one; idempotent."""
        member = self._homes.pop(session, None)
        if member is not None and member.connection is not None:
            with suppress(ConnectionLost, RequestFailed):
                await member.connection.request("end_session", {"session": session})

    def session_home(self, session: str) -> str | None:
        """Name of the worker that holds a session; None if none does."""
        home = self._homes.get(session)
        return None if home is None else home.name

    async def wait_session_losses(self, seen: int) -> int:
        """Wait until sessions have been lost more than `seen` times; see `Host`."""
        while self._losses <= seen:
            await self._loss.wait()
        return self._losses

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
                if home is not None and home.takes_work:
                    return home
                up = [member for member in self._members if member.takes_work]
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
            fruitless = 0 if member.finished > before or member.draining else fruitless + 1
            member.restarts += 1

    async def _live(self, member: _Member) -> None:
        """One life of a worker, from its start to its end, whoever ends it."""
        process = WorkerChild()
        member.process = process
        connection = Connection(process.receive, process.send)
        try:
            async with trio.open_nursery() as nursery:
                member.life = nursery.cancel_scope
                nursery.start_soon(self._serve, connection, nursery.cancel_scope)
                starting = trio.CancelScope(deadline=trio.current_time() + START_S)
                nursery.start_soon(_kill_late, process, starting)
                try:
                    await connection.request("open", self._opening)
                except RequestFailed as error:
                    self.failure = ImageError(str(error))
                    await self._announce(member, None)
                    nursery.cancel_scope.cancel()
                    return
                except ConnectionLost:
                    return
                finally:
                    starting.cancel()
                self.failure = None
                await self._announce(member, connection)
                nursery.start_soon(self._watch, member, process, connection)
                await member.drain_asked.wait()
                await member.wait_idle()
                nursery.cancel_scope.cancel()
        finally:
            member.connection = None
            self._lose_sessions(member)
            with trio.CancelScope(shield=True):
                await process.end(GRACE_S)
                member.process = None

    def _lose_sessions(self, member: _Member) -> None:
        """Forget the sessions of a worker that is gone, and tell whoever waits to know."""
        lost = [session for session, home in self._homes.items() if home is member]
        for session in lost:
            del self._homes[session]
        if lost:
            self._losses += 1
            self._loss.set()
            self._loss = trio.Event()

    async def _serve(self, connection: Connection, life: trio.CancelScope) -> None:
        await connection.serve()
        life.cancel()

    async def _announce(self, member: _Member, connection: Connection | None) -> None:
        member.connection = connection
        member.sender = None if connection is None else RunSender(connection, self._names, self._shelf_bytes)
        member.acquit()
        member.drain_asked = trio.Event()
        member.lives += connection is not None
        async with self._changed:
            self._changed.notify_all()

    async def _watch(self, member: _Member, process: WorkerChild, connection: Connection) -> None:
        """Ask a worker now and then whether it is there, and kill it when it will not answer any more."""
        vigil = Vigil(process.pid)
        async with trio.open_nursery() as nursery:
            while True:
                with trio.move_on_after(IDLE_PING_S):
                    await member.busy.wait()
                    await trio.sleep(PING_S)
                answered = trio.Event()
                # On its own: what a hanging worker does not read cannot be written to the end.
                nursery.start_soon(_ask, connection, answered)
                why = await vigil.wait(answered)
                if why is not None:
                    member.condemn(why)
                    _log.warning("%s (process %d) killed: %s", member.name, process.pid, why)
                    process.kill()  # its end is seen where its output is read
                    return


async def _kill_late(process: WorkerChild, starting: trio.CancelScope) -> None:
    """Kill a worker that has not started when its time is over."""
    with starting:
        await trio.sleep_forever()
    if trio.current_time() >= starting.deadline:
        _log.warning("process %d killed: it did not start within %g s", process.pid, START_S)
        process.kill()


async def _ask(connection: Connection, answered: trio.Event) -> None:
    with suppress(ConnectionLost, RequestFailed):
        await connection.probe("ping")
    answered.set()


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
        shelf_bytes=min(SHELF_BYTES, memory_bound(config) // _SHELF_PART),
    )
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.supervise)
        if config.enforcement_enabled:
            interval_s = config.enforcement_poll_interval_ms / 1000
            watch = partial(watch_memory, pool.workers, bound=memory_bound(config), interval_s=interval_s)
            nursery.start_soon(watch)
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
