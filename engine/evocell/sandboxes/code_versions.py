"""Compilation and caching of code versions: each file is compiled once per image, also under concurrency."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import TypeAlias

import trio
from attrs import define, evolve, field, frozen

from evocell.code.compiler import (
    CompiledUnit,
    CompiledVersion,
    assemble,
    code_key,
    heavy_packages,
    too_much_code,
)
from evocell.code.references import TreeReferences
from evocell.code.snapshots import SnapshotStore, put_tree, read_tree
from evocell.code.sources import FileTree, Source, normalise
from evocell.errors import (
    CapacityError,
    ConfigurationError,
    ImageError,
    StoreError,
    WorkerDied,
)
from evocell.execution.interface import CompileJob, FollowUpJob, Worker
from evocell.lru import LruCache
from evocell.models.limits import Limits
from evocell.models.outcome import Rejected
from evocell.models.security import SecurityPolicy, SecurityProfile
from evocell.sandboxes.compiled_files import ENTRY_BYTES, KEPT_BYTES, CompiledFiles
from evocell.store.byte_code import ByteCode
from evocell.store.encoding import is_kept_whole
from evocell_guest.packing import pack_files

__all__ = ["APP_ROOT", "HARNESS_ROOT", "Versions"]

APP_ROOT = "/app"
HARNESS_ROOT = "/harness"

_LEAST_TOGETHER = 2


@define(eq=False)
class _Pending:
    """Lock for compiling one key, with the number of its holders and waiters."""

    lock: trio.Lock = field(factory=trio.Lock)
    interested: int = 0


@frozen
class _Job:
    """A tree to be compiled, and the keys of its files by path."""

    job: CompileJob
    unit_keys: Mapping[str, str]


Decided: TypeAlias = Callable[[str, SecurityPolicy, CompiledVersion | Rejected], None]


def _undecided(_digest: str, _policy: SecurityPolicy, _made: CompiledVersion | Rejected) -> None:
    """Ignore a decision."""


def _unseen(_digest: str, _files: Sequence[tuple[str, bytes]]) -> None:
    """Ignore a tree."""


TextOf: TypeAlias = Callable[[str], Mapping[str, str | None] | None]


def _no_text(_digest: str) -> None:
    """Return nothing: the text of no version is kept."""


class Versions:
    """Compiles trees in the worker and caches the byte code, in memory and in a durable store.

    The cache is per file: if a tree differs from a known one in one file, only that file is compiled,
    and a tree of known files, such as a crossover of two modules, needs no guest at all.

    Args:
        worker: Compiles the code.
        snapshots: Store of trees.
        trees: Reference counts of trees.
        policy: Returns the security policy of a profile; None stands for the engine's own profile.
        stored: Byte code in the durable store; None for an engine without one.
        lasting: Store of trees that outlive the engine, for those of which the database does not keep all
            text. It may be the store of all trees; None for an engine without one.
        text_of: Returns the text of a version that the database keeps; None for what it lacks.
        decided: Called with the result of each compilation of a variant's tree, and its policy.
        seen: Called with each variant's tree before its compilation, so that its source can be stored.
    """

    def __init__(
        self,
        worker: Worker,
        snapshots: SnapshotStore,
        trees: TreeReferences,
        *,
        policy: Callable[[SecurityProfile | None], SecurityPolicy],
        stored: ByteCode | None = None,
        lasting: SnapshotStore | None = None,
        text_of: TextOf = _no_text,
        seen: Callable[[str, Sequence[tuple[str, bytes]]], None] = _unseen,
        decided: Decided = _undecided,
    ) -> None:
        self.trees = trees
        self._worker = worker
        self._snapshots = snapshots
        self.files = CompiledFiles(stored)
        """Its compiled files."""
        self._lasting = lasting if lasting is not snapshots else None
        self._text_of = text_of
        self._seen = seen
        self._decided = decided
        self._policy_for = cache(policy)  # the digest of one is a hash of all of it
        self._kept: LruCache[str, CompiledVersion | Rejected] = LruCache(KEPT_BYTES, keeps_last=True)
        self._pending: dict[str, _Pending] = {}

    async def load(
        self, source: Source, *, profile: SecurityProfile | None = None, limits: Limits | None = None
    ) -> CompiledVersion | Rejected:
        """Make a variant's source ready to run; an invalid source is rejected."""
        try:
            tree = await read_source(source)
        except ConfigurationError as error:
            return Rejected("load", error.message)
        return await self.compiled(tree, profile=profile, limits=limits)

    async def compiled(
        self,
        tree: FileTree,
        *,
        root: str = APP_ROOT,
        trusted: bool = False,
        profile: SecurityProfile | None = None,
        limits: Limits | None = None,
        follow_up: FollowUpJob | None = None,
    ) -> CompiledVersion | Rejected:
        """Make a tree ready to run.

        Args:
            tree: The files.
            root: Mount point of the files.
            trusted: Whether the tree is exempt from the security policy.
            profile: Its sandbox's security profile; None for the engine's.
            limits: Limits of the later calls, whose fuel bounds the amount of code; None for
                no such bound.
            follow_up: A call that may be begun as soon as the tree is compiled, if it has to be.

        Returns:
            The compiled version, or the rejection. The tree stays in its place as long as the returned
            object is referenced.

        Raises:
            StoreError: The snapshot store cannot be used.

        Cancellation: Another task that waits for the same tree compiles it.
        """
        policy = None if trusted else self._policy_of(profile, limits)
        if not trusted:
            self._seen(tree.digest, tree.files)
        if limits is not None and (refusal := too_much_code(tree, limits)) is not None:
            return (
                refusal  # also for cached code, since the outcome of calls must not depend on the cache state
            )
        key = code_key(self._worker.image_id, tree.digest, root, policy)
        lease = self.trees.lease(tree.digest)
        if self._lasting is not None and (trusted or not is_kept_whole(tree.files)):
            await put_tree(self._lasting, tree)
        known = self._kept.get(key)
        if known is None:
            known = await self._compiled_once(
                CompileJob(tree=tree, root=root, policy=policy, follow_up=follow_up), key
            )
        if isinstance(known, CompiledVersion) and not self._snapshots.has_put(tree.digest):
            await put_tree(self._snapshots, tree)  # it was collected before the lease
        return known.leased(lease) if isinstance(known, CompiledVersion) else known

    async def compile_ahead(
        self,
        trees: Sequence[FileTree],
        *,
        limits: Limits,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Compile the unknown ones of several variants' trees together.

        An optimisation only: failures are left to `compiled`, which reports the error of the tree.

        Args:
            trees: The trees.
            limits: As for `compiled`.
            task_status: Told once `compiled` waits for the trees, instead of compiling them itself.

        Cancellation: Nothing is kept; `compiled` compiles the trees itself.
        """
        if len(trees) < _LEAST_TOGETHER:
            task_status.started()
            return
        policy = self._policy_of(None, limits)
        jobs: dict[str, _Job] = {}
        for tree in trees:
            key = code_key(self._worker.image_id, tree.digest, APP_ROOT, policy)
            if key in jobs or self._is_made(key):
                continue
            if too_much_code(tree, limits) is not None:
                continue
            job = CompileJob(tree=tree, policy=policy)
            unit_keys = self._unit_keys(job)
            if not any(unit_key in self.files for unit_key in unit_keys.values()):
                jobs[key] = _Job(job, unit_keys)
        if self.files.durable:
            known = await trio.to_thread.run_sync(self._with_stored_files, jobs)
            jobs = {key: job for key, job in jobs.items() if not self._is_made(key) and key not in known}
        if len(jobs) < _LEAST_TOGETHER:
            task_status.started()
            return
        pending = [self._take(key) for key in jobs]
        try:
            task_status.started()
            await self._compile_together(jobs)
        finally:
            # One per turn of the loop, so that candidates which wait for their code begin in order.
            for key, one in zip(jobs, pending, strict=True):
                waited_for = one.interested > 1
                self._give_back(key, one)
                if waited_for:
                    await trio.lowlevel.cancel_shielded_checkpoint()

    async def _compile_together(self, jobs: Mapping[str, _Job]) -> None:
        """Compile trees, whose locks are held, and keep the results."""
        with suppress(CapacityError, ImageError, StoreError, WorkerDied):
            made = await self._worker.compile_together([one.job for one in jobs.values()])
            units: dict[str, CompiledUnit] = {}
            for (key, one), found in zip(jobs.items(), made, strict=True):
                if isinstance(found, CompiledVersion):
                    units |= {one.unit_keys[unit.path]: unit for unit in found.units}
                    found = found.without_units()  # noqa: PLW2901 - its files are kept by themselves
                self._keep(key, one.job, found)
            await self.files.keep(units)

    async def adopt(self, code: CompiledVersion) -> CompiledVersion:
        """Put the tree of an image's code into the store.

        Raises:
            StoreError: The store cannot be used.
        """
        if code.files or not code.path.is_dir():
            return code
        lease = self.trees.lease(code.digest)
        tree = await trio.to_thread.run_sync(read_tree, code.path)
        await put_tree(self._snapshots, tree)
        if self._lasting is not None:
            await put_tree(self._lasting, tree)
        return evolve(code, files=tree.file_digests, lease=lease)

    @property
    def profile(self) -> SecurityProfile:
        """The security profile of code without one of its own."""
        return self._policy_for(None).profile

    def read(self, digest: str) -> FileTree:
        """Read a tree, in use or from an earlier engine, or restore it from the text in the database. Blocks.

        Raises:
            StoreError: It is missing or damaged.
        """
        for snapshots in (self._snapshots, self._lasting):
            if snapshots is not None and snapshots.holds(digest):
                with suppress(StoreError):  # damaged; there may be another copy
                    return snapshots.read(digest)
        text = self._text_of(digest)
        if text is None or None in text.values():
            return (self._lasting or self._snapshots).read(digest)  # says what is wrong
        tree = FileTree(tuple((path, (content or "").encode()) for path, content in text.items()))
        if tree.digest != digest:
            raise StoreError(f"the text that is kept of version {digest[:12]} is not all of it", digest)
        return tree

    async def _compiled_once(self, job: CompileJob, key: str) -> CompiledVersion | Rejected:
        async with self._alone(key):
            known = self._kept.get(key)
            if known is None:
                known = await self._make(job)
                self._keep(key, job, known)
            return known

    def _is_made(self, key: str) -> bool:
        """Return whether the code of a key is known, or is just being compiled."""
        return key in self._pending or key in self._kept

    def _take(self, key: str) -> _Pending:
        """Take the lock of a key, which must be free."""
        pending = self._pending[key] = _Pending(interested=1)
        pending.lock.acquire_nowait()
        return pending

    def _give_back(self, key: str, pending: _Pending) -> None:
        """Release the lock of a key."""
        pending.lock.release()
        self._leave(key, pending)

    def _leave(self, key: str, pending: _Pending) -> None:
        """Stop waiting for a key, or holding it."""
        pending.interested -= 1
        if not pending.interested:
            del self._pending[key]

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """Hold the lock of a key, so that only one task compiles it."""
        pending = self._pending.get(key)
        if pending is None:  # without giving way
            pending = self._take(key)
        else:
            pending.interested += 1
            try:
                await pending.lock.acquire()
            except BaseException:
                self._leave(key, pending)
                raise
        try:
            yield
        finally:
            self._give_back(key, pending)

    def _policy_of(self, profile: SecurityProfile | None, limits: Limits | None) -> SecurityPolicy:
        """Return the security policy of a profile, for calls with the given limits."""
        policy = self._policy_for(profile)
        return policy.with_processes() if limits is not None and limits.processes else policy

    def _keep(self, key: str, job: CompileJob, known: CompiledVersion | Rejected) -> None:
        if job.policy is not None:
            self._decided(job.tree.digest, job.policy, known)
        size = len(known.code) if isinstance(known, CompiledVersion) else 0
        self._kept.put(key, known, ENTRY_BYTES + size)

    def _with_stored_files(self, jobs: Mapping[str, _Job]) -> set[str]:
        """Return the keys of the jobs that have files in the store."""
        return {key for key, job in jobs.items() if self.files.stored(job.unit_keys)}

    async def side_by_side(
        self,
        versions: Mapping[str, FileTree],
        *,
        profile: SecurityProfile | None = None,
        limits: Limits | None = None,
    ) -> CompiledVersion | Rejected:
        """Make several trees ready to run in one guest, the modules of each under prefixed names.

        Args:
            versions: Each tree by the prefix that its modules get.
            profile: The security profile they run under; None for the engine's.
            limits: As for `compiled`.

        Returns:
            One compiled version with the modules of all, or why one was rejected, such as for code that the
            transformer cannot follow. Files outside of modules exist only once, so they must be equal.

        Raises:
            StoreError: The snapshot store cannot be used.
        """
        policy = self._policy_for(profile)
        parts: list[tuple[str, bytes, tuple[tuple[str, int], ...]]] = []
        prefixes: list[str] = []
        packages: set[str] = set()
        files: dict[str, bytes] = {}
        for prefix, tree in versions.items():
            self._seen(tree.digest, tree.files)
            if limits is not None and (refusal := too_much_code(tree, limits)) is not None:
                return refusal
            job = CompileJob(tree=tree, policy=policy, prefix=prefix)
            keys = self._unit_keys(job)
            units = await self._units_of(job, keys, await self.files.known(keys))
            if isinstance(units, Rejected):
                return units
            own = set(tree.own_modules)
            for path, content in tree.files:
                placed = prefix + path if _top(path) in own else path
                if files.setdefault(placed, content) != content:
                    return Rejected(
                        "load",
                        f"the versions cannot be loaded side by side: each has a file {path!r} of its own "
                        "that is in no module; put it into a package",
                        path=path,
                    )
            imports = {name for unit in units for name in unit.imports}
            packages.update(heavy_packages(imports, own, policy))
            parts += [(unit.path, unit.code, unit.marks) for unit in units]
            prefixes += [prefix if _top(unit.path) in own else "" for unit in units]
        try:
            merged = FileTree(tuple(files.items()))
        except ConfigurationError as error:
            return Rejected("load", f"the versions cannot be loaded side by side: {error.message}")
        lease = self.trees.lease(merged.digest)
        snapshot = await put_tree(self._snapshots, merged)
        code = pack_files(APP_ROOT, parts, prefixes=prefixes, policy=policy.at_run_time())
        return CompiledVersion(
            merged.digest,
            snapshot.path,
            code,
            packages=tuple(sorted(packages)),
            files=merged.file_digests,
            lease=lease,
        )

    async def _make(self, job: CompileJob) -> CompiledVersion | Rejected:
        keys = self._unit_keys(job)
        known = await self.files.known(keys)
        if keys and not known:
            made = await self._compile(job, keys)
            return made if isinstance(made, Rejected) else made.without_units()
        units = await self._units_of(job, keys, known)
        if isinstance(units, Rejected):
            return units
        snapshot = await put_tree(self._snapshots, job.tree)
        return assemble(snapshot, job.tree, job.root, units, job.policy).without_units()

    async def _units_of(
        self, job: CompileJob, keys: Mapping[str, str], known: Mapping[str, CompiledUnit]
    ) -> list[CompiledUnit] | Rejected:
        """Return the compiled files of a tree, in order, compiling those that are not known."""
        units = dict(known)
        if len(units) < len(keys):
            made = await self._compile(evolve(job, known=units), keys)
            if isinstance(made, Rejected):
                return made
            units |= {unit.path: unit for unit in made.units}
        return [units[path] for path in keys]

    async def _compile(self, job: CompileJob, keys: Mapping[str, str]) -> CompiledVersion | Rejected:
        """Compile the files that the job does not know, and cache them."""
        made = await self._worker.compile(job)
        if isinstance(made, CompiledVersion):
            fresh = {keys[unit.path]: unit for unit in made.units if unit.path not in job.known}
            await self.files.keep(fresh)
        return made

    def _unit_keys(self, job: CompileJob) -> dict[str, str]:
        image, digests = self._worker.image_id, job.tree.file_digests
        own = job.tree.own_modules
        return {
            path: code_key(image, digests[path], job.root, job.policy, path=path, own=own, prefix=job.prefix)
            for path, _ in job.tree.python_files
        }


async def read_source(source: Source) -> FileTree:
    """Convert a source into a tree; files are read in a thread.

    Raises:
        ConfigurationError: It is not a source, or part of it is refused.
    """
    if isinstance(source, str):
        return normalise(source)
    return await trio.to_thread.run_sync(normalise, source)


def _top(path: str) -> str:
    """Return the top-level module that a file belongs to."""
    return path.partition("/")[0].removesuffix(".py")
