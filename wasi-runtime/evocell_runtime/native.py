"""Interface to wasmtime: the engine's settings, and raw calls that its public classes lack.

All uses of wasmtime beyond its documented Python API are in this module and in `unmetered`: here
asynchronous calls in slices of fuel, the size of the fiber's stack, and reading memory through its
data pointer. `check` names the calls that an upgrade has changed.

Source: wasmtime's C API, `wasmtime/async.h` and `wasmtime/store.h`, release 49.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from itertools import starmap
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from evocell_runtime.errors import AbiError

WASM_STACK_BYTES = 64 << 20
"""Stack limit of a guest in bytes: twice the need of the deepest recursion that its Python allows.

Only touched pages take memory. See `patches.stacks` for the limit that Python checks.
Source: 31 MB measured, for json.loads.
"""

FIBER_STACK_BYTES = WASM_STACK_BYTES + (8 << 20)
"""Stack of the guest's fiber, in bytes: its own limit and the need of a WASI call."""

PAGE_BYTES = 1 << 16
"""A WebAssembly page."""

I32, I64 = "i32", "i64"
_I32, _I64 = int(ffi.WASMTIME_I32.value), int(ffi.WASMTIME_I64.value)
_FUNC, _GLOBAL = int(ffi.WASMTIME_EXTERN_FUNC.value), int(ffi.WASMTIME_EXTERN_GLOBAL.value)
_TABLE = int(ffi.WASMTIME_EXTERN_TABLE.value)

_NEEDED = (
    "wasmtime_config_async_stack_size_set",
    "wasmtime_context_fuel_async_yield_interval",
    "wasmtime_func_call_async",
    "wasmtime_call_future_poll",
    "wasmtime_call_future_delete",
    "wasmtime_memory_data",
    "wasmtime_memory_data_size",
    "wasmtime_context_set_fuel",
    "wasmtime_error_message",
    "wasmtime_error_delete",
    "wasmtime_instance_export_get",
    "wasmtime_global_get",
    "wasmtime_global_set",
    "wasmtime_table_set",
    "wasmtime_context_set_wasi",
    "wasi_config_new",
    "wasi_config_preopen_dir",
)


_holding = ctypes.PyDLL(ffi.dll._name)  # noqa: SLF001


def _held(name: str) -> Any:
    """Return a C function that is called with the interpreter lock held.

    Releasing the lock is cheap, but with several guest threads another one takes it, and a call of a
    microsecond waits milliseconds to reacquire it. So only slow calls release it: running a guest,
    creating a store and freeing one.
    """
    function, own = getattr(ffi.dll, name), getattr(_holding, name)
    own.restype, own.argtypes = function.restype, function.argtypes
    return own


def check() -> None:
    """Raise an error that names the calls that this wasmtime lacks.

    Raises:
        AbiError: A needed call is missing.
    """
    missing = [name for name in _NEEDED if not hasattr(ffi, name)]
    if missing:
        msg = (
            f"wasmtime {version('wasmtime')} lacks {', '.join(missing)}; "
            "install a release evocell was tested with (wasmtime>=49,<50)"
        )
        raise AbiError(msg)


check()
_call_async = _held("wasmtime_func_call_async")
_poll_holding = _held("wasmtime_call_future_poll")
_future_delete = _held("wasmtime_call_future_delete")
_export_get = _held("wasmtime_instance_export_get")
_global_get = _held("wasmtime_global_get")
_global_set = _held("wasmtime_global_set")
_memory_data = _held("wasmtime_memory_data")
_memory_data_size = _held("wasmtime_memory_data_size")
_set_fuel = _held("wasmtime_context_set_fuel")
_wasi_new = _held("wasi_config_new")
_wasi_new.restype = ctypes.c_void_p
_wasi_preopen = _held("wasi_config_preopen_dir")
_wasi_preopen.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_bool)
_set_wasi = _held("wasmtime_context_set_wasi")
_set_wasi.argtypes = (_set_wasi.argtypes[0], ctypes.c_void_p)
_memcmp = ctypes.PyDLL(None).memcmp
_memcmp.argtypes, _memcmp.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_int
_memmove = ctypes.PyDLL(None).memmove
_memmove.argtypes, _memmove.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t), None


def new_engine(*, portable: bool = False, metered: bool = True) -> wasmtime.Engine:
    """Create an engine with the settings that every image is compiled and run under.

    Args:
        portable: Whether NaNs are canonicalised, the same on all processors.
        metered: Whether wasmtime counts instructions; false only for compiling self-metering code.

    Raises:
        AbiError: See `check`.
    """
    check()
    config = wasmtime.Config()
    # Before max_wasm_stack: a guest stack limit above the fiber's aborts the process.
    ffi.wasmtime_config_async_stack_size_set(config.ptr(), FIBER_STACK_BYTES)
    config.max_wasm_stack = WASM_STACK_BYTES
    config.consume_fuel = metered
    config.wasm_relaxed_simd = False
    config.wasm_exceptions = True
    if portable:
        config.cranelift_nan_canonicalization = True
    return wasmtime.Engine(config)


def _take_error(pointer: Any) -> str:
    message = ffi.wasm_byte_vec_t()
    ffi.wasmtime_error_message(pointer, ctypes.byref(message))
    try:
        return ctypes.string_at(message.data, message.size).decode(errors="replace")
    finally:
        ffi.wasm_byte_vec_delete(ctypes.byref(message))
        ffi.wasmtime_error_delete(pointer)


def set_fuel(context: Any, fuel: int) -> None:
    """Set the remaining fuel of a store.

    Raises:
        wasmtime.WasmtimeError: The engine does not meter fuel.
    """
    error = _set_fuel(context, fuel)
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001


def set_directories(context: Any, directories: Sequence[tuple[bytes, bytes, bool]]) -> None:
    """Replace a store's WASI context by one with these open directories, closing the former one's files.

    Args:
        context: The store's.
        directories: For each its host path, its guest path, and whether it is writable.

    Raises:
        wasmtime.WasmtimeError: A directory cannot be opened.
    """
    config = _wasi_new()
    for host, guest, writable in directories:
        if not _wasi_preopen(config, host, guest, writable):
            ffi.wasi_config_delete(ctypes.cast(config, ctypes.POINTER(ffi.wasi_config_t)))
            msg = f"the directory {os.fsdecode(host)} cannot be opened"
            raise wasmtime.WasmtimeError(msg)
    error = _set_wasi(context, config)  # which takes ownership of the configuration
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001


def same_memory(one: int, other: int, size: int) -> bool:
    """Return whether the bytes at two addresses are equal."""
    return not _memcmp(one, other, size)


def copy_all(copies: Iterable[tuple[int, int, int]]) -> None:
    """Copy memory.

    Args:
        copies: Of each piece the target's address, the source's, and the size.
    """
    deque(starmap(_memmove, copies), maxlen=0)


class RawFunction:
    """An exported function with its argument and result cells allocated once."""

    __slots__ = ("args", "func", "kinds", "nargs", "nresults", "results")

    def __init__(self, handle: Any, kinds: tuple[str, ...], nresults: int) -> None:
        self.func = handle
        self.kinds = kinds
        self.nargs, self.nresults = len(kinds), nresults
        self.args = (ffi.wasmtime_val_t * max(1, self.nargs))()
        self.results = (ffi.wasmtime_val_t * max(1, nresults))()
        for cell, kind in zip(self.args, kinds, strict=False):
            cell.kind = _I64 if kind == I64 else _I32

    def fill(self, values: tuple[int, ...]) -> None:
        """Set the arguments; integers are taken modulo the width of their type."""
        for cell, kind, value in zip(self.args, self.kinds, values, strict=False):
            if kind == I64:
                cell.of.i64 = value
            else:
                cell.of.i32 = value


def set_slice(context: Any, fuel: int) -> None:
    """Make calls into a store yield every `fuel` units; 0 turns that off.

    Raises:
        wasmtime.WasmtimeError: The engine does not meter fuel.
    """
    error = ffi.wasmtime_context_fuel_async_yield_interval(context, fuel)
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001


class AsyncCall:
    """One call in flight, run in slices of fuel on a stack of its own.

    It owns the future and the cells the future writes to, and frees the future first, as is required.
    Deleting the future of a call that has not ended kills the call; its instance must not be entered
    again.
    """

    __slots__ = ("_error", "_function", "_future", "_trap")

    def __init__(self, context: Any, function: RawFunction, *values: int) -> None:
        function.fill(values)
        self._function = function
        self._trap: Any = ctypes.POINTER(ffi.wasm_trap_t)()
        self._error: Any = ctypes.POINTER(ffi.wasmtime_error_t)()
        self._future: Any = _call_async(
            context,
            ctypes.byref(function.func),
            function.args,
            function.nargs,
            function.results,
            function.nresults,
            ctypes.byref(self._trap),
            ctypes.byref(self._error),
        )

    def poll(self) -> bool:
        """Run one slice, with the interpreter lock released.

        Returns:
            Whether the call has ended.
        """
        return bool(ffi.wasmtime_call_future_poll(self._future))

    def run_short(self) -> None:
        """Run a short call to its end, with the interpreter lock held."""
        while not _poll_holding(self._future):
            pass

    def close(self) -> tuple[str | None, str | None]:
        """Free the future, and return the trap or error of the call. Call it once.

        Returns:
            The trap's code name (`"UNKNOWN"` if it has none) or None, and its text or an
            error's text, or None. Both are None for a call that returned or was killed.
        """
        future, self._future = self._future, None
        if future is not None:
            _future_delete(future)
        if self._error:
            error, self._error = self._error, None
            return "ERROR", _take_error(error)
        if self._trap:
            trap, self._trap = self._trap, None
            return _take_trap(trap)
        return None, None

    @property
    def result(self) -> int:
        """The call's first result as an unsigned 32-bit integer."""
        value: int = self._function.results[0].of.i32
        return value & 0xFFFFFFFF


def _take_trap(pointer: Any) -> tuple[str, str]:
    trap = wasmtime.Trap._from_ptr(pointer)  # noqa: SLF001
    try:
        code = trap.trap_code
        return ("UNKNOWN" if code is None else code.name), trap.message[:2000]
    finally:
        trap.close()


class ExportName:
    """An export's name as a C buffer for lookups, made once."""

    __slots__ = ("_buffer", "_size", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._size = len(name.encode())
        self._buffer = ctypes.create_string_buffer(name.encode())

    def find(self, context: Any, instance: wasmtime.Instance) -> Any:
        """Return the export's raw handle: a `wasmtime_func_t`, `wasmtime_global_t` or `wasmtime_memory_t`.

        Raises:
            AbiError: The instance lacks it.
        """
        item: Any = ffi.wasmtime_extern_t()
        raw = ctypes.byref(instance._instance)  # noqa: SLF001
        if not _export_get(context, raw, self._buffer, self._size, ctypes.byref(item)):
            msg = f"the module does not export {self.name}"
            raise AbiError(msg)
        if item.kind == _FUNC:
            return item.of.func
        if item.kind == _TABLE:
            return item.of.table
        return item.of.global_ if item.kind == _GLOBAL else item.of.memory


def read_global(context: Any, handle: Any, cell: Any) -> int:
    """Return an integer global's value, unsigned; `cell` is a `wasmtime_val_t` to use for it."""
    _global_get(context, ctypes.byref(handle), ctypes.byref(cell))
    if cell.kind == _I64:
        return int(cell.of.i64) & 0xFFFFFFFFFFFFFFFF
    return int(cell.of.i32) & 0xFFFFFFFF


def write_global(context: Any, handle: Any, value: int, *, wide: bool) -> None:
    """Set an integer global; `wide` for a 64-bit one.

    Raises:
        wasmtime.WasmtimeError: The global is constant or of the other width.
    """
    cell: Any = ffi.wasmtime_val_t()
    if wide:
        cell.kind, cell.of.i64 = _I64, value
    else:
        cell.kind, cell.of.i32 = _I32, value
    error = _global_set(context, ctypes.byref(handle), ctypes.byref(cell))
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001


def put_in_table(context: Any, table: Any, function: Any, place: int = 0) -> None:
    """Put a function into a cell of a table, the first by default.

    Raises:
        wasmtime.WasmtimeError: The table holds something else, or has no cell.
    """
    cell: Any = ffi.wasmtime_val_t()
    cell.kind, cell.of.funcref = ffi.WASMTIME_FUNCREF, function
    error = ffi.wasmtime_table_set(context, ctypes.byref(table), place, ctypes.byref(cell))
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001


_WRITABLE = 0x200  # PyBUF_WRITE
_view_of = ctypes.pythonapi.PyMemoryView_FromMemory
_view_of.restype = ctypes.py_object
_view_of.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)


class RawMemory:
    """A linear memory, read and written through its data pointer.

    The pointer is read again for every access, since the memory may have grown; every access is
    checked against the current size.
    """

    __slots__ = ("_context", "_handle")

    def __init__(self, context: Any, handle: Any) -> None:
        self._context = context
        self._handle = ctypes.byref(handle)

    @property
    def address(self) -> int:
        """Current address of the memory in this process."""
        return ctypes.addressof(_memory_data(self._context, self._handle).contents)

    @property
    def size_bytes(self) -> int:
        """Current size of the memory."""
        return int(_memory_data_size(self._context, self._handle))

    def read(self, offset: int, size: int) -> bytes:
        """Copy bytes out.

        Raises:
            IndexError: They lie outside the memory.
        """
        return ctypes.string_at(self._address(offset, size), size)

    def write(self, offset: int, data: bytes) -> None:
        """Copy bytes in.

        Raises:
            IndexError: They lie outside the memory.
        """
        ctypes.memmove(self._address(offset, len(data)), data, len(data))

    def words(self) -> memoryview[int]:
        """Return a view of the memory as 32-bit numbers, valid until code runs in it or it is freed."""
        view: memoryview[int] = _view_of(self.address, self.size_bytes, _WRITABLE)
        return view.cast("I")

    def copy(self, source: RawMemory, offset: int, size: int) -> None:
        """Copy bytes from the same offset of another memory.

        Raises:
            IndexError: They are outside one of the memories.
        """
        ctypes.memmove(self._address(offset, size), source._address(offset, size), size)

    def grow(self, pages: int) -> bool:
        """Add pages at the end; False if a limit forbids it."""
        before = ctypes.c_uint64(0)
        error = ffi.wasmtime_memory_grow(self._context, self._handle, pages, ctypes.byref(before))
        if error:
            ffi.wasmtime_error_delete(error)
            return False
        return True

    def clear(self, offset: int, size: int) -> None:
        """Set bytes to zero.

        Raises:
            IndexError: They lie outside the memory.
        """
        ctypes.memset(self._address(offset, size), 0, size)

    def _address(self, offset: int, size: int) -> int:
        if offset < 0 or size < 0 or offset + size > self.size_bytes:
            msg = f"{size} bytes at {offset} lie outside the guest's memory of {self.size_bytes} bytes"
            raise IndexError(msg)
        return self.address + offset
