"""Interface of a worker, through which the engine runs guests.

Orchestration uses this interface only. `evocell.workers.worker` implements it over a
host of guests: the one in this process, or a pool of worker processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from attrs import define, field, frozen

from evocell.code.compiler import CompiledUnit, CompiledVersion
from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import FileTree
from evocell.config import Config
from evocell.execution.follow_ups import FollowUp
from evocell.execution.messages import Host
from evocell.models.info import ImageInfo
from evocell.models.limits import Limits
from evocell.models.outcome import Outcome, Rejected
from evocell.models.security import SecurityPolicy

__all__ = [
    "CallJob",
    "CallReport",
    "CompileJob",
    "FollowUpJob",
    "FreezeJob",
    "OpenWorker",
    "TogetherJob",
    "Worker",
]


@define(kw_only=True, eq=False)
class FollowUpJob:
    """The first call of code that is not compiled yet, in a fork that is thrown away; see `Worker.compile`.

    Its owner calls `close` in the end.

    Attributes:
        entry, payload, seed, limits, harness, sandbox_id: As in `CallJob`.
        follow_up: Once a worker has taken it over.
    """

    entry: str
    payload: bytes = field(repr=False)
    seed: int = 0
    limits: Limits
    harness: CompiledVersion | None = None
    sandbox_id: str = ""
    follow_up: FollowUp | None = None

    async def close(self) -> None:
        """Stop the call if it is under way; idempotent."""
        if self.follow_up is not None:
            await self.follow_up.close()


@frozen(kw_only=True)
class CompileJob:
    """Compilation of every Python file of a tree, in a guest fork that runs none of it.

    Attributes:
        tree: The files; the ones that are not Python are left alone.
        root: Where the tree will be mounted: ``/app`` for a variant, ``/harness`` for a harness. It
            becomes part of the file names in tracebacks.
        policy: The security policy; None for trusted code.
        prefix: Prefix of the names of its modules; may be empty.
        known: Files of the tree that are compiled already, by path.
        follow_up: A call that may be made right behind it; see `Worker.compile`.
    """

    tree: FileTree
    root: str = "/app"
    policy: SecurityPolicy | None = None
    prefix: str = ""
    known: Mapping[str, CompiledUnit] = field(factory=dict, repr=False)
    follow_up: FollowUpJob | None = field(default=None, repr=False)


@frozen(kw_only=True)
class CallJob:
    """One call of one function in a fork.

    Attributes:
        session: Name of the fork that keeps its state from call to call, made at its first call;
            `None` for a fork that is thrown away afterwards.
        image: Id of the image to fork; None for the engine's own.
        code: The variant. A session that has it loaded already does not load it again.
        entry: ``"module:qualname"``; empty to load the code and call nothing.
        payload: `evocell_guest.values.encode([list_of_args, dict_of_kwargs])`.
        seed: Reseeds the guest's random sources before the call.
        limits: Bounds of this call.
        harness: Trusted files that are importable beside the variant.
        reload: For a session only: hot-swap `code` before the call.
        sandbox_id: The sandbox whose call it is, for events and the audit log.
        passing: Whether the session serves one evaluation and ends with it; see `GuestRequest.passing`.
        follow_up: The same call, if it may have been begun behind the compilation of its code.
    """

    session: str | None = None
    image: str | None = None
    code: CompiledVersion
    entry: str
    payload: bytes = field(repr=False)
    seed: int = 0
    limits: Limits
    harness: CompiledVersion | None = None
    reload: bool = False
    sandbox_id: str = ""
    passing: bool = False
    follow_up: FollowUpJob | None = field(default=None, repr=False)


@frozen(kw_only=True)
class TogetherJob:
    """Calls of one function in several variants, one after the other in one fork that is thrown away.

    Attributes:
        image: Id of the image to fork; None for the engine's own.
        codes: The variants; each has modules of its own.
        entry: ``"module:qualname"``.
        payloads: The arguments of each call, as in `CallJob`; every variant makes all of them.
        seeds: The seed of each call.
        limits: Bounds of all of it together; of the size of a result, each call's.
        harness: Trusted files that are importable beside each variant.
    """

    image: str | None = None
    codes: tuple[CompiledVersion, ...]
    entry: str
    payloads: tuple[bytes, ...] = field(repr=False)
    seeds: tuple[int, ...]
    limits: Limits
    harness: CompiledVersion | None = None


@frozen(kw_only=True)
class FreezeJob:
    """A session to be frozen into an image.

    Attributes:
        session: The session; None freezes a fresh fork with the code ready to be imported.
        image: Id of the image it was forked from; None for the engine's own.
        code: Its code; None if it has none.
        name: Name of the new image.
        limits: The sandbox's own; its code runs when the image is made.
        replace: Whether the name may be taken from another image.
    """

    session: str | None = None
    image: str | None = None
    limits: Limits = field(factory=Limits)
    code: CompiledVersion | None
    name: str
    replace: bool = False


@frozen(kw_only=True)
class CallReport:
    """Report of a call.

    Attributes:
        outcome: The result, or how the call failed.
        session_alive: Whether the session it ran in still holds its state. Always False for a
            throw-away fork.
        session_fresh: Whether a session's fork was a fresh one; if it was believed to hold state, the state
            was lost.
        lost: Whether the call's worker process died, so that the result is unknown.
        memoised: Whether the outcome is that of an earlier identical call.
        answer_bytes: Length of the guest's answer in bytes; processing the outcome takes time in
            proportion.
    """

    outcome: Outcome
    session_alive: bool = False
    session_fresh: bool = False
    lost: bool = False
    memoised: bool = False
    answer_bytes: int = 0


class Worker(Protocol):
    """Compiles and calls guest code. Every method may be used from many trio tasks at once."""

    @property
    def image_id(self) -> str:
        """Content hash of the engine's own image, which a fork starts from unless a job names another."""
        ...

    def image_digest(self, image: str | None) -> str:
        """Return the hash of an image's initial memory and guest state; None for the engine's own.

        Raises:
            ImageError: The image is not in the cache any more.
        """
        ...

    async def compile(self, job: CompileJob) -> CompiledVersion | Rejected:
        """Compile a tree.

        The worker may begin the job's `follow_up` as soon as the code is compiled; `call` with the same call
        then waits for that one.

        Cancellation: The fork is discarded; nothing is kept.
        """
        ...

    async def compile_together(self, jobs: Sequence[CompileJob]) -> list[CompiledVersion | Rejected]:
        """Compile several trees in one fork that does not run them.

        Each result equals that of `compile`. A tree that ends the fork, or whose failure another tree may
        have caused, is compiled by itself.

        Args:
            jobs: At least one; they have root, policy and prefix in common, and none has known files.

        Cancellation: The fork is discarded; nothing is kept.
        """
        ...

    async def inspect(self, request: Mapping[str, object]) -> Mapping[object, object] | Outcome:
        """Analyse code in a fork that runs no untrusted code, such as for a diff.

        Args:
            request: The request to the agent.

        Returns:
            The agent's answer, decoded but not checked; or how the call failed.

        Cancellation: The fork is discarded.
        """
        ...

    async def call(self, job: CallJob) -> CallReport:
        """Run one call to its end or to a limit.

        Cancellation: The fork is discarded. A session it ran in is lost with its state.
        """
        ...

    async def call_together(self, job: TogetherJob) -> list[Sequence[Outcome] | None] | None:
        """Run several variants in one fork, which they share with the agent that tells of them.

        Returns:
            For each variant how its calls ended, with the fuel that the guest's clock counted for each; None
            for one that has to be run by itself to be sure. None if all of them have to.

        Raises:
            CapacityError: There is no room for another fork.

        Cancellation: The fork is discarded.
        """
        ...

    def find_image(self, wanted: str) -> ImageInfo | None:
        """Find an image by its name, its id or an unambiguous prefix of one; None if there is none."""
        ...

    def list_images(self) -> list[ImageInfo]:
        """List the images there are, the newest first."""
        ...

    def resident_code(self, image: ImageInfo) -> CompiledVersion | None:
        """Return the code loaded in an image, which needs no loading; None if there is none."""
        ...

    @property
    def host(self) -> Host:
        """The host of its guests."""
        ...

    async def freeze_session(self, job: FreezeJob) -> ImageInfo:
        """Freeze a session into an image; the session is unchanged.

        Raises:
            CopyRefused: It cannot be copied, or the image cannot be made.

        Cancellation: The image either exists, complete and named, or does not.
        """
        ...

    async def export_image(self, image: ImageInfo, path: Path) -> None:
        """Write an image to a new file.

        Raises:
            CopyRefused: It cannot be written; the message says why.
        """
        ...

    async def import_image(self, path: Path, *, name: str | None, replace: bool) -> ImageInfo:
        """Make an image from an untrusted file.

        Raises:
            CopyRefused: It cannot be used; the message says why.
        """
        ...

    async def info(self) -> dict[str, object]:
        """Ask the image's interpreter for its version, packages and warm modules."""
        ...

    async def aclose(self) -> None:
        """Drop every fork. Idempotent."""
        ...


class OpenWorker(Protocol):
    """A function that opens a worker, such as `evocell.workers.open_worker.open_worker`."""

    def __call__(
        self,
        config: Config,
        snapshots: SnapshotStore,
        *,
        progress: Callable[..., None] | None = None,
    ) -> AbstractAsyncContextManager[Worker]:
        """Open the worker, building its image first if need be.

        Args:
            config: The engine's configuration.
            snapshots: Where version trees are kept, to be mounted.
            progress: Called with the steps of an image build.

        Raises:
            ImageError: The image could not be found, built or trusted.
        """
        ...
