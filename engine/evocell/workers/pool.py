"""Pool of worker processes under one nursery: restart, replacement on request, dispatch.

Workers are disposable. A worker that dies takes its sessions with it (the next request to one reloads the
version), and its requests under way are lost. A request without a session is retried on another worker,
since most likely a neighbour killed the worker; after the third loss it is reported as lost.

Draining a worker loses nothing: its successor is started beside it, its sessions are hibernated and moved
one by one, each after its current request, and the process ends after its last request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio
from attrs import evolve

from evocell.concurrency import BACK_OFF_S, back_off_s
from evocell.errors import ConfigurationError, EngineClosed, EvocellError, ImageError
from evocell.execution.messages import (
    EXPORT_IMAGE,
    EXPORT_SESSION,
    FORK,
    FREEZE,
    IMPORT_IMAGE,
    IMPORT_SESSION,
    CopyRefused,
    GuestRequest,
    GuestResult,
    fixed_slots,
)
from evocell.execution.payload_cache import CACHE_BYTES, NAMED_BYTES
from evocell.execution.rpc import ConnectionLost, RequestFailed
from evocell.lru import LruCache
from evocell.models.info import WorkerInfo, WorkerKill
from evocell.workers.session_table import SessionTable, migrate_sessions
from evocell.workers.worker_process import WorkerProcess
from evocell_runtime.cache import ImageManifest

__all__ = ["HostPool", "WorkerSlot"]

SLOTS_PER_WORKER = 4
"""Requests in flight per worker: the one being run and those queued, so that the worker never idles."""

_TRIES = 3
_MOVE_POLL_S = 0.02


class WorkerSlot:
    """A worker's slot in the pool; the process in it changes.

    Args:
        number: Index of the slot, from 0.

    Attributes:
        name: Name of the slot, whichever process is in it.
        process: The process that gets work, or the last that did.
        restarts: How often a process was replaced.
        drain_asked: Set when the current process is to be replaced.
        undrained: Why the replacement was given up, if it was.
    """

    def __init__(self, number: int) -> None:
        self.name = f"worker-{number}"
        self.process: WorkerProcess | None = None
        self.restarts = 0
        self.drain_asked = trio.Event()
        self.undrained: str | None = None

    def take(self, new: WorkerProcess) -> None:
        """Put a new process into the slot."""
        self.restarts += self.process is not None
        self.process = new
        self.drain_asked = trio.Event()

    def give_up(self, why: str) -> None:
        """Give up replacing the current process."""
        self.undrained = why
        self.drain_asked = trio.Event()

    def info(self) -> WorkerInfo:
        """Return the slot's state."""
        process = self.process
        pid = None if process is None else process.pid
        if process is None or pid is None:
            return WorkerInfo(name=self.name, pid=None, status="starting", restarts=self.restarts)
        return WorkerInfo(
            name=self.name,
            pid=pid,
            status="draining" if self.drain_asked.is_set() else "up",
            sessions=process.n_sessions,
            calls=process.n_under_way,
            finished=process.finished,
            restarts=self.restarts,
            capacity=process.capacity,
        )


class HostPool:
    """Distributes requests over worker processes; implements `evocell.execution.messages.Host`.

    Args:
        manifest: The image the workers fork from.
        cache_root: Directory of the image cache.
        workers: How many processes.
        realtime: Whether guests see the real clock and real entropy.
        memory_bytes: Private memory that each worker may hold.
        cache_bytes: Size of each worker's payload cache.
    """

    def __init__(
        self,
        manifest: ImageManifest,
        cache_root: str,
        *,
        workers: int,
        realtime: bool,
        memory_bytes: int,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._opening: Mapping[str, Any] = {
            "cache": cache_root,
            "image_id": manifest.image_id,
            "realtime": realtime,
            "memory_bytes": memory_bytes,
            "shelf_bytes": cache_bytes,
        }
        self._cache_bytes = cache_bytes
        self._worker_slots = [WorkerSlot(n) for n in range(workers)]
        self._processes: list[WorkerProcess] = []
        self._table = SessionTable()
        self._names: LruCache[bytes, str] = LruCache(NAMED_BYTES)
        self._changed = trio.Condition()
        self._for_room = trio.lowlevel.ParkingLot()
        # Lost requests are retried one at a time, so that one that kills its worker does not take the others
        # with it a second time.
        self._again = trio.Lock()
        self._closed = False
        self.failure: ImageError | None = None
        """Why the workers cannot load the image; None while they can."""
        self.slots = workers * SLOTS_PER_WORKER
        self.on_kill: Callable[[WorkerKill], None] | None = None

    @property
    def processes(self) -> Sequence[WorkerProcess]:
        """Current processes, including those about to end; a live view."""
        return self._processes

    def workers(self) -> list[WorkerInfo]:
        """Return the state of each worker."""
        return [slot.info() for slot in self._worker_slots]

    async def wait_slots(self, seen: int) -> int:
        """Wait until `slots` is another number than `seen`: never; see `Host`."""
        return await fixed_slots(self.slots, seen)

    async def run(self, request: GuestRequest) -> GuestResult:
        """Run one request on the least busy worker, or on the session's own; see `Host`."""
        seen = request.lost or await self._run_somewhere(request)
        for _ in range(0 if request.session is not None else _TRIES - 1):
            if isinstance(seen, GuestResult):
                break
            async with self._again:
                seen = await self._run_somewhere(request)
        return seen if isinstance(seen, GuestResult) else GuestResult(lost=seen)

    async def _run_somewhere(self, request: GuestRequest) -> GuestResult | str:
        """Run on a worker, or on the next one if it has no room; the result says if the worker was lost."""
        full: list[WorkerProcess] = []
        while True:
            process, settled = await self._choose(request.session, full)
            try:
                seen = await process.run(request)
            except ConnectionLost:
                self._unsettle(request.session, process)
                return process.exit_reason()
            finally:
                self._tell_of_room()
            if seen.unforked is None or settled:
                return seen
            self._unsettle(request.session, process)
            full.append(process)
            if not self._free(full):
                return seen

    def _unsettle(self, session: str | None, process: WorkerProcess) -> None:
        if session is not None and self._table.get(session) is process:
            self._table.forget(session)

    async def fork_session(self, session: str, new: str) -> bool:
        """Copy a session into a new one on the same worker; see `Host`."""
        home = await self._staying(session)
        if home is None:
            return False
        self._table.settle(new, home)
        done = False
        try:
            done = bool(await self._copying(home, (session, new), FORK, {"session": session, "new": new}))
        except CopyRefused:
            self._unsettle(new, home)
            raise  # after any other failure the copy may exist, and ending it needs its home
        if not done:
            self._unsettle(new, home)
        return done

    async def freeze_session(
        self, request: GuestRequest, *, name: str, replace: bool, version: str | None
    ) -> str:
        """Freeze a session into an image on its own worker; see `Host`."""
        session = request.session
        home = None if session is None else await self._staying(session)
        if home is None:
            session = None
            home, _ = await self._choose(None, ())
        plain = evolve(request, session=session).to_wire(lambda part: part)
        order = {"run": plain, "name": name, "replace": replace, "version": version}
        return str(await self._copying(home, (session,), FREEZE, order))

    async def export_session(self, session: str) -> dict[str, Any] | None:
        """Export a session's state; see `Host`."""
        home = await self._staying(session)
        if home is None:
            return None
        state: dict[str, Any] | None = await self._copying(
            home, (session,), EXPORT_SESSION, {"session": session}
        )
        return state

    async def import_session(self, session: str, state: Mapping[str, Any]) -> None:
        """Create a session from exported state on the least busy worker; see `Host`."""
        home, _ = await self._choose(session, ())
        try:
            await self._copying(home, (session,), IMPORT_SESSION, {"session": session, "state": dict(state)})
        except CopyRefused:
            self._unsettle(session, home)
            raise  # after any other failure it may exist

    async def export_image(self, image: str | None, path: Path) -> str:
        """Write an image to a file; see `Host`."""
        home, _ = await self._choose(None, ())
        return str(await self._copying(home, (None,), EXPORT_IMAGE, {"image": image, "path": str(path)}))

    async def import_image(self, path: Path, *, name: str | None, replace: bool) -> str:
        """Make an image from a file; see `Host`."""
        home, _ = await self._choose(None, ())
        order = {"path": str(path), "name": name, "replace": replace}
        return str(await self._copying(home, (None,), IMPORT_IMAGE, order))

    async def _copying(
        self, home: WorkerProcess, sessions: Sequence[str | None], method: str, order: dict[str, Any]
    ) -> Any:
        """Run a copying request on a worker, then wake the tasks that wait for room."""
        try:
            return await home.copying(sessions, method, order)
        finally:
            self._tell_of_room()

    async def _staying(self, session: str) -> WorkerProcess | None:
        """Return the worker that holds a session, waiting while it moves; None if none does."""
        while (home := self._table.get(session)) is not None and home.leaving and not home.over.is_set():
            await self._table.wait_arrived(session)
            await trio.sleep(_MOVE_POLL_S)
        return home

    async def drain(self, name: str) -> None:
        """Replace a worker without loss: a new process takes its place, and its sessions move there.

        Requests under way finish in the old process, which ends after the last. A session with open files
        cannot move, and is lost as if the worker had died.

        Raises:
            ConfigurationError: No worker has that name.
            EngineClosed: The engine was closed before it was replaced.
            EvocellError: A successor could not be started; the worker keeps running.

        Cancellation: It is replaced all the same.
        """
        slot = next((slot for slot in self._worker_slots if slot.name == name), None)
        if slot is None:
            names = ", ".join(slot.name for slot in self._worker_slots)
            raise ConfigurationError(f"there is no worker {name!r}; there are {names}", "name")
        old, slot.undrained = slot.process, None
        slot.drain_asked.set()
        async with self._changed:
            # A worker that was down, or died meanwhile, is replaced as well.
            while slot.process is old or (old is not None and not old.gone.is_set()):
                if self._closed:
                    raise EngineClosed("the engine is closed")
                if self.failure is not None:
                    raise self.failure
                if slot.undrained is not None:
                    raise EvocellError(f"{name} was not replaced: {slot.undrained}")
                await self._changed.wait()

    async def end_session(self, session: str) -> None:
        """Drop a session and its fork, after its current request if any; idempotent.

        Cancellation: The session is dropped all the same, unless it is moving to another worker.
        """
        await self._table.wait_arrived(session)
        process = self._table.forget(session)
        if process is not None:
            # No other task can find it any more, so it must be ended even if this task is cancelled.
            with trio.CancelScope(shield=True), suppress(ConnectionLost, RequestFailed):
                await process.wait_without(session)
                await process.request("end_session", {"session": session})

    def session_home(self, session: str) -> str | None:
        """Return the name of the worker that holds a session; None if none does."""
        home = self._table.get(session)
        return None if home is None else home.name

    async def wait_session_losses(self, seen: int) -> int:
        """Wait until sessions have been lost more than `seen` times; see `Host`."""
        return await self._table.wait_losses(seen)

    async def aclose(self) -> None:
        """Refuse further requests; the processes end with the nursery of `supervise`. Idempotent."""
        self._closed = True
        await self._tell()

    async def supervise(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep all workers up until cancelled. Reports started once one is up, or `failure` is set."""
        async with trio.open_nursery() as nursery:
            for slot in self._worker_slots:
                nursery.start_soon(self._keep, slot)
            async with self._changed:
                while self.failure is None and not self._free():
                    await self._changed.wait()
            task_status.started()

    def _usable(self, full: Collection[WorkerProcess]) -> list[WorkerProcess]:
        """Return the workers that accept further requests, as far as their connections tell."""
        return [
            process
            for process in self._processes
            if process.is_connected and not process.leaving and process not in full
        ]

    def _free(self, full: Collection[WorkerProcess] = ()) -> list[WorkerProcess]:
        """Return the workers that accept further requests, except those known to be full."""
        return [process for process in self._usable(full) if process.is_up]

    async def _choose(
        self, session: str | None, full: Collection[WorkerProcess]
    ) -> tuple[WorkerProcess, bool]:
        """Choose the worker for a request; also returns whether it already holds the session."""
        while True:
            if session is not None:
                await self._table.wait_arrived(session)
            # No checkpoint from here to the dispatch, unless there is no worker to choose.
            if self._closed:
                raise EngineClosed("the engine is closed")
            home = None if session is None else self._table.get(session)
            if home is not None and home.is_up:
                return home, True
            if usable := self._usable(full):
                if session is None and not any(process.room for process in usable):
                    await self._for_room.park()
                    continue
                chosen = min(usable, key=lambda process: (process.n_under_way, process.n_sessions))
                if not chosen.is_up:  # asked of the chosen one alone, since it takes a call to the system
                    full = [*full, chosen]
                    continue
                if session is not None:
                    self._table.settle(session, chosen)
                return chosen, False
            if self.failure is not None:
                raise self.failure
            async with self._changed:
                await self._wait_free(full)

    async def _wait_free(self, full: Collection[WorkerProcess]) -> None:
        """Wait until the set of usable workers may have changed; `_changed` is held."""
        while not (self._free(full) or self._closed or self.failure):
            await self._changed.wait()

    # Theory of operation of `_keep`, which is the only one to put processes into a slot:
    #
    # Each turn starts one process and waits until it has opened the image, or has failed to. It then waits
    # until that process is over, or a drain is asked for, and the next turn begins. A turn ends in one of six
    # ways:
    #   1. The new process is up: it takes the slot. If the old one lives, its sessions move to the new one
    #      beside it (`migrate_sessions`), and it ends after its last request.
    #   2. It is not up, the old one lives, and may come up next time: the pause before the next try grows.
    #   3. It is not up, the old one lives, and it has refused the image or failed too often: the drain is
    #      given up, with the reason, and the old one runs until it ends or another drain is requested.
    #   4. It is not up, no other process is, and it refused the image: that is the pool's `failure`, which
    #      every request raises until a later try succeeds.
    #   5. It is not up and none of these: another try after a pause.
    #   6. The pool is cancelled: the nursery ends every process.
    # A process that ended without having finished a request counts as fruitless and lengthens the pause, so
    # that one that dies at once is not started in a loop.

    async def _keep(self, slot: WorkerSlot) -> None:
        """Keep a slot occupied: start a new process when one has ended or is to be replaced."""
        fruitless = 0
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(back_off_s(fruitless))
                new = WorkerProcess(
                    slot.name,
                    self._opening,
                    self._names,
                    self._cache_bytes,
                    on_kill=self._tell_kill,
                    on_room=self._tell_of_room,
                )
                await nursery.start(new.live)
                old = slot.process
                if not new.is_up:
                    fruitless += 1
                    if old is not None and old.is_up:
                        if new.refused is not None or fruitless >= len(BACK_OFF_S):
                            slot.give_up(new.refused or "its successor does not start")
                            fruitless = 0
                            await self._tell()
                            await _first_of(old.over, slot.drain_asked)
                    elif new.refused is not None and not self._free():
                        self.failure = ImageError(new.refused)
                        await self._tell()
                    continue
                slot.take(new)
                self.failure = None
                self._processes.append(new)
                nursery.start_soon(self._see_off, new)
                if old is not None and not old.over.is_set():
                    nursery.start_soon(migrate_sessions, old, new, self._table, self._free)
                await self._tell()
                await _first_of(new.over, slot.drain_asked)
                fruitless = 0 if new.finished or not new.over.is_set() else fruitless + 1

    async def _see_off(self, process: WorkerProcess) -> None:
        """Wait until a worker has ended, then remove it from the records."""
        await process.over.wait()
        self._processes.remove(process)
        self._table.lose(self._table.of(process))
        await self._tell()
        await process.gone.wait()
        await self._tell()

    def _tell_of_room(self) -> None:
        """Wake as many tasks waiting for room as there is room for."""
        if self._for_room:
            self._for_room.unpark(count=max(1, sum(process.room for process in self._free())))

    def _tell_kill(self, kill: WorkerKill) -> None:
        if self.on_kill is not None:
            self.on_kill(kill)

    async def _tell(self) -> None:
        self._for_room.unpark_all()
        async with self._changed:
            self._changed.notify_all()


async def _first_of(*events: trio.Event) -> None:
    """Wait until one of some events has happened."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)
