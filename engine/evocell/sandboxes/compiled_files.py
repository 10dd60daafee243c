"""Compiled files of versions, cached in memory and, if that outlives the engine, in the snapshot store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

import trio

from evocell.code.compiler import CompiledUnit, dump_unit, load_unit
from evocell.code.snapshots import SnapshotStore
from evocell.errors import ProtocolError, StoreError
from evocell.lru import LruCache

__all__ = ["ENTRY_BYTES", "KEPT_BYTES", "CompiledFiles"]

KEPT_BYTES = 64 << 20
"""Bound of a cache of byte code, in bytes."""

ENTRY_BYTES = 1024
"""What an entry of such a cache weighs beside its byte code."""

_FEW_FILES = 2
"""Files of byte code that are read or written without a thread, as small trees are."""

_log = logging.getLogger("evocell")

T = TypeVar("T")
R = TypeVar("R")


class CompiledFiles:
    """Compiled files by key, see `evocell.code.compiler.code_key`.

    Args:
        snapshots: Store of byte code.
        durable: Whether the store outlives this engine; only then is byte code written to it.
    """

    def __init__(self, snapshots: SnapshotStore, *, durable: bool) -> None:
        self.durable = durable
        self._snapshots = snapshots
        self._kept: LruCache[str, CompiledUnit] = LruCache(KEPT_BYTES, keeps_last=True)
        self._unwritten: dict[str, CompiledUnit] = {}
        self._more_to_write = trio.Event()
        self._writes_later = False

    def __contains__(self, key: str) -> bool:
        """Return whether a file is in memory."""
        return key in self._kept

    async def known(self, keys: Mapping[str, str]) -> dict[str, CompiledUnit]:
        """Return the compiled files there are, in memory or in the store, by path.

        Args:
            keys: Keys by path.
        """
        units = {path: unit for path, key in keys.items() if (unit := self._kept.get(key)) is not None}
        if self.durable and len(units) < len(keys):
            missing = {path: key for path, key in keys.items() if path not in units}
            units |= await _on_disk(len(missing), self.stored, missing)
        return units

    def stored(self, keys: Mapping[str, str]) -> dict[str, CompiledUnit]:
        """Read the compiled files there are in the store, by path, and keep them in memory. Blocks."""
        found = {}
        for path, key in keys.items():
            try:
                data = self._snapshots.get_code(key)
                if data is None:
                    continue
                unit = load_unit(data)
            except (StoreError, ProtocolError):  # damaged on disk: recompilation replaces it
                continue
            self._kept.put(key, unit, ENTRY_BYTES + len(unit.code))
            found[path] = unit
        return found

    async def keep(self, units: Mapping[str, CompiledUnit]) -> None:
        """Keep compiled files by key, and write them to the store if it is durable: many now, few soon."""
        for key, unit in units.items():
            self._kept.put(key, unit, ENTRY_BYTES + len(unit.code))
        if self.durable and self._writes_later and len(units) <= _FEW_FILES:
            self._unwritten |= units
            self._more_to_write.set()
        elif self.durable:
            await _on_disk(len(units), self._to_store, units)

    async def write(self) -> NoReturn:
        """Write files to the store beside the calls that run them; for a durable store, in a task.

        Cancellation: What is left is written; without this task, files are written before they are run.
        """
        self._writes_later = True
        try:
            while True:
                await self._more_to_write.wait()
                self._more_to_write = trio.Event()
                self._write_the_rest()
        finally:
            self._writes_later = False
            self._write_the_rest()

    def _write_the_rest(self) -> None:
        units, self._unwritten = self._unwritten, {}
        self._to_store(units)

    def _to_store(self, units: Mapping[str, CompiledUnit]) -> None:
        try:
            for key, unit in units.items():
                self._snapshots.put_code(key, dump_unit(unit))
        except StoreError as error:  # recompiled when needed
            _log.warning("byte code is not kept: %s", error)


async def _on_disk(n_files: int, function: Callable[[T], R], argument: T) -> R:
    """Call a function that reads or writes files; in a thread, unless they are too few to be worth one."""
    if n_files <= _FEW_FILES:
        return function(argument)
    return await trio.to_thread.run_sync(function, argument)
