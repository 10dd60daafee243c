"""The worker as orchestration sees it, over any host: jobs become runs, sightings become outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import asdict

from evocell.code.compiler import (
    COMPILE_FUEL,
    CompiledVersion,
    compile_fuel,
    compile_request,
    read_compile_response,
)
from evocell.code.snapshots import SnapshotStore, VersionSnapshot
from evocell.errors import CapacityError, ConfigurationError, ImageError, ProtocolError, WorkerDied
from evocell.execution.aside import aside
from evocell.execution.classify import classify
from evocell.execution.images import ImageCatalogue, describe_image
from evocell.execution.requests import call_request
from evocell.execution.run import Host, Run, Sighting
from evocell.execution.storing import put_tree
from evocell.execution.worker import CallJob, CallReport, CompileJob, FreezeJob, SessionCopy
from evocell.models.images import ImageInfo
from evocell.models.limits import Limits
from evocell.models.outcome import GuestCrashed, LimitExceeded, Outcome, Rejected, WorkerLost
from evocell.models.workers import WorkerInfo, WorkerKill
from evocell.wire.values import decode_hostile
from evocell_guest.values import encode
from evocell_runtime.derive import APP_DIRECTORY
from evocell_runtime.untrusted import GuestBytes

COMPILE_LIMITS = Limits(
    fuel=COMPILE_FUEL, memory_bytes=512 << 20, timeout_s=60.0, payload_bytes=256 << 20, payload_depth=16
)
"""The budget of trusted work on code; a compilation has less fuel if there is little code."""

_INFO_ITEMS = 10_000


class HostWorker:
    """Compiles and calls guest code on a host; implements `evocell.execution.worker.Worker`.

    Args:
        host: Where guests live.
        images: What they are forked from.
        snapshots: Where version trees lie.
        realtime: Whether guests see the real clock and real entropy.
    """

    def __init__(
        self, host: Host, images: ImageCatalogue, snapshots: SnapshotStore, *, realtime: bool
    ) -> None:
        self._host = host
        self._images = images
        self._snapshots = snapshots
        self._realtime = realtime

    @property
    def on_kill(self) -> Callable[[WorkerKill], None] | None:
        """See `Worker`."""
        return self._host.on_kill

    @on_kill.setter
    def on_kill(self, told: Callable[[WorkerKill], None] | None) -> None:
        self._host.on_kill = told

    @property
    def host(self) -> Host:
        """Where its guests live."""
        return self._host

    @property
    def images(self) -> ImageCatalogue:
        """What its guests are forked from."""
        return self._images

    @property
    def realtime(self) -> bool:
        """Whether guests see the real clock and real entropy."""
        return self._realtime

    @property
    def image_id(self) -> str:
        """Content hash of the engine's own image."""
        return self._images.own.image_id

    def image_digest(self, image: str | None) -> str:
        """Hash of the memory and the guest's state that an image starts from; None is the engine's own.

        Raises:
            ImageError: There is no such image any more.
        """
        return self._images.manifest(image).snapshot_sha256

    @property
    def slots(self) -> int:
        """How many calls it can usefully have in flight; more than that wait inside."""
        return self._host.slots

    async def wait_slots(self, seen: int) -> int:
        """Wait until `slots` is another number than `seen`; see `Worker`."""
        return await self._host.wait_slots(seen)

    async def compile(self, job: CompileJob) -> CompiledVersion | Rejected:
        """Compile a tree in a fork that runs none of it.

        Raises:
            CapacityError: There is no room for another fork.
            EngineClosed: The worker is closed.
        """
        snapshot = await put_tree(self._snapshots, job.tree)
        request = encode(
            compile_request(job.tree, job.root, job.policy, job.known, job.prefix),
            max_bytes=COMPILE_LIMITS.payload_bytes,
            max_items=COMPILE_LIMITS.payload_items,
            max_depth=COMPILE_LIMITS.payload_depth,
        )
        limits = COMPILE_LIMITS.evolve(fuel=compile_fuel(job.tree))
        seen = await self._run(Run(parts=(request,), limits=limits))
        if seen.lost is not None:
            raise WorkerDied(f"the code could not be compiled: {seen.lost}, again and again")
        return await aside(_answer_bytes(seen), self._compiled, seen, snapshot, job, limits)

    async def inspect(self, request: Mapping[str, object]) -> Mapping[object, object] | Outcome:
        """Have a fork that runs no variant code look at code; see `Worker`.

        Raises:
            CapacityError: There is no room for another fork.
            EngineClosed: The worker is closed.
        """
        data = encode(
            request,
            max_bytes=COMPILE_LIMITS.payload_bytes,
            max_items=COMPILE_LIMITS.payload_items,
            max_depth=COMPILE_LIMITS.payload_depth,
        )
        seen = await self._run(Run(parts=(data,), limits=COMPILE_LIMITS))
        result = seen.result
        if result is None or not result.returned or seen.timed_out or result.response is None:
            return self._outcome(seen, COMPILE_LIMITS, None)
        try:
            answer = await aside(len(result.response), _read, result.response)
        except ProtocolError as e:
            return GuestCrashed(reason=f"its answer cannot be read: {e}")
        return answer if isinstance(answer, Mapping) else GuestCrashed(reason="its answer is not a map")

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
        seen = await self._run(
            Run(
                session=job.session,
                parts=call_request(job, load=True),
                parts_again=None if job.session is None or job.reload else call_request(job, load=False),
                limits=job.limits,
                seed=job.seed,
                image=job.image,
                app=job.code.path,
                harness=None if job.harness is None else job.harness.path,
                sandbox_id=job.sandbox_id,
                passing=job.passing,
            )
        )
        size = _answer_bytes(seen)
        return CallReport(
            outcome=await aside(size, self._outcome, seen, job.limits, job.image),
            answer_bytes=size,
            session_alive=seen.session_alive,
            session_fresh=job.session is not None and seen.loaded,
            lost=seen.lost is not None,
        )

    async def end_session(self, session: str) -> None:
        """Drop a session and its fork, after the call in it if there is one; idempotent."""
        await self._host.end_session(session)

    def session_home(self, session: str) -> str | None:
        """Name of the process that holds a session; None if none does."""
        return self._host.session_home(session)

    def workers(self) -> list[WorkerInfo]:
        """What is seen of each process that runs guests."""
        return self._host.workers()

    async def drain(self, name: str) -> None:
        """Replace a process by another; see `Worker`."""
        await self._host.drain(name)

    async def wait_session_losses(self, seen: int) -> int:
        """Wait until sessions have been lost more than `seen` times; see `Worker`."""
        return await self._host.wait_session_losses(seen)

    def find_image(self, wanted: str) -> ImageInfo | None:
        """Find an image by its name or id."""
        return self._images.find(wanted)

    def list_images(self) -> list[ImageInfo]:
        """List the images there are, the newest first."""
        return self._images.known()

    def resident_code(self, image: ImageInfo) -> CompiledVersion | None:
        """Return the code that is loaded in an image; None for one that holds none."""
        if image.version is None:
            return None
        path = self._images.cache.image_dir(image.id) / APP_DIRECTORY
        return CompiledVersion(image.version, path, b"")

    async def fork_session(self, session: str, new: str) -> bool:
        """Copy what a session holds into a new one; see `Worker`."""
        return await self._host.fork_session(session, new)

    async def freeze_session(self, job: FreezeJob) -> ImageInfo:
        """Seal what a session holds as an image; see `Worker`."""
        code = job.code.code if job.code is not None and job.code.code else None
        run = Run(
            session=job.session,
            parts=(encode({"op": "settle", "code": code}),),
            parts_again=(encode({"op": "settle", "code": None}),),
            limits=job.limits,
            image=job.image,
            app=None if job.code is None else job.code.path,
        )
        version = None if job.code is None else job.code.digest
        image_id = await self._host.freeze_session(run, name=job.name, replace=job.replace, version=version)
        return describe_image(self._images.manifest(image_id), job.name)

    async def copy_out(self, session: str) -> SessionCopy | None:
        """Take down what a session holds; see `Worker`."""
        state = await self._host.copy_out(session)
        return None if state is None else SessionCopy(guest=state["guest"], scratch=state["scratch"])

    async def put_in(
        self, session: str, copy: SessionCopy, *, image: str | None, code: CompiledVersion, limits: Limits
    ) -> None:
        """Begin a session with what one elsewhere held; see `Worker`."""
        state = {
            "guest": dict(copy.guest),
            "scratch": copy.scratch,
            "image": image,
            "app": str(code.path),
            "limits": asdict(limits),
        }
        await self._host.put_in(session, state)

    async def export_image(self, image: ImageInfo, path: Path) -> None:
        """Write an image to a new file; see `Worker`."""
        await self._host.export_image(image.id, path)

    async def import_image(self, path: Path, *, name: str | None, replace: bool) -> ImageInfo:
        """Make an image from a file; see `Worker`."""
        image_id = await self._host.import_image(path, name=name, replace=replace)
        return describe_image(self._images.manifest(image_id), name)

    async def info(self) -> dict[str, object]:
        """Ask the image's interpreter for its version, packages and warm modules.

        Raises:
            ImageError: The image does not answer.
        """
        request = encode({"op": "info"}, max_bytes=1024, max_items=16, max_depth=4)
        seen = await self._run(Run(parts=(request,), limits=COMPILE_LIMITS))
        if seen.result is None or seen.result.response is None:
            msg = f"the image {self.image_id} does not answer; run: evocell image verify"
            raise ImageError(msg)
        answer = decode_hostile(
            seen.result.response, max_bytes=COMPILE_LIMITS.payload_bytes, max_items=_INFO_ITEMS, max_depth=8
        )
        return {k: v for k, v in answer.items() if isinstance(k, str)} if isinstance(answer, Mapping) else {}

    async def aclose(self) -> None:
        """Kill every call and drop every fork; idempotent."""
        await self._host.aclose()

    async def _run(self, run: Run) -> Sighting:
        seen = await self._host.run(run)
        if seen.unforked is not None:
            msg = f"there is no room for another sandbox: {seen.unforked}; close some, or see: evocell doctor"
            raise CapacityError(msg, "forks" if run.session is None else "sessions")
        if seen.no_image is not None:
            raise ImageError(f"{seen.no_image}; see: evocell image list")
        return seen

    def _outcome(self, seen: Sighting, limits: Limits, image: str | None) -> Outcome:
        if seen.result is not None:
            return classify(
                seen.result,
                limits,
                self._images.manifest(image).memory_bytes,
                timed_out=seen.timed_out,
                deterministic=not self._realtime,
            )
        if seen.lost is not None:
            return WorkerLost(reason=seen.lost, deterministic=False)
        if seen.undelivered == "memory":
            return LimitExceeded(
                kind="memory", limit=limits.memory_bytes, message="the guest has no room for the arguments"
            )
        return GuestCrashed(reason="its memory was left unusable by an earlier call")

    def _compiled(
        self, seen: Sighting, snapshot: VersionSnapshot, job: CompileJob, limits: Limits
    ) -> CompiledVersion | Rejected:
        result = seen.result
        if result is not None and result.returned and not seen.timed_out and result.response is not None:
            try:
                return read_compile_response(
                    _read(result.response), snapshot, job.tree, job.root, job.known, policy=job.policy
                )
            except ProtocolError as e:
                return Rejected(kind="compile", message=f"the compiler's answer cannot be read: {e}")
        outcome = self._outcome(seen, limits, None)
        return Rejected(
            kind="compile",
            message=f"the compilation did not end well: {outcome.error}",
            fuel_used=outcome.fuel_used,
            wall_s=outcome.wall_s,
            peak_memory_bytes=outcome.peak_memory_bytes,
            deterministic=outcome.deterministic,
        )


def _read(response: GuestBytes) -> object:
    return decode_hostile(
        response,
        max_bytes=COMPILE_LIMITS.payload_bytes,
        max_items=COMPILE_LIMITS.payload_items,
        max_depth=COMPILE_LIMITS.payload_depth,
    )


def _answer_bytes(seen: Sighting) -> int:
    """Length of a call's answer."""
    return 0 if seen.result is None or seen.result.response is None else len(seen.result.response)
