"""Worker processes under one nursery: started again when they end, replaced on request, and given work.

A worker is disposable. When one dies its sessions are gone with it (the next run in one starts from the
version again), and the runs it had under way are lost. A run that needs no session is tried again
elsewhere, since most likely a neighbour killed the worker; lost a third time, it is named as lost.

One that is drained loses nothing: its successor is started beside it, its sessions are put aside and go
over one by one, each after the run in it, and the process ends after its last run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import trio
from attrs import evolve

from evocell.errors import ConfigurationError, EngineClosed, EvocellError, ImageError
from evocell.execution.blobs import NAMED_BYTES, SHELF_BYTES, Recent
from evocell.execution.connection import ConnectionLost, RequestFailed
from evocell.execution.copying import COPY_OUT, EXPORT_IMAGE, FORK, FREEZE, IMPORT_IMAGE, PUT_IN
from evocell.execution.handover import hand_over
from evocell.execution.homes import Homes
from evocell.execution.life import WorkerLife
from evocell.execution.places import Place
from evocell.execution.run import CopyRefused, Run, Sighting, fixed_slots
from evocell.models.workers import WorkerInfo, WorkerKill
from evocell_runtime.cache import ImageManifest

__all__ = ["HostPool"]

SLOTS_PER_WORKER = 4
"""Runs on their way for each worker: one that is at work has others waiting, or it would wait for them."""
BACK_OFF_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Pauses before a worker is started again, by how often it died without having finished a run."""

_TRIES = 3
_MOVE_POLL_S = 0.02


class HostPool:
    """Spreads runs over worker processes; implements `evocell.execution.run.Host`.

    Args:
        manifest: The image the workers fork from.
        cache_root: Where it lies.
        workers: How many processes.
        realtime: Whether guests see the real clock and real entropy.
        memory_bytes: Memory of its own that each worker may hold.
        shelf_bytes: How much of what runs refer to each worker keeps.
    """

    def __init__(
        self,
        manifest: ImageManifest,
        cache_root: str,
        *,
        workers: int,
        realtime: bool,
        memory_bytes: int,
        shelf_bytes: int = SHELF_BYTES,
    ) -> None:
        self._opening: Mapping[str, Any] = {
            "cache": cache_root,
            "image_id": manifest.image_id,
            "realtime": realtime,
            "memory_bytes": memory_bytes,
            "shelf_bytes": shelf_bytes,
        }
        self._shelf_bytes = shelf_bytes
        self._places = [Place(n) for n in range(workers)]
        self._lives: list[WorkerLife] = []
        self._homes = Homes()
        self._names: Recent[bytes, str] = Recent(NAMED_BYTES)
        self._changed = trio.Condition()
        self._for_room = trio.lowlevel.ParkingLot()
        # Runs that were lost are tried again one at a time: the one that killed its worker, if one did, takes
        # none of the others along a second time.
        self._again = trio.Lock()
        self._closed = False
        self.failure: ImageError | None = None
        """Why the workers cannot load the image; None while they can."""
        self.slots = workers * SLOTS_PER_WORKER
        self.on_kill: Callable[[WorkerKill], None] | None = None

    @property
    def lives(self) -> Sequence[WorkerLife]:
        """The processes there are, those that are about to end included; it changes with them."""
        return self._lives

    def workers(self) -> list[WorkerInfo]:
        """What is seen of each worker."""
        return [place.info(self._homes) for place in self._places]

    async def wait_slots(self, seen: int) -> int:
        """Wait until `slots` is another number than `seen`: never; see `Host`."""
        return await fixed_slots(self.slots, seen)

    async def run(self, run: Run) -> Sighting:
        """Run one request on the worker with the least to do, or on the session's own; see `Host`."""
        lost = "the worker died"
        turns: list[AbstractAsyncContextManager[object]] = [nullcontext(), *[self._again] * (_TRIES - 1)]
        for turn in turns:
            async with turn:
                seen = await self._run_somewhere(run)
                if isinstance(seen, Sighting):
                    return seen
                lost = seen
            if run.session is not None:
                break
        return Sighting(lost=lost)

    async def _run_somewhere(self, run: Run) -> Sighting | str:
        """Run on a worker, and on the next one if there is no room; or say how the worker was lost."""
        full: list[WorkerLife] = []
        while True:
            life, settled = await self._place(run.session, full)
            try:
                seen = await life.run(run)
            except ConnectionLost:
                self._unsettle(run.session, life)
                return life.obituary()
            finally:
                self._tell_of_room()
            if seen.unforked is None or settled:
                return seen
            self._unsettle(run.session, life)
            full.append(life)
            if not self._free(full):
                return seen

    def _unsettle(self, session: str | None, life: WorkerLife) -> None:
        if session is not None and self._homes.get(session) is life:
            self._homes.forget(session)

    async def fork_session(self, session: str, new: str) -> bool:
        """Copy what a session holds into a new one, on the same worker; see `Host`."""
        home = await self._staying(session)
        if home is None:
            return False
        self._homes.settle(new, home)
        done = False
        try:
            done = bool(await self._copying(home, (session, new), FORK, {"session": session, "new": new}))
        except CopyRefused:
            self._unsettle(new, home)
            raise  # after anything else there may be a copy, whose end must find its home
        if not done:
            self._unsettle(new, home)
        return done

    async def freeze_session(self, run: Run, *, name: str, replace: bool, version: str | None) -> str:
        """Seal what a session holds as an image, on its own worker; see `Host`."""
        session = run.session
        home = None if session is None else await self._staying(session)
        if home is None:
            session = None
            home, _ = await self._place(None, ())
        plain = evolve(run, session=session).to_wire(lambda part: part)
        order = {"run": plain, "name": name, "replace": replace, "version": version}
        return str(await self._copying(home, (session,), FREEZE, order))

    async def copy_out(self, session: str) -> dict[str, Any] | None:
        """Take down what a session holds; see `Host`."""
        home = await self._staying(session)
        if home is None:
            return None
        state: dict[str, Any] | None = await self._copying(home, (session,), COPY_OUT, {"session": session})
        return state

    async def put_in(self, session: str, state: Mapping[str, Any]) -> None:
        """Begin a session with what one elsewhere held, on the worker with the least to do; see `Host`."""
        home, _ = await self._place(session, ())
        try:
            await self._copying(home, (session,), PUT_IN, {"session": session, "state": dict(state)})
        except CopyRefused:
            self._unsettle(session, home)
            raise  # after anything else it may be there

    async def export_image(self, image: str | None, path: Path) -> str:
        """Write an image to a file; see `Host`."""
        home, _ = await self._place(None, ())
        return str(await self._copying(home, (None,), EXPORT_IMAGE, {"image": image, "path": str(path)}))

    async def import_image(self, path: Path, *, name: str | None, replace: bool) -> str:
        """Make an image from a file; see `Host`."""
        home, _ = await self._place(None, ())
        order = {"path": str(path), "name": name, "replace": replace}
        return str(await self._copying(home, (None,), IMPORT_IMAGE, order))

    async def _copying(
        self, home: WorkerLife, sessions: Sequence[str | None], method: str, order: dict[str, Any]
    ) -> Any:
        """Have a worker do something about a copy, and tell those who wait for room when it is done."""
        try:
            return await home.copying(sessions, method, order)
        finally:
            self._tell_of_room()

    async def _staying(self, session: str) -> WorkerLife | None:
        """Where a session lives, and is not about to move away from; None if nowhere."""
        while (home := self._homes.get(session)) is not None and home.leaving and not home.over.is_set():
            await self._homes.wait_arrived(session)
            await trio.sleep(_MOVE_POLL_S)
        return home

    async def drain(self, name: str) -> None:
        """Replace a worker and lose nothing: a new process takes its place, and its sessions move there.

        Runs under way come to their end in the old process, which ends after the last. A session with files
        open cannot move, and is lost as if the worker had died.

        Raises:
            ConfigurationError: There is no such worker.
            EngineClosed: The engine was closed before it was replaced.
            EvocellError: A successor could not be started; the worker goes on.

        Cancellation: It is replaced all the same.
        """
        place = next((place for place in self._places if place.name == name), None)
        if place is None:
            names = ", ".join(place.name for place in self._places)
            raise ConfigurationError(f"there is no worker {name!r}; there are {names}", "name")
        old, place.undrained = place.life, None
        place.drain_asked.set()
        async with self._changed:
            # One that was not there, or died meanwhile, is replaced as well.
            while place.life is old or (old is not None and not old.gone.is_set()):
                if self._closed:
                    raise EngineClosed("the engine is closed")
                if self.failure is not None:
                    raise self.failure
                if place.undrained is not None:
                    raise EvocellError(f"{name} was not replaced: {place.undrained}")
                await self._changed.wait()

    async def end_session(self, session: str) -> None:
        """Drop a session and its fork, after the run in it if there is one; idempotent.

        Cancellation: It is dropped all the same, unless it is on its way elsewhere.
        """
        await self._homes.wait_arrived(session)
        life = self._homes.forget(session)
        if life is not None:
            # Nobody can find it any more: whoever is cancelled here ends it all the same.
            with trio.CancelScope(shield=True), suppress(ConnectionLost, RequestFailed):
                await life.wait_without(session)
                await life.request("end_session", {"session": session})

    def session_home(self, session: str) -> str | None:
        """Name of the worker that holds a session; None if none does."""
        home = self._homes.get(session)
        return None if home is None else home.name

    async def wait_session_losses(self, seen: int) -> int:
        """Wait until sessions have been lost more than `seen` times; see `Host`."""
        return await self._homes.wait_losses(seen)

    async def aclose(self) -> None:
        """Refuse further runs; the processes end with the nursery that `supervise` runs in. Idempotent."""
        self._closed = True
        await self._tell()

    async def supervise(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep all workers up until cancelled. Started once one of them is up, or `failure` is set."""
        async with trio.open_nursery() as nursery:
            for place in self._places:
                nursery.start_soon(self._keep, place)
            async with self._changed:
                while self.failure is None and not self._free():
                    await self._changed.wait()
            task_status.started()

    def _free(self, full: Collection[WorkerLife] = ()) -> list[WorkerLife]:
        """The workers that may be given further runs, but for those known to be full."""
        return [life for life in self._lives if life.is_up and not life.leaving and life not in full]

    async def _place(self, session: str | None, full: Collection[WorkerLife]) -> tuple[WorkerLife, bool]:
        """Choose the worker for a run; also returns whether it is the session's home already."""
        while True:
            if session is not None:
                await self._homes.wait_arrived(session)
            # From here to the run no other task gets its turn, unless there is nobody to choose.
            if self._closed:
                raise EngineClosed("the engine is closed")
            home = None if session is None else self._homes.get(session)
            if home is not None and home.is_up:
                return home, True
            if free := self._free(full):
                if session is None and not any(life.room for life in free):
                    await self._for_room.park()
                    continue
                chosen = min(free, key=lambda life: (life.under_way.total(), self._homes.count(life)))
                if session is not None:
                    self._homes.settle(session, chosen)
                return chosen, False
            if self.failure is not None:
                raise self.failure
            async with self._changed:
                await self._wait_free(full)

    async def _wait_free(self, full: Collection[WorkerLife]) -> None:
        """Wait until it is worth looking for a worker again; `_changed` is held."""
        while not (self._free(full) or self._closed or self.failure):
            await self._changed.wait()

    async def _keep(self, place: Place) -> None:
        """Have a worker in a place: a new one when one has ended, or is to be replaced."""
        fruitless = 0
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(BACK_OFF_S[min(fruitless, len(BACK_OFF_S) - 1)])
                new = WorkerLife(
                    place.name, self._opening, self._names, self._shelf_bytes, on_kill=self._tell_kill
                )
                await nursery.start(new.live)
                old = place.life
                if not new.is_up:
                    fruitless += 1
                    if old is not None and old.is_up:
                        if new.refused is not None or fruitless >= len(BACK_OFF_S):
                            place.give_up(new.refused or "its successor does not start")
                            fruitless = 0
                            await self._tell()
                            await _first_of(old.over, place.drain_asked)
                    elif new.refused is not None and not self._free():
                        self.failure = ImageError(new.refused)
                        await self._tell()
                    continue
                place.take(new)
                self.failure = None
                self._lives.append(new)
                nursery.start_soon(self._see_off, new)
                if old is not None and not old.over.is_set():
                    nursery.start_soon(hand_over, old, new, self._homes, self._free)
                await self._tell()
                await _first_of(new.over, place.drain_asked)
                fruitless = 0 if new.finished or not new.over.is_set() else fruitless + 1

    async def _see_off(self, life: WorkerLife) -> None:
        """Wait for the end of a worker, and forget it."""
        await life.over.wait()
        self._lives.remove(life)
        self._homes.lose(self._homes.of(life))
        await self._tell()
        await life.gone.wait()
        await self._tell()

    def _tell_of_room(self) -> None:
        """Have as many of those who wait for room look again as there is room for."""
        self._for_room.unpark(count=max(1, sum(life.room for life in self._free())))

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
