"""Body of a guest: a store with a linked membrane and interpreter.

Creating one takes longer than a short call, so it may be reused by successive guests; see
`evocell_runtime.recycling`. Guests of one image differ only in the memory, the membrane's globals, the
directories and the memory limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import wasmtime
from wasmtime import _ffi as ffi

from evocell_runtime import membrane
from evocell_runtime.metering import CHARGE, FUEL, PAUSE_AT, SIGNAL, SLICE, SLICE_FUEL, STACK
from evocell_runtime.native import (
    I32,
    I64,
    ExportName,
    RawFunction,
    RawMemory,
    put_in_table,
    read_global,
    set_directories,
    set_fuel,
    set_slice,
    write_global,
)

if TYPE_CHECKING:
    from evocell_runtime.hot_pages import Written

_MEMORY, _BEGIN = ExportName("memory"), ExportName("begin")
_ALLOC, _TURN, _INITIALIZE = ExportName("host_alloc"), ExportName("turn"), ExportName("_initialize")
_BEGIN_TYPES = (I64, I32, I32, I32, I64, I32, I64, I32, I32, I32, I64)
_CHARGE_TABLE = ExportName("charge")
_FUEL, _PAUSE_AT, _SLICE = ExportName(FUEL), ExportName(PAUSE_AT), ExportName(SLICE)
_CHARGE, _STACK, _SIGNAL = ExportName(CHARGE), ExportName(STACK), ExportName(SIGNAL)
_ENOUGH = 1 << 62
_GLOBALS = {
    name: ExportName(name)
    for name in (
        *membrane.GLOBALS,
        "clock_fuel",
        "may_ask",
        "pausing",
        "question",
        "question_len",
        "answer",
        "answer_len",
        "stdin",
        "stdin_len",
        "response",
        "response_len",
        "stdout_len",
        "stderr_len",
        "stop_reason",
        "exit_code",
    )
}
_PREOPENS = tuple(name.encode() for name in membrane.PREOPENS)


class Body:
    """A store with its membrane and interpreter. It has no directories until `furnish`.

    Args:
        engine: The engine that compiled all parts.
        membrane_pre: The membrane, linked with WASI.
        code: The interpreter.

    Raises:
        wasmtime.WasmtimeError: The process lacks resources for it.
    """

    __slots__ = (
        "_cell",
        "_fuel",
        "_handles",
        "_pause_at",
        "_slice_fuel",
        "alloc",
        "begin",
        "context",
        "inner",
        "memory",
        "outer",
        "store",
        "turn",
        "written",
    )

    def __init__(
        self, engine: wasmtime.Engine, membrane_pre: wasmtime.InstancePre, code: wasmtime.Module
    ) -> None:
        store = self.store = wasmtime.Store(engine)
        try:
            outer = membrane_pre.instantiate(store)
            linker = wasmtime.Linker(engine)
            linker.define_instance(store, "evocell", outer)
            inner = linker.instantiate(store, code)
            linker.close()
            self.context: Any = store._context()  # noqa: SLF001
            context = self.context
            self.memory = RawMemory(context, _MEMORY.find(context, outer))
            self.begin = RawFunction(_BEGIN.find(context, outer), _BEGIN_TYPES, 0)
            self.alloc = RawFunction(_ALLOC.find(context, inner), (I32,), 1)
            self.turn = RawFunction(_TURN.find(context, inner), (I32, I32), 1)
            self.outer, self.inner = outer, inner
            self.written: Written | None = None  # of the memory when it was wiped last
            self._cell: Any = ffi.wasmtime_val_t()
            self._handles: dict[str, Any] = {}
            self._fuel, self._pause_at = _FUEL.find(context, inner), _PAUSE_AT.find(context, inner)
            put_in_table(context, _CHARGE_TABLE.find(context, outer), _CHARGE.find(context, inner))
            put_in_table(context, _CHARGE_TABLE.find(context, outer), self.alloc.func, 1)
            put_in_table(context, _CHARGE_TABLE.find(context, outer), _SIGNAL.find(context, inner), 2)
            self._slice_fuel = SLICE_FUEL
            # wasmtime's fuel counts only the membrane's instructions; this amount never runs out.
            set_fuel(context, _ENOUGH)
            set_slice(context, membrane.YIELD_INSTRUCTIONS)
        except BaseException:
            store.close()
            raise

    def furnish(
        self, directories: tuple[str, str, str, str], *, memory_limit_bytes: int, scratch: bool
    ) -> None:
        """Replace its WASI context by one with only the given directories.

        Args:
            directories: Host directories for `membrane.PREOPENS`, in order.
            memory_limit_bytes: Most bytes of its memory.
            scratch: Whether the last directory may be written to.

        Raises:
            wasmtime.WasmtimeError: A directory cannot be opened.
        """
        self.store.set_limits(memory_size=memory_limit_bytes)
        last = len(directories) - 1
        set_directories(
            self.context,
            [
                (host.encode(), guest, scratch and n == last)
                for n, (host, guest) in enumerate(zip(directories, _PREOPENS, strict=True))
            ],
        )

    def strip(self) -> None:
        """Close its directories and all files in them, and drop left-over exceptions."""
        set_directories(self.context, [])
        self.store.gc()

    def close(self) -> None:
        """Free all resources."""
        self._handles.clear()
        self.store.close()

    def set_fuel(self, fuel: int, *, pausing: bool) -> None:
        """Give the code fuel for one call.

        Args:
            fuel: Amount, below 2**63.
            pausing: Whether the call pauses after each slice.
        """
        write_global(self.context, self._fuel, fuel, wide=True)
        write_global(
            self.context, self._pause_at, max(0, fuel - self._slice_fuel) if pausing else 0, wide=True
        )

    def pause_at(self, fuel: int) -> None:
        """Make the call pause when at most this much fuel is left."""
        write_global(self.context, self._pause_at, max(0, fuel), wide=True)

    @property
    def stack(self) -> int:
        """Current end of the interpreter's stack in memory."""
        return read_global(self.context, _STACK.find(self.context, self.inner), self._cell)

    def set_stack(self, address: int) -> None:
        """Set the end of the interpreter's stack in memory."""
        write_global(self.context, _STACK.find(self.context, self.inner), address, wide=False)

    def set_slice(self, fuel: int) -> None:
        """Set the fuel per slice, after which calls pause; results do not depend on it."""
        self._slice_fuel = fuel
        write_global(self.context, _SLICE.find(self.context, self.inner), fuel, wide=True)

    @property
    def fuel(self) -> int:
        """Remaining fuel; negative if it ran out."""
        left = read_global(self.context, self._fuel, self._cell)
        return left - (1 << 64) if left >> 63 else left

    def read(self, name: str) -> int:
        """Return one of the membrane's globals, looked up lazily: most calls need few."""
        return read_global(self.context, self._handle(name), self._cell)

    def write(self, name: str, value: int) -> None:
        """Set one of the membrane's globals."""
        write_global(self.context, self._handle(name), value, wide=name in membrane.WIDE_GLOBALS)

    def state(self) -> Mapping[str, int]:
        """Return the membrane's saved globals by name."""
        return {name: self.read(name) for name in membrane.GLOBALS}

    def restore_state(self, state: Mapping[str, int]) -> None:
        """Set the membrane's saved globals to those from `state`."""
        for name, value in state.items():
            self.write(name, value)

    def initializer(self) -> RawFunction:
        """Return the interpreter's `_initialize`."""
        return RawFunction(_INITIALIZE.find(self.context, self.inner), (), 0)

    def _handle(self, name: str) -> Any:
        handle = self._handles.get(name)
        if handle is None:
            handle = self._handles[name] = _GLOBALS[name].find(self.context, self.outer)
        return handle
