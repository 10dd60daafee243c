"""Code made ready to run: each tree is compiled once per image, however many ask for it at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import trio
from attrs import define, field

from evocell.code.compiler import CompiledVersion, code_key, dump_compiled, load_compiled
from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import FileTree, Source, normalise
from evocell.errors import ConfigurationError, ProtocolError
from evocell.execution.worker import CompileJob, Worker
from evocell.models.outcome import Rejected

__all__ = ["APP_ROOT", "HARNESS_ROOT", "Versions"]

APP_ROOT = "/app"
HARNESS_ROOT = "/harness"

_KEPT_BYTES = 64 << 20
_ENTRY_BYTES = 1024


@define(eq=False)
class _Pending:
    """The right to compile one key, and how many wait for it."""

    lock: trio.Lock = field(factory=trio.Lock)
    interested: int = 0


class Versions:
    """Compiles trees in the worker and keeps what came of it, in memory and in the snapshot store.

    Args:
        worker: Where code is compiled.
        snapshots: Where trees and byte code are kept.
        blocked: Modules that a variant may not import.
        durable: Whether the store outlives this engine, so that byte code is worth writing to it.
    """

    def __init__(
        self, worker: Worker, snapshots: SnapshotStore, *, blocked: Iterable[str], durable: bool
    ) -> None:
        self._worker = worker
        self._snapshots = snapshots
        self._durable = durable
        self._blocked = tuple(sorted(set(blocked)))
        self._kept: OrderedDict[str, CompiledVersion | Rejected] = OrderedDict()
        self._kept_bytes = 0
        self._pending: dict[str, _Pending] = {}

    async def load(self, source: Source) -> CompiledVersion | Rejected:
        """Make a variant's source ready to run; a source that is no tree of files is a rejected one."""
        try:
            tree = await read_source(source)
        except ConfigurationError as error:
            return Rejected("load", error.message)
        return await self.compiled(tree)

    async def compiled(
        self, tree: FileTree, *, root: str = APP_ROOT, trusted: bool = False
    ) -> CompiledVersion | Rejected:
        """Make a tree ready to run.

        Args:
            tree: The files.
            root: Where they will be mounted.
            trusted: Whether the tree may import the modules that variants may not.

        Returns:
            The compiled version, or why it was rejected.

        Raises:
            StoreError: The snapshot store cannot be used.

        Cancellation: Somebody else who waits for the same tree goes on with it.
        """
        blocked = () if trusted else self._blocked
        key = code_key(self._worker.image_id, tree.digest, root, blocked)
        known = self._recall(key)
        if known is not None:
            return known
        pending = self._pending.setdefault(key, _Pending())
        pending.interested += 1
        try:
            async with pending.lock:
                known = self._recall(key)
                if known is None:
                    known = await self._make(CompileJob(tree=tree, root=root, blocked=blocked), key)
                    self._keep(key, known)
                return known
        finally:
            pending.interested -= 1
            if not pending.interested:
                del self._pending[key]

    async def _make(self, job: CompileJob, key: str) -> CompiledVersion | Rejected:
        if not self._durable:
            return await self._worker.compile(job)
        stored = await trio.to_thread.run_sync(self._from_store, job.tree, key)
        if stored is not None:
            return stored
        made = await self._worker.compile(job)
        if isinstance(made, CompiledVersion):
            await trio.to_thread.run_sync(self._snapshots.put_code, key, dump_compiled(made))
        return made

    def _from_store(self, tree: FileTree, key: str) -> CompiledVersion | None:
        snapshot = self._snapshots.put(tree)
        data = self._snapshots.get_code(key)
        if data is None:
            return None
        try:
            return load_compiled(data, snapshot)
        except ProtocolError:  # damaged on disk: compiling again replaces it
            return None

    def _recall(self, key: str) -> CompiledVersion | Rejected | None:
        known = self._kept.get(key)
        if known is not None:
            self._kept.move_to_end(key)
        return known

    def _keep(self, key: str, made: CompiledVersion | Rejected) -> None:
        self._kept[key] = made
        self._kept_bytes += _size(made)
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= _size(dropped)


async def read_source(source: Source) -> FileTree:
    """Turn what a caller hands in as code into a tree; files are read in a thread.

    Raises:
        ConfigurationError: It is no source, or something in it is refused.
    """
    if isinstance(source, str):
        return normalise(source)
    return await trio.to_thread.run_sync(normalise, source)


def _size(made: CompiledVersion | Rejected) -> int:
    return _ENTRY_BYTES + (len(made.code) if isinstance(made, CompiledVersion) else 0)
