"""The worker that runs guests in the calling process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio
from attrs import define, field

from evocell.code.compiler import CompiledVersion, compile_request, read_compile_response
from evocell.code.snapshots import SnapshotStore, VersionSnapshot
from evocell.config import Config
from evocell.errors import CapacityError, ConfigurationError, EngineClosed, ImageError, ProtocolError
from evocell.execution.classify import classify
from evocell.execution.driver import Driver
from evocell.execution.guest_job import Fork, GuestJob
from evocell.execution.worker import CallJob, CallReport, CompileJob, Worker
from evocell.models.limits import Limits
from evocell.models.outcome import GuestCrashed, LimitExceeded, Outcome, Rejected
from evocell.wire.values import decode_hostile
from evocell_guest.values import encode
from evocell_runtime.build import BuildProgress
from evocell_runtime.cache import ImageCache
from evocell_runtime.errors import ImageError as RuntimeImageError
from evocell_runtime.image import Image, open_image
from evocell_runtime.spec import ImageSpec

COMPILE_LIMITS = Limits(
    fuel=20_000_000_000, memory_bytes=512 << 20, timeout_s=60.0, payload_bytes=256 << 20, payload_depth=16
)
"""The budget of a compilation, apart from what the variant itself may use."""

_INFO_ITEMS = 10_000
_SLOTS_PER_THREAD = 2


@define
class _Session:
    """A fork that keeps its state, and the lock that lets one call in at a time."""

    lock: trio.Lock = field(factory=trio.Lock)
    fork: Fork | None = None


class LocalWorker:
    """Runs guests in threads of this process.

    Args:
        image: What is forked.
        snapshots: Where version trees lie.
        threads: Threads that drive guests.
        realtime: Whether guests see the real clock and real entropy.
    """

    def __init__(self, image: Image, snapshots: SnapshotStore, *, threads: int, realtime: bool) -> None:
        self._image = image
        self._snapshots = snapshots
        self._realtime = realtime
        self._driver = Driver(threads)
        self._sessions: dict[str, _Session] = {}
        self._running: set[GuestJob] = set()
        self._closed = False
        self.slots = threads * _SLOTS_PER_THREAD

    @property
    def image_id(self) -> str:
        """Content hash of the image that every fork starts from."""
        return self._image.image_id

    # ------------------------------------------------------------------ the interface

    async def compile(self, job: CompileJob) -> CompiledVersion | Rejected:
        """Compile a tree in a fork that runs none of it.

        Raises:
            CapacityError: There is no room for another fork.
            EngineClosed: The worker is closed.
        """
        snapshot = self._snapshots.put(job.tree)
        request = encode(
            compile_request(job.tree, job.root, job.blocked),
            max_bytes=COMPILE_LIMITS.payload_bytes,
            max_items=COMPILE_LIMITS.payload_items,
            max_depth=COMPILE_LIMITS.payload_depth,
        )
        done = await self._run(self._fresh(None, None, COMPILE_LIMITS), request, COMPILE_LIMITS)
        return self._compiled(done, snapshot)

    async def call(self, job: CallJob) -> CallReport:
        """Run one call to its end or to a limit.

        Raises:
            ConfigurationError: The encoded arguments are larger than the limits allow.
            CapacityError: There is no room for another fork.
            EngineClosed: The worker is closed.

        Cancellation: The fork is discarded within a slice, before `Cancelled` leaves here.
        """
        if len(job.payload) > job.limits.payload_bytes:
            msg = (
                f"the arguments take {len(job.payload):,} bytes encoded and the limit is "
                f"{job.limits.payload_bytes:,}; raise Limits.payload_bytes or pass less"
            )
            raise ConfigurationError(msg, "limits.payload_bytes")
        if job.session is None:
            fork = self._fresh(job.code, job.harness, job.limits)
            done = await self._run(fork, _request(job, load=True), job.limits, seed=job.seed)
            return CallReport(outcome=self._outcome(done, job.limits))
        while True:
            session = self._sessions.setdefault(job.session, _Session())
            async with session.lock:
                if self._sessions.get(job.session) is session:  # else it was ended while this call waited
                    return await self._call_in(session, job)

    async def end_session(self, session: str) -> None:
        """Drop a session and its fork, after the call in it if there is one; idempotent."""
        held = self._sessions.get(session)
        if held is None:
            return
        async with held.lock:
            if self._sessions.get(session) is held:  # else another ended it, and this is a later one's name
                del self._sessions[session]
            fork, held.fork = held.fork, None
            if fork is not None:
                fork.close()

    async def info(self) -> dict[str, object]:
        """Ask the image's interpreter for its version, packages and warm modules."""
        request = encode({"op": "info"}, max_bytes=1024, max_items=16, max_depth=4)
        done = await self._run(self._fresh(None, None, COMPILE_LIMITS), request, COMPILE_LIMITS)
        if done.result is None or done.result.response is None:
            msg = f"the image {self.image_id} does not answer; run: evocell image verify"
            raise ImageError(msg)
        answer = decode_hostile(
            done.result.response, max_bytes=COMPILE_LIMITS.payload_bytes, max_items=_INFO_ITEMS, max_depth=8
        )
        return {str(k): v for k, v in answer.items()} if isinstance(answer, Mapping) else {}

    async def aclose(self) -> None:
        """Kill every call, drop every fork, end the threads; idempotent."""
        self._closed = True
        with trio.CancelScope(shield=True):
            for job in list(self._running):
                self._driver.cancel(job)
            await trio.to_thread.run_sync(self._driver.close)
            for session in self._sessions.values():
                if session.fork is not None:
                    session.fork.close()
            self._sessions.clear()

    # ------------------------------------------------------------------ inside

    async def _call_in(self, session: _Session, job: CallJob) -> CallReport:
        """Run a call in a session whose lock is held; its fork is kept if it is sound afterwards."""
        held, session.fork = session.fork, None
        make = self._fresh(job.code, job.harness, job.limits) if held is None else partial(_same, held)
        request = _request(job, load=held is None or job.reload)
        try:
            done = await self._run(make, request, job.limits, seed=job.seed, keep=True)
            session.fork = done.fork
            if self._closed and done.fork is not None:  # nobody else will
                done.fork.close()
                session.fork = None
        finally:
            # A call that never began (cancelled, or the engine closed) leaves the kept fork unused.
            if held is not None and held is not session.fork:
                held.close()
        return CallReport(outcome=self._outcome(done, job.limits), session_alive=session.fork is not None)

    def _fresh(
        self, code: CompiledVersion | None, harness: CompiledVersion | None, limits: Limits
    ) -> Callable[[], Fork]:
        app = None if code is None else code.path
        beside = None if harness is None else harness.path
        return lambda: Fork(self._image, app=app, harness=beside, limits=limits)

    async def _run(
        self,
        make_fork: Callable[[], Fork],
        request: bytes,
        limits: Limits,
        *,
        seed: int = 0,
        keep: bool = False,
    ) -> GuestJob:
        """Have the driver run a job, and wait for it; a cancelled wait kills the job first."""
        if self._closed:
            msg = "the engine is closed"
            raise EngineClosed(msg)
        over = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def done() -> None:
            with suppress(trio.RunFinishedError):  # then nobody is left to wait
                token.run_sync_soon(over.set)

        job = GuestJob(make_fork, request, limits, seed=seed, realtime=self._realtime, keep=keep, done=done)
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
        if job.unforked is not None:
            msg = f"there is no room for another sandbox: {job.unforked}; close some, or see: evocell doctor"
            raise CapacityError(msg) from job.unforked
        return job

    def _outcome(self, done: GuestJob, limits: Limits) -> Outcome:
        if done.result is not None:
            return classify(
                done.result,
                limits,
                self._image.memory_bytes,
                timed_out=done.timed_out,
                deterministic=not self._realtime,
            )
        if isinstance(done.undelivered, MemoryError):
            return LimitExceeded(
                kind="memory", limit=limits.memory_bytes, message="the guest has no room for the arguments"
            )
        if done.undelivered is not None:
            return GuestCrashed(reason="its memory was left unusable by an earlier call")
        msg = "the engine was closed while the call ran"
        raise EngineClosed(msg)

    def _compiled(self, done: GuestJob, snapshot: VersionSnapshot) -> CompiledVersion | Rejected:
        result = done.result
        if result is not None and result.returned and not done.timed_out and result.response is not None:
            try:
                answer = decode_hostile(
                    result.response,
                    max_bytes=COMPILE_LIMITS.payload_bytes,
                    max_items=COMPILE_LIMITS.payload_items,
                    max_depth=COMPILE_LIMITS.payload_depth,
                )
                return read_compile_response(answer, snapshot)
            except ProtocolError as e:
                return Rejected(kind="compile", message=f"the compiler's answer cannot be read: {e}")
        outcome = self._outcome(done, COMPILE_LIMITS)
        return Rejected(kind="compile", message=f"the compilation did not end well: {outcome.error}")


def _same(fork: Fork) -> Fork:
    return fork


def _request(job: CallJob, *, load: bool) -> bytes:
    limits = job.limits
    return encode(
        {
            "op": "call",
            "code": job.code.code if load else None,
            "harness": job.harness.code if load and job.harness is not None else None,
            "entry": job.entry,
            "args": job.payload,
            "seed": job.seed,
            "payload_bytes": limits.payload_bytes,
            "payload_items": limits.payload_items,
            "payload_depth": limits.payload_depth,
        },
        max_bytes=1 << 30,
        max_items=64,
        max_depth=4,
    )


@asynccontextmanager
async def open_local_worker(
    config: Config,
    snapshots: SnapshotStore,
    *,
    progress: Callable[[BuildProgress], None] | None = None,
) -> AsyncIterator[Worker]:
    """Open the worker, building its image first if there is none yet.

    Args:
        config: The engine's configuration.
        snapshots: Where version trees are kept, to be mounted.
        progress: Called in a thread with the steps of an image build.

    Raises:
        ImageError: The image could not be found, built or trusted.

    Cancellation: A build is killed; what it left is swept up by the next.
    """

    def report(step: BuildProgress) -> None:
        trio.from_thread.check_cancelled()
        if progress is not None:
            progress(step)

    spec = ImageSpec(warm=config.warm, layers=config.layers)
    try:
        image = await trio.to_thread.run_sync(open_image, spec, ImageCache(config.cache_path()), report)
    except RuntimeImageError as e:
        raise ImageError(str(e)) from e
    worker = LocalWorker(
        image, snapshots, threads=config.thread_count(), realtime=config.profile == "realtime"
    )
    try:
        yield worker
    finally:
        await worker.aclose()
