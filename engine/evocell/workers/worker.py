"""Worker on top of any host: turns jobs into requests and results into outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import trio
from attrs import evolve

from evocell.code.compiler import (
    COMPILE_FUEL,
    CompiledVersion,
    compile_fuel,
    compile_request,
    compile_trees_request,
    read_compile_response,
    read_compile_trees_response,
)
from evocell.code.snapshots import SnapshotStore, VersionSnapshot, is_small, put_tree
from evocell.code.sources import FileTree
from evocell.concurrency import both, in_thread_if_large
from evocell.errors import (
    CapacityError,
    ConfigurationError,
    ImageError,
    ProtocolError,
    StoreError,
    WorkerDied,
)
from evocell.execution.follow_ups import FollowUp, FollowUpRequest
from evocell.execution.interface import CallJob, CallReport, CompileJob, FollowUpJob, FreezeJob, TogetherJob
from evocell.execution.messages import GuestRequest, GuestResult, Host
from evocell.guests.images import ImageCatalogue, describe_image
from evocell.models.info import ImageInfo
from evocell.models.limits import Bounds, Limits
from evocell.models.outcome import GuestCrashed, LimitExceeded, Outcome, Rejected, WorkerLost
from evocell.wire.values import decode_hostile
from evocell.workers.outcomes import classify
from evocell.workers.requests import call_request, child_parts, follow_up_splice, in_pieces
from evocell.workers.together import read_together, together_request
from evocell_guest.values import encode
from evocell_runtime.derive import APP_DIRECTORY
from evocell_runtime.untrusted import GuestBytes

COMPILE_LIMITS = Limits(
    fuel=COMPILE_FUEL, memory_bytes=512 << 20, timeout_s=60.0, payload_bytes=256 << 20, payload_depth=16
)
"""Budget of trusted work on code; compiling little code gets less fuel."""

_BOUNDS = COMPILE_LIMITS.payload_bounds

_TREES_IN_A_ROW = 8
"""Trees that are handled without giving way to other tasks: some 0.5 ms of work."""

_INFO: Bounds = {"max_bytes": 256 << 20, "max_items": 10_000, "max_depth": 8}
"""Bounds of an image's answer about itself."""


class HostWorker:
    """Compiles and calls guest code on a host; implements `evocell.execution.interface.Worker`.

    Args:
        host: The host of the guests.
        images: The images that guests are forked from.
        snapshots: Store of version trees.
        realtime: Whether guests see the real clock and real entropy.

    Attributes:
        host: The host of the guests.
        images: The images that guests are forked from.
        realtime: Whether guests see the real clock and real entropy.
    """

    def __init__(
        self, host: Host, images: ImageCatalogue, snapshots: SnapshotStore, *, realtime: bool
    ) -> None:
        self.host = host
        self.images = images
        self.realtime = realtime
        self._snapshots = snapshots

    @cached_property
    def image_id(self) -> str:
        """Content hash of the engine's own image."""
        return self.images.own.image_id

    def image_digest(self, image: str | None) -> str:
        """Return the hash of an image's initial memory and guest state; None for the engine's own.

        Raises:
            ImageError: The image is not in the cache any more.
        """
        return self.images.manifest(image).snapshot_sha256

    async def compile(self, job: CompileJob) -> CompiledVersion | Rejected:
        """Compile a tree in a fork that does not run it.

        Raises:
            CapacityError: There is no room for another fork.
            EngineClosed: The worker is closed.
        """
        limits = _compile_limits(compile_fuel(job.tree))
        question = compile_request(job.tree, job.root, job.policy, job.known, job.prefix)
        small = is_small(job.tree)
        follow_up = self._follow_up(job) if small else None
        request = GuestRequest(
            parts=in_pieces(question),
            limits=limits,
            follow_up=follow_up,
            sent=partial(self._place, job.tree, follow_up) if small else bool,
        )
        # Stored while it is compiled: a worker that is asked late is idle meanwhile.
        if small:
            seen, snapshot = await self._run(request), self._snapshots.put(job.tree)
        else:
            seen, snapshot = await both(
                partial(self._run, request), partial(put_tree, self._snapshots, job.tree)
            )
        if seen.lost is not None:
            raise WorkerDied(f"the code could not be compiled: {seen.lost}, again and again")
        return await in_thread_if_large(_answer_bytes(seen), self._compiled, seen, snapshot, job, limits)

    def _place(self, tree: FileTree, follow_up: FollowUp | None) -> None:
        """Store a tree, and send the call behind its compilation."""
        with suppress(StoreError):  # raised by the next try, when it is compiled
            self._snapshots.put(tree)
            if follow_up is not None:
                follow_up.tree_placed()

    def _follow_up(self, compiling: CompileJob) -> FollowUp | None:
        """Take a call over that may be made behind a compilation; None if none can be."""
        job = compiling.follow_up
        if job is None or job.follow_up is not None or compiling.known or compiling.prefix:
            return None
        if len(compiling.tree.python_files) != 1:
            return None
        job.follow_up = FollowUp(partial(self._follow_up_request, job, compiling), job.sandbox_id)
        return job.follow_up

    def _follow_up_request(self, job: FollowUpJob, compiling: CompileJob) -> FollowUpRequest | None:
        splice = follow_up_splice(job, compiling)
        if splice is None:
            return None
        ((path, _),) = compiling.tree.python_files
        request = _call_of(job, splice.after, self._snapshots.path_of(compiling.tree.digest))
        return FollowUpRequest(path, splice, request)

    async def compile_together(self, jobs: Sequence[CompileJob]) -> list[CompiledVersion | Rejected]:
        """Compile several trees in one fork that does not run them; see `Worker`.

        Raises:
            CapacityError: There is no room for another fork.
            EngineClosed: The worker is closed.
        """
        if self.realtime:
            return [await self.compile(job) for job in jobs]
        first, trees = jobs[0], [job.tree for job in jobs]
        limits = COMPILE_LIMITS.evolve(fuel=sum(compile_fuel(tree) for tree in trees))
        question = compile_trees_request(trees, first.root, first.policy, first.prefix)
        request = GuestRequest(parts=in_pieces(question), limits=limits)
        seen, snapshots = await both(partial(self._run, request), partial(self._put, trees))
        answers: Sequence[tuple[object, int]] = ()
        if seen.answer is not None:
            with suppress(ProtocolError):
                answers = await in_thread_if_large(len(seen.answer), _answers, seen.answer, len(jobs))
        made: list[CompiledVersion | Rejected] = []
        for number, (job, snapshot) in enumerate(zip(jobs, snapshots, strict=True)):
            found = _compiled_beside_others(*answers[number], snapshot, job) if answers else None
            made.append(await self.compile(job) if found is None else found)
            await _give_way(number)
        return made

    async def _put(self, trees: Sequence[FileTree]) -> list[VersionSnapshot]:
        snapshots: list[VersionSnapshot] = []
        for number, tree in enumerate(trees):
            snapshots.append(await put_tree(self._snapshots, tree))
            await _give_way(number)
        return snapshots

    async def inspect(self, request: Mapping[str, object]) -> Mapping[object, object] | Outcome:
        """Analyse code in a fork that runs no untrusted code; see `Worker`.

        Raises:
            CapacityError: There is no room for another fork.
            EngineClosed: The worker is closed.
        """
        seen = await self._ask(request, COMPILE_LIMITS)
        if seen.answer is None:
            return self._outcome(seen, COMPILE_LIMITS, None)
        try:
            answer = await in_thread_if_large(len(seen.answer), _read, seen.answer)
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
        request = _call_of(
            job,
            call_request(job, load=True),
            job.code.path,
            session=job.session,
            parts_again=None if job.session is None or job.reload else call_request(job, load=False),
            child_parts=child_parts(job) if job.limits.processes else None,
            image=job.image,
            passing=job.passing,
        )
        begun = None if job.follow_up is None else job.follow_up.follow_up
        seen = None if begun is None else await begun.result_of(request)
        if seen is None or seen.lost is not None:
            # Where it killed its worker, it must not be among others when it is made again.
            seen = await self._run(request if seen is None else evolve(request, lost=seen.lost))
        size = _answer_bytes(seen)
        return CallReport(
            outcome=await in_thread_if_large(size, self._outcome, seen, job.limits, job.image),
            answer_bytes=size,
            session_alive=seen.session_alive,
            session_fresh=job.session is not None and seen.loaded,
            lost=seen.lost is not None,
        )

    async def call_together(self, job: TogetherJob) -> list[Sequence[Outcome] | None] | None:
        """Run several variants in one fork; see `Worker`.

        Raises:
            CapacityError: There is no room for another fork.
            EngineClosed: The worker is closed.

        Cancellation: The fork is discarded within a slice, before `Cancelled` leaves here.
        """
        seen = await self._run(
            GuestRequest(
                parts=together_request(job),
                limits=job.limits,
                image=job.image,
                harness=None if job.harness is None else job.harness.path,
            )
        )
        image_bytes = self.images.manifest(job.image).memory_bytes
        return await in_thread_if_large(_answer_bytes(seen), read_together, seen, job, image_bytes)

    def find_image(self, wanted: str) -> ImageInfo | None:
        """Find an image by its name or id."""
        return self.images.find(wanted)

    def list_images(self) -> list[ImageInfo]:
        """List the images there are, the newest first."""
        return self.images.known()

    def resident_code(self, image: ImageInfo) -> CompiledVersion | None:
        """Return the code loaded in an image; None if there is none."""
        if image.version is None:
            return None
        path = self.images.cache.image_dir(image.id) / APP_DIRECTORY
        return CompiledVersion(image.version, path, b"")

    async def freeze_session(self, job: FreezeJob) -> ImageInfo:
        """Freeze a session into an image; see `Worker`."""
        code = job.code.code if job.code is not None and job.code.code else None
        request = GuestRequest(
            session=job.session,
            parts=(encode({"op": "settle", "code": code}),),
            parts_again=(encode({"op": "settle", "code": None}),),
            limits=job.limits,
            image=job.image,
            app=None if job.code is None else job.code.path,
        )
        version = None if job.code is None else job.code.digest
        image_id = await self.host.freeze_session(
            request, name=job.name, replace=job.replace, version=version
        )
        return describe_image(self.images.manifest(image_id), job.name)

    async def export_image(self, image: ImageInfo, path: Path) -> None:
        """Write an image to a new file; see `Worker`."""
        await self.host.export_image(image.id, path)

    async def import_image(self, path: Path, *, name: str | None, replace: bool) -> ImageInfo:
        """Make an image from a file; see `Worker`."""
        image_id = await self.host.import_image(path, name=name, replace=replace)
        return describe_image(self.images.manifest(image_id), name)

    async def info(self) -> dict[str, object]:
        """Ask the image's interpreter for its version, packages and warm modules.

        Raises:
            ImageError: The image does not answer.
        """
        seen = await self._ask({"op": "info"}, COMPILE_LIMITS)
        if seen.answer is None:
            msg = f"the image {self.image_id} does not answer; run: evocell image verify"
            raise ImageError(msg)
        answer = decode_hostile(seen.answer, **_INFO)
        return {k: v for k, v in answer.items() if isinstance(k, str)} if isinstance(answer, Mapping) else {}

    async def aclose(self) -> None:
        """Kill every call and drop every fork; idempotent."""
        await self.host.aclose()

    async def _ask(self, question: Mapping[str, object], limits: Limits) -> GuestResult:
        """Ask the agent of a dedicated fork, which runs no untrusted code."""
        data = encode(question, **_BOUNDS)
        return await self._run(GuestRequest(parts=(data,), limits=limits))

    async def _run(self, request: GuestRequest) -> GuestResult:
        seen = await self.host.run(request)
        if seen.unforked is not None:
            msg = f"there is no room for another sandbox: {seen.unforked}; close some, or see: evocell doctor"
            raise CapacityError(msg, "forks" if request.session is None else "sessions")
        if seen.no_image is not None:
            raise ImageError(f"{seen.no_image}; see: evocell image list")
        return seen

    def _outcome(self, seen: GuestResult, limits: Limits, image: str | None) -> Outcome:
        if seen.result is not None:
            return classify(
                seen.result,
                limits,
                self.images.manifest(image).memory_bytes,
                timed_out=seen.timed_out,
                deterministic=not self.realtime,
            )
        if seen.lost is not None:
            return WorkerLost(reason=seen.lost, deterministic=False)
        if seen.undelivered == "memory":
            return LimitExceeded(
                kind="memory", limit=limits.memory_bytes, message="the guest has no room for the arguments"
            )
        return GuestCrashed(reason="its memory was left unusable by an earlier call")

    def _compiled(
        self, seen: GuestResult, snapshot: VersionSnapshot, job: CompileJob, limits: Limits
    ) -> CompiledVersion | Rejected:
        if seen.answer is not None:
            try:
                return read_compile_response(
                    _read(seen.answer), snapshot, job.tree, job.root, job.known, policy=job.policy
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


def _call_of(job: CallJob | FollowUpJob, parts: tuple[bytes, ...], app: Path, **more: Any) -> GuestRequest:
    """Make the request of a call; that of one behind its compilation has to be the same."""
    return GuestRequest(
        parts=parts,
        limits=job.limits,
        seed=job.seed,
        app=app,
        harness=None if job.harness is None else job.harness.path,
        sandbox_id=job.sandbox_id,
        **more,
    )


@lru_cache(maxsize=1024)
def _compile_limits(fuel: int) -> Limits:
    return COMPILE_LIMITS.evolve(fuel=fuel)


async def _give_way(number: int) -> None:
    """Let other tasks run after some of many trees: calls that have ended are followed by others."""
    if number % _TREES_IN_A_ROW == _TREES_IN_A_ROW - 1:
        await trio.lowlevel.checkpoint()


def _answers(response: GuestBytes, count: int) -> list[tuple[object, int]]:
    """Decode a guest's answer about several trees; see `read_compile_trees_response`."""
    return read_compile_trees_response(_read(response), count)


def _compiled_beside_others(
    answer: object, fuel: int, snapshot: VersionSnapshot, job: CompileJob
) -> CompiledVersion | Rejected | None:
    """Return a tree's result; None where another tree, or the shared limits, may have affected it."""
    found: CompiledVersion | Rejected | None = None
    with suppress(ProtocolError):
        found = read_compile_response(answer, snapshot, job.tree, job.root, policy=job.policy)
    unsure = isinstance(found, Rejected) and found.kind == "compile"
    return None if unsure or fuel > compile_fuel(job.tree) // 2 else found


def _read(response: GuestBytes) -> object:
    return decode_hostile(response, **_BOUNDS)


def _answer_bytes(seen: GuestResult) -> int:
    """Return the length of a call's answer in bytes."""
    return 0 if seen.result is None or seen.result.response is None else len(seen.result.response)
