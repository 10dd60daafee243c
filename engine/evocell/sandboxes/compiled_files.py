"""Compiled files of versions, cached in memory and, if there is a durable one, in the store."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

from evocell.code.compiler import CompiledUnit, dump_unit, load_unit
from evocell.errors import ProtocolError, StoreError
from evocell.lru import LruCache
from evocell.store.byte_code import ByteCode

__all__ = ["ENTRY_BYTES", "KEPT_BYTES", "CompiledFiles"]

KEPT_BYTES = 64 << 20
"""Bound of a cache of byte code, in bytes."""

ENTRY_BYTES = 1024
"""What an entry of such a cache weighs beside its byte code."""

_FEW_FILES = 2
"""Files of byte code that are read or encoded without a thread."""

_log = logging.getLogger("evocell")


class CompiledFiles:
    """Compiled files by key, see `evocell.code.compiler.code_key`.

    Args:
        stored: What an earlier engine compiled, and a later one finds; None for an engine without a store.
    """

    def __init__(self, stored: ByteCode | None) -> None:
        self._stored = stored
        self._kept: LruCache[str, CompiledUnit] = LruCache(KEPT_BYTES, keeps_last=True)

    def __contains__(self, key: str) -> bool:
        """Return whether a file is in memory."""
        return key in self._kept

    @property
    def durable(self) -> bool:
        """Whether there are files that outlive this engine."""
        return self._stored is not None

    async def known(self, keys: Mapping[str, str]) -> dict[str, CompiledUnit]:
        """Return the compiled files there are, in memory or in the store, by path.

        Args:
            keys: Keys by path.
        """
        units = {path: unit for path, key in keys.items() if (unit := self._kept.get(key)) is not None}
        if self._stored is not None and len(units) < len(keys):
            missing = {path: key for path, key in keys.items() if path not in units}
            if len(missing) <= _FEW_FILES:
                return units | self.stored(missing)
            units |= await trio.to_thread.run_sync(self.stored, missing)
        return units

    def stored(self, keys: Mapping[str, str]) -> dict[str, CompiledUnit]:
        """Read the compiled files there are in the store, by path, and keep them in memory. Blocks."""
        found: dict[str, CompiledUnit] = {}
        if self._stored is None:
            return found
        for path, key in keys.items():
            try:
                data = self._stored.get(key)
                if data is None:
                    continue
                unit = load_unit(data)
            except (StoreError, ProtocolError):  # damaged on disk: recompilation replaces it
                continue
            self._kept.put(key, unit, ENTRY_BYTES + len(unit.code))
            found[path] = unit
        return found

    async def keep(self, units: Mapping[str, CompiledUnit]) -> None:
        """Keep compiled files by key, and have them written to the store, if there is one."""
        for key, unit in units.items():
            self._kept.put(key, unit, ENTRY_BYTES + len(unit.code))
        if self._stored is None:
            return
        if len(units) <= _FEW_FILES:
            self._to_store(units)
        else:
            await trio.to_thread.run_sync(self._to_store, units)

    def _to_store(self, units: Mapping[str, CompiledUnit]) -> None:
        assert self._stored is not None
        try:
            self._stored.put({key: dump_unit(unit) for key, unit in units.items()})
        except StoreError as error:  # recompiled when needed
            _log.warning("byte code is not kept: %s", error)
