"""Host of guests in this process: forks, sessions, and the threads that run them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio
from attrs import define, evolve, field

from evocell.errors import CapacityError, ConfigurationError, EngineClosed, ProtocolError
from evocell.execution.messages import CopyRefused, GuestRequest, GuestResult, fixed_slots
from evocell.guests.capacity import AWAKE_SESSIONS, Capacity, IdleSessions, weight
from evocell.guests.deadline_watch import DeadlineWatch
from evocell.guests.guest import Fork, GuestJob
from evocell.guests.images import LoadedImages
from evocell.guests.loop_scheduler import LoopScheduler
from evocell.guests.scratch import Scratch
from evocell.guests.thread_scheduler import ThreadScheduler
from evocell.models.info import WorkerInfo, WorkerKill
from evocell.models.limits import Limits
from evocell_runtime.errors import ImageError

EXPORT_BYTES = 256 << 20
"""A session that takes more than this when hibernated is not moved to another process."""

_SLOTS_PER_THREAD = 2

T = TypeVar("T")

HERE = "local"
"""Name of the calling process."""


@define(eq=False)
class _Session:
    """A fork that keeps its state, and the lock that serialises requests to it."""

    lock: trio.Lock = field(factory=trio.Lock)
    fork: Fork | None = None


class GuestHost:
    """Runs guests in threads of this process.

    Args:
        images: The images to fork from.
        driver: The scheduler of guests; closed with the host.
        realtime: Whether guests see the real clock and real entropy.
        capacity: Bounds on sessions.
    """

    def __init__(
        self,
        images: LoadedImages,
        driver: ThreadScheduler | LoopScheduler,
        *,
        realtime: bool,
        capacity: Capacity,
    ) -> None:
        self._images = images
        self._realtime = realtime
        self._driver = driver
        self._watch = DeadlineWatch()
        self._scratch = Scratch()
        self._sessions: dict[str, _Session] = {}
        self._residents: IdleSessions[_Session] = IdleSessions(capacity)
        self._running: set[GuestJob] = set()
        self._finished = 0
        self.on_kill: Callable[[WorkerKill], None] | None = None
        self._closed = False
        self.slots = driver.threads * _SLOTS_PER_THREAD

    async def run(self, request: GuestRequest) -> GuestResult:
        """Run one request to its end or to a limit; see `Host`.

        Cancellation: The fork is discarded within a slice, before `Cancelled` leaves here.
        """
        if not self._images.holds(request.image):
            try:
                await trio.to_thread.run_sync(self._images.get, request.image)
            except ImageError as e:
                return GuestResult(no_image=str(e))
        if request.session is None:
            return _guest_result(await self._drive(self._fresh(request), request.body, request, keep=False))
        while True:
            session = self._sessions.setdefault(request.session, _Session())
            async with session.lock:
                if self._sessions.get(request.session) is not session:  # ended while this request waited
                    continue
                full = None if session.fork is not None else self._residents.refusal()
                if full is not None:
                    del self._sessions[request.session]
                    return GuestResult(unforked=full)
                seen = await self._run_in(session, request)
            await self._hibernate_idle()
            return seen

    async def wait_slots(self, seen: int) -> int:
        """Wait until `slots` is another number than `seen`: never; see `Host`."""
        return await fixed_slots(self.slots, seen)

    def begin(
        self, request: GuestRequest, done: Callable[[GuestResult | EngineClosed], None]
    ) -> Callable[[], object] | None:
        """Begin a request without a session, without a task for it.

        Args:
            request: The request.
            done: Called on the event loop's thread with the result, or with the cancellation.

        Returns:
            A function that cancels it; None if it has to go through `run`.
        """
        if not self._driver.on_loop or request.session is not None or not self._images.holds(request.image):
            return None
        if self._closed:
            raise EngineClosed("the engine is closed")

        def over() -> None:
            self._running.discard(job)
            self._finished += 1
            try:
                seen: GuestResult | EngineClosed = _guest_result(job)
            except EngineClosed as closed:
                seen = closed
            done(seen)

        job = self._job(self._fresh(request), request.body, request, keep=False, done=over)
        self._running.add(job)
        self._driver.submit(job)
        return partial(self._driver.cancel, job)

    async def end_session(self, session: str) -> None:
        """Drop a session and its fork, after its current request if any; idempotent."""
        held = self._sessions.get(session)
        if held is None:
            return
        async with held.lock:
            if self._sessions.get(session) is held:  # else another ended it, and its name is in use again
                del self._sessions[session]
            fork, held.fork = held.fork, None
            self._residents.leave(held)
            if fork is not None:
                fork.close()

    async def release_session(self, name: str) -> dict[str, Any] | None:
        """Release a session to another process, after its current request if any.

        Returns:
            The session as plain data for `adopt_session`; None, and nothing changes, if there is no such
            session, it has files open, or it is too large.
        """
        held = self._sessions.get(name)
        if held is None:
            return None
        with trio.CancelScope(shield=True):
            async with held.lock:
                if self._sessions.get(name) is held and held.fork is not None:
                    with suppress(ImageError):
                        await trio.to_thread.run_sync(held.fork.hibernate)
                    if held.fork.hibernated_bytes is not None and held.fork.hibernated_bytes <= EXPORT_BYTES:
                        del self._sessions[name]
                        self._residents.leave(held)
                        fork, held.fork = held.fork, None
                        return fork.release()
        return None

    async def adopt_session(self, name: str, plain: Mapping[str, Any]) -> None:
        """Adopt a session that another process released.

        Raises:
            CapacityError: Its scratch directory or its image is not available.
            ProtocolError: A session of that name exists.
        """
        if name in self._sessions:
            raise ProtocolError(f"there is a session {name!r} already")
        if (full := self._residents.refusal()) is not None:
            raise CapacityError(full, "sessions")
        try:
            image = await trio.to_thread.run_sync(self._images.get, plain["image"])
            fork = Fork.adopt(image, plain, self._scratch.take)
        except (ImageError, OSError) as error:
            raise CapacityError(f"the session {name!r} cannot be taken over: {error}") from error
        self._keep(name, fork)

    @property
    def capacity(self) -> int:
        """Number of sessions there is room for, if none has much data of its own."""
        return self._residents.capacity.sessions

    @property
    def stalled_s(self) -> float:
        """Seconds for which a guest has been holding its thread in one slice."""
        return self._driver.stalled_s

    async def fork_session(self, session: str, new: str, limits: Limits | None = None) -> bool:
        """Copy a session's state into a new session; see `Host`.

        Args:
            session: The session to copy.
            new: Name of the new session.
            limits: Bounds of the new session's fork; None for those of the original.
        """
        async with self.kept(session) as fork:
            if fork is None:
                return False
            if (full := self._residents.refusal()) is not None:
                raise CopyRefused(f"there is no room for another sandbox: {full}")
            with trio.CancelScope(shield=True):
                made = await trio.to_thread.run_sync(_copied, fork, limits)
            if self._closed:
                made.close()
                raise EngineClosed("the engine is closed")
            self._keep(new, made)
        await self._hibernate_idle()
        return True

    async def freeze_session(
        self, request: GuestRequest, *, name: str, replace: bool, version: str | None
    ) -> str:
        """Freeze a session into an image; see `Host`."""
        from evocell.guests.freeze import freeze_copy  # noqa: PLC0415 - a worker starts without

        return await freeze_copy(
            self, self._images.cache, request, name=name, replace=replace, version=version
        )

    async def export_session(self, session: str) -> dict[str, Any] | None:
        """Export a session's state; see `Host`."""
        from evocell.guests.session_data import export_data  # noqa: PLC0415 - a worker starts without

        state: dict[str, Any] | None = None
        async with self.kept(session) as fork:
            if fork is not None:
                state = await _to_its_end(partial(export_data, fork))
        return state

    async def import_session(self, session: str, state: Mapping[str, Any]) -> None:
        """Create a session from exported state; see `Host`."""
        if session in self._sessions:
            raise CopyRefused(f"there is a session {session!r} already")
        from evocell.guests.session_data import import_data  # noqa: PLC0415 - a worker starts without

        fork = await _to_its_end(partial(import_data, self._images, state, self._scratch.make))
        if self._closed:
            fork.close()
            raise EngineClosed("the engine is closed")
        self._keep(session, fork)

    async def export_image(self, image: str | None, path: Path) -> str:
        """Write an image to a file; see `Host`."""
        from evocell.guests.image_files import export_image  # noqa: PLC0415 - a worker starts without

        return await _to_its_end(partial(export_image, self._images, image, path))

    async def import_image(self, path: Path, *, name: str | None, replace: bool) -> str:
        """Make an image from a file; see `Host`."""
        from evocell.guests.image_files import import_image  # noqa: PLC0415 - a worker starts without

        return await _to_its_end(partial(import_image, self._images, path, name=name, replace=replace))

    @asynccontextmanager
    async def kept(self, session: str) -> AsyncIterator[Fork | None]:
        """Hold a session's fork, resident or hibernated, for work other than a request; None if missing."""
        held = self._sessions.get(session)
        if held is None:
            yield None
            return
        async with held.lock:
            yield held.fork if self._sessions.get(session) is held else None

    def _keep(self, session: str, fork: Fork) -> None:
        """Create a session from a fork that already holds state."""
        held = self._sessions[session] = _Session(fork=fork)
        self._note(held, fork)

    def _note(self, session: _Session, fork: Fork) -> None:
        """Account for an idle session: resident, pinned by open files, or hibernated."""
        if fork.hibernated_bytes is None:
            self._residents.rest(session, weight(fork.instance.open_files))
        else:
            self._residents.sleep(session, fork.hibernated_bytes)

    @property
    def _most_awake(self) -> int:
        """Most sessions kept resident."""
        return min(self._residents.capacity.awake, AWAKE_SESSIONS)

    def session_home(self, session: str) -> str | None:
        """Return the name of the process that holds a session; None if none does."""
        return HERE if session in self._sessions else None

    def workers(self) -> list[WorkerInfo]:
        """Return the state of this process."""
        return [
            WorkerInfo(
                name=HERE,
                pid=os.getpid(),
                status="up",
                sessions=len(self._sessions),
                calls=len(self._running),
                finished=self._finished,
                capacity=self.capacity,
            )
        ]

    async def drain(self, name: str) -> None:
        """Refuse: there is no other process.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            f"{name!r} cannot be drained: with workers=0 there are no worker processes", "name"
        )

    async def wait_session_losses(self, seen: int) -> int:  # noqa: ARG002 - as the protocol has it
        """Wait until sessions have been lost more than `seen` times: never, they are in this process."""
        await trio.sleep_forever()

    async def aclose(self) -> None:
        """Kill every request, drop every fork, end the threads; idempotent."""
        self._closed = True
        with trio.CancelScope(shield=True):
            for job in list(self._running):
                self._driver.cancel(job)
            await self._driver.aclose()
            self._watch.close()
            for session in self._sessions.values():
                if session.fork is not None:
                    session.fork.close()
            self._sessions.clear()
            self._residents = IdleSessions(self._residents.capacity)
            self._scratch.close()
            self._images.close()

    def _fresh(self, request: GuestRequest) -> Callable[[], Fork]:
        return partial(
            _fork,
            self._images,
            request.image,
            app=request.app,
            harness=request.harness,
            limits=request.limits,
            make_scratch=self._scratch.make,
        )

    async def _run_in(self, session: _Session, request: GuestRequest) -> GuestResult:
        """Run in a session whose lock is held; its fork is kept if it is usable afterwards."""
        held, session.fork = session.fork, None
        self._residents.leave(session)
        make, body = self._fresh(request), request.body
        if held is not None:
            make = partial(held.with_app, request.app)
            body = request.body if request.body_again is None else request.body_again
        try:
            done = await self._drive(make, body, request, keep=True)
            # A fork that could not be woken for lack of room is kept hibernated.
            session.fork = done.fork if done.unforked is None else held
            if self._closed and session.fork is not None:  # nothing else will close it
                session.fork.close()
                session.fork = None
            if session.fork is not None:
                self._note(session, session.fork)
        finally:
            # A request that never began (cancelled, or the engine closed) leaves the kept fork unused.
            if held is not None and held is not session.fork:
                held.close()
        return evolve(_guest_result(done), loaded=held is None)

    async def _hibernate_idle(self) -> None:
        """Hibernate idle sessions until the resident ones are within bounds."""
        tried: set[_Session] = set()
        while True:
            surplus = self._residents.surplus(self._most_awake)
            session = next((one for one in surplus if one not in tried and not one.lock.locked()), None)
            if session is None:
                return
            tried.add(session)
            with trio.CancelScope(shield=True):
                async with session.lock:
                    fork = session.fork
                    if fork is None:
                        continue
                    try:
                        await trio.to_thread.run_sync(fork.hibernate)
                    except ImageError:  # it has files open
                        self._residents.stay(session)
                    else:
                        self._note(session, fork)

    def _job(
        self,
        make_fork: Callable[[], Fork],
        body: bytes,
        request: GuestRequest,
        *,
        keep: bool,
        done: Callable[[], None],
    ) -> GuestJob:
        return GuestJob(
            make_fork,
            body,
            request.limits,
            seed=request.seed,
            realtime=self._realtime,
            keep=keep,
            done=done,
            watch=self._watch,
            child_parts=request.child_parts,
        )

    async def _drive(
        self, make_fork: Callable[[], Fork], body: bytes, request: GuestRequest, *, keep: bool
    ) -> GuestJob:
        """Have the scheduler run a job, and wait for it; a cancelled wait kills the job first."""
        if self._closed:
            msg = "the engine is closed"
            raise EngineClosed(msg)
        over = trio.Event()
        done: Callable[[], None] = over.set
        if not self._driver.on_loop:
            done = partial(_tell_loop, trio.lowlevel.current_trio_token(), over)
        job = self._job(make_fork, body, request, keep=keep, done=done)
        self._running.add(job)
        self._driver.submit(job)
        try:
            await over.wait()
        except BaseException:
            self._driver.cancel(job)
            with trio.CancelScope(shield=True):
                await over.wait()
            if job.fork is not None:
                job.fork.close()
            raise
        finally:
            self._running.discard(job)
        self._finished += 1
        return job


def _tell_loop(token: trio.lowlevel.TrioToken, over: trio.Event) -> None:
    """Set an event from another thread."""
    with suppress(trio.RunFinishedError):  # the loop has ended, so no task waits
        token.run_sync_soon(over.set)


def _fork(images: LoadedImages, image_id: str | None, **details: Any) -> Fork:
    """Fork an image that the caller has had loaded; it is loaded again if it was dropped meanwhile."""
    return Fork(images.get(image_id), **details)


async def _to_its_end(work: Callable[[], T]) -> T:
    """Run a function in a thread to completion, whatever is cancelled."""
    done: list[T] = []
    with trio.CancelScope(shield=True):
        done.append(await trio.to_thread.run_sync(work))
    return done[0]


def _copied(fork: Fork, limits: Limits | None) -> Fork:
    try:
        return fork.copy(limits)
    except (ImageError, OSError) as e:
        raise CopyRefused(str(e)) from e


def _guest_result(job: GuestJob) -> GuestResult:
    """Return a job's result as plain data.

    Raises:
        EngineClosed: The job was cancelled because the host was closed.
    """
    if job.result is not None:
        return GuestResult(result=job.result, timed_out=job.timed_out, session_alive=job.fork is not None)
    if job.unforked is not None:
        return GuestResult(unforked=str(job.unforked))
    if job.undelivered is not None:
        return GuestResult(undelivered="memory" if isinstance(job.undelivered, MemoryError) else "ruined")
    msg = "the engine was closed during this call"
    raise EngineClosed(msg)
