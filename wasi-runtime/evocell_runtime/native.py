"""The seam to wasmtime: the engine's settings and the few raw calls its public classes do not offer.

Everything of wasmtime that is not its documented Python surface is named in this module and
nowhere else: calling asynchronously in slices of fuel, the size of the fiber's stack, and reading
memory through its data pointer. `check` says by name what an upgrade has changed.

Source: wasmtime's C API, `wasmtime/async.h` and `wasmtime/store.h`, release 49.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from evocell_runtime.errors import AbiError

WASM_STACK_BYTES = 64 << 20
"""Stack a guest may use, in bytes: twice what the deepest recursion takes that its Python allows.

Only pages that a guest has touched take memory. See `patches.stacks` for the limit that Python watches.
Source: 31 MB measured, for json.loads.
"""

FIBER_STACK_BYTES = WASM_STACK_BYTES + (8 << 20)
"""Stack the guest runs on, in bytes: its own and what a WASI call needs."""

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
    """A C function called with the interpreter lock held.

    Letting go of the lock costs nothing by itself, but with several guest threads another one
    takes it, and a call of a microsecond waits milliseconds to get it back. So only what takes
    time lets go of it: running a guest, making a store and freeing one.
    """
    function, own = getattr(ffi.dll, name), getattr(_holding, name)
    own.restype, own.argtypes = function.restype, function.argtypes
    return own


def check() -> None:
    """Say by name what this wasmtime lacks.

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
    """An engine with the settings every image is compiled and run under.

    Args:
        portable: Whether every NaN that an operation makes has the one form that all processors agree on.
        metered: Whether wasmtime counts instructions; false only to compile code that counts by itself.

    Raises:
        AbiError: See `check`.
    """
    check()
    config = wasmtime.Config()
    # Before max_wasm_stack: a guest stack larger than the fiber's aborts the process.
    ffi.wasmtime_config_async_stack_size_set(config.ptr(), FIBER_STACK_BYTES)
    config.max_wasm_stack = WASM_STACK_BYTES
    config.consume_fuel = metered
    config.wasm_relaxed_simd = False
    config.wasm_exceptions = True
    if portable:
        config.cranelift_nan_canonicalization = True
    return wasmtime.Engine(config)


_PROBE = "(module (func (loop (br 0))))"
_ENGINE_SECTION = b".wasmtime.engine"


def compile_unmetered(code: bytes, *, portable: bool = False) -> bytes:
    """Compile code in which wasmtime counts nothing, for an engine that counts elsewhere.

    wasmtime refuses code that was compiled under other settings than the engine's. Whether instructions are
    counted is one byte of what it compares; which one is seen from a module of no consequence compiled both
    ways.

    Args:
        code: A WebAssembly module that counts by itself.
        portable: As for `new_engine`.

    Returns:
        Native code as `wasmtime.Module.deserialize` of an engine by `new_engine(portable=portable)` takes it.

    Raises:
        AbiError: This wasmtime keeps the setting otherwise.
        wasmtime.WasmtimeError: The code does not compile.
    """
    settings = []
    for metered in (True, False):
        module = wasmtime.Module(new_engine(portable=portable, metered=metered), _PROBE)
        native = bytes(module.serialize())
        at, size = _engine_section(native)
        settings.append(native[at : at + size])
    counted, uncounted = settings
    other = [n for n, (one, two) in enumerate(zip(counted, uncounted, strict=False)) if one != two]
    if (
        len(counted) != len(uncounted)
        or len(other) != 1
        or (counted[other[0]], uncounted[other[0]]) != (1, 0)
    ):
        msg = f"wasmtime {version('wasmtime')} does not keep in one byte whether it counts fuel"
        raise AbiError(msg)
    compiled = wasmtime.Module(new_engine(portable=portable, metered=False), code)
    native = bytes(compiled.serialize())
    compiled.close()
    at, size = _engine_section(native)
    if native[at : at + size] != uncounted:
        msg = f"wasmtime {version('wasmtime')} keeps other settings for large modules than for small ones"
        raise AbiError(msg)
    flag = at + other[0]
    return native[:flag] + counted[other[0] : other[0] + 1] + native[flag + 1 :]


def _engine_section(native: bytes) -> tuple[int, int]:
    """Where compiled code keeps its engine's settings, and how many bytes they are.

    Source: System V ABI, ELF-64 section headers.

    Raises:
        AbiError: There are none.
    """
    (table,) = struct.unpack_from("<Q", native, 40)
    size, count, names = struct.unpack_from("<HHH", native, 58)
    headers = [struct.unpack_from("<IIQQQQ", native, table + size * n) for n in range(count)]
    for header in headers:
        name = headers[names][4] + header[0]
        if native[name : name + len(_ENGINE_SECTION) + 1] == _ENGINE_SECTION + b"\0":
            return header[4], header[5]
    msg = f"wasmtime {version('wasmtime')} keeps its settings elsewhere than in {_ENGINE_SECTION.decode()}"
    raise AbiError(msg)


def _take_error(pointer: Any) -> str:
    message = ffi.wasm_byte_vec_t()
    ffi.wasmtime_error_message(pointer, ctypes.byref(message))
    try:
        return ctypes.string_at(message.data, message.size).decode(errors="replace")
    finally:
        ffi.wasm_byte_vec_delete(ctypes.byref(message))
        ffi.wasmtime_error_delete(pointer)


def set_fuel(context: Any, fuel: int) -> None:
    """Set the fuel a store has left.

    Raises:
        wasmtime.WasmtimeError: The engine does not meter fuel.
    """
    error = _set_fuel(context, fuel)
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001


def set_directories(context: Any, directories: Sequence[tuple[bytes, bytes, bool]]) -> None:
    """Give a store a new WASI with these directories open, in this order; the former one's files are closed.

    Args:
        context: The store's.
        directories: Where each lies on the host, what the guest calls it, and whether it may be written to.

    Raises:
        wasmtime.WasmtimeError: A directory cannot be opened.
    """
    config = _wasi_new()
    for host, guest, writable in directories:
        if not _wasi_preopen(config, host, guest, writable):
            ffi.wasi_config_delete(ctypes.cast(config, ctypes.POINTER(ffi.wasi_config_t)))
            msg = f"the directory {os.fsdecode(host)} cannot be opened"
            raise wasmtime.WasmtimeError(msg)
    error = _set_wasi(context, config)  # which takes the configuration over
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001


def same_memory(one: int, other: int, size: int) -> bool:
    """Whether what lies at two addresses is the same."""
    return not _memcmp(one, other, size)


def copy_ranges(ranges: Iterable[tuple[int, int]], away: int) -> None:
    """Fill memory, given as first and last addresses, with what lies `away` bytes from it."""
    copy = _memmove
    for start, end in ranges:
        copy(start, start + away, end - start)


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
    """Let calls into a store come up for air every `fuel` units; 0 turns that off.

    Raises:
        wasmtime.WasmtimeError: The engine does not meter fuel.
    """
    error = ffi.wasmtime_context_fuel_async_yield_interval(context, fuel)
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001


class AsyncCall:
    """One call in flight, run in slices of fuel on a stack of its own.

    It owns the future and the cells the future writes to, and frees them in the one order that is
    sound: the future first. Deleting the future of a call that has not ended kills the call; its
    instance must not be entered again.
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
        """Run one slice. The interpreter lock is free meanwhile.

        Returns:
            Whether the call has ended.
        """
        return bool(ffi.wasmtime_call_future_poll(self._future))

    def run_short(self) -> None:
        """Run a call that takes microseconds to its end, with the interpreter lock held."""
        while not _poll_holding(self._future):
            pass

    def close(self) -> tuple[str | None, str | None]:
        """Free the future, and take what the call left. Call it once.

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
    """An export's name as the C buffer that looking it up needs, made once."""

    __slots__ = ("_buffer", "_size", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._size = len(name.encode())
        self._buffer = ctypes.create_string_buffer(name.encode())

    def find(self, context: Any, instance: wasmtime.Instance) -> Any:
        """The export's raw handle: a `wasmtime_func_t`, `wasmtime_global_t` or `wasmtime_memory_t`.

        Raises:
            AbiError: The instance does not have it.
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
    """An integer global's value, unsigned; `cell` is a `wasmtime_val_t` to use for it."""
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

    The pointer is taken anew for every access, since the memory may have grown; every access is
    checked against the size of that moment.
    """

    __slots__ = ("_context", "_handle")

    def __init__(self, context: Any, handle: Any) -> None:
        self._context = context
        self._handle = ctypes.byref(handle)

    @property
    def address(self) -> int:
        """Where the memory lies in this process now."""
        return ctypes.addressof(_memory_data(self._context, self._handle).contents)

    @property
    def size_bytes(self) -> int:
        """The memory's size now."""
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
        """The memory itself as 32-bit numbers, for as long as nothing runs in it and it is not freed."""
        view: memoryview[int] = _view_of(self.address, self.size_bytes, _WRITABLE)
        return view.cast("I")

    def copy(self, source: RawMemory, offset: int, size: int) -> None:
        """Copy bytes from the same place of another memory.

        Raises:
            IndexError: They lie outside one of the memories.
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
