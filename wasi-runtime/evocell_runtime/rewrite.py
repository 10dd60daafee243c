"""Splitting of a WASI reactor into its code, which imports a memory, and the memory's initial data.

The interpreter's whole state between calls is its linear memory, so whoever owns the memory
owns the snapshot. Once the code imports its memory, it is compiled a single time and shared by
every sandbox, whatever the memory holds.

The rewrite touches four sections. It drops the memory and data sections and the data count;
it adds one memory import (function indices do not move, since memories have an index space of
their own) and moves every import into one module name, so that one instance can satisfy them
all; and it drops custom sections (names, producers), which do not run.

Source: WebAssembly core specification 2.0, chapter 5 (binary format).
"""

from __future__ import annotations

from attrs import frozen

from evocell_runtime.errors import ImageError
from evocell_runtime.leb128 import read_signed, read_unsigned, write_unsigned

MAGIC = b"\0asm\x01\0\0\0"
MEMBRANE_MODULE = "evocell"
MEMORY_NAME = "memory"
WASI_MODULE = "wasi_snapshot_preview1"

_CUSTOM, _TYPE, _IMPORT, _MEMORY, _GLOBAL, _EXPORT, _START = 0, 1, 2, 5, 6, 7, 8
_DATA, _DATA_COUNT = 11, 12
_END, _I32_CONST, _FUNCTION_KIND, _MEMORY_KIND = 0x0B, 0x41, 0x00, 0x02
_VALUE_TYPES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64"}


@frozen
class Segment:
    """Initial bytes of the memory.

    Attributes:
        offset: Their offset in the memory.
        data: The bytes.
    """

    offset: int
    data: bytes


@frozen
class FunctionImport:
    """A function that the code imports.

    Attributes:
        module: The module name the reactor was built with.
        name: The field name in that module.
        params: Value types (`"i32"`, `"i64"`, `"f32"`, `"f64"`) of the parameters.
        results: Value types of the results.
    """

    module: str
    name: str
    params: tuple[str, ...]
    results: tuple[str, ...]

    @property
    def export_name(self) -> str:
        """The name under which the membrane must export it: WASI's own, or `module.name`."""
        return self.name if self.module == WASI_MODULE else f"{self.module}.{self.name}"


@frozen
class SplitModule:
    """A reactor split into code and data.

    Attributes:
        code: A WebAssembly module that imports its memory and all its functions from `evocell`.
        segments: The memory's contents before `_initialize`.
        min_pages: Its minimal size, in pages of 64 KiB.
        imports: The functions the code imports, in order.
    """

    code: bytes
    segments: tuple[Segment, ...]
    min_pages: int
    imports: tuple[FunctionImport, ...]


def split(wasm: bytes) -> SplitModule:
    """Split a reactor into code that imports its memory, and the memory's initial data.

    Args:
        wasm: The reactor: one memory, active data segments at constant offsets, no start function.

    Raises:
        ImageError: The module is not of that form; the message gives the deviation.
    """
    if wasm[:8] != MAGIC:
        msg = "the interpreter is not a WebAssembly module: it does not begin with the magic number"
        raise ImageError(msg)
    view = memoryview(wasm)
    try:
        return _split(view)
    except (ValueError, IndexError) as e:
        msg = f"the interpreter is not a well-formed WebAssembly module: {e}"
        raise ImageError(msg) from e


def _split(view: memoryview) -> SplitModule:
    all_sections = sections(view)
    by_id = {sid: body for sid, body in all_sections if sid != _CUSTOM}
    for needed, what in ((_TYPE, "types"), (_IMPORT, "imports"), (_MEMORY, "a memory"), (_DATA, "data")):
        if needed not in by_id:
            msg = f"the interpreter has no section for {what}; a reactor that owns its memory is needed"
            raise ImageError(msg)
    if _START in by_id:
        msg = "the interpreter module has a start function; a reactor that exports _initialize is needed"
        raise ImageError(msg)
    limits, min_pages = _one_memory(by_id[_MEMORY])
    imports = _function_imports(by_id[_IMPORT])
    types = _function_types(by_id[_TYPE])
    out = bytearray(MAGIC)
    for sid, body in all_sections:
        if sid in (_CUSTOM, _MEMORY, _DATA, _DATA_COUNT):
            continue
        payload = _membrane_imports(imports, limits) if sid == _IMPORT else bytes(body)
        out += bytes([sid]) + write_unsigned(len(payload)) + payload
    return SplitModule(
        code=bytes(out),
        segments=_segments(by_id[_DATA]),
        min_pages=min_pages,
        imports=tuple(FunctionImport(module, name, *types[index]) for module, name, index in imports),
    )


def sections(view: memoryview) -> list[tuple[int, memoryview]]:
    """Yield a module's sections in order, as ids and contents.

    Raises:
        ImageError: A section ends outside the module.
        ValueError: A size is malformed.
    """
    found: list[tuple[int, memoryview]] = []
    at = 8
    while at < len(view):
        sid = view[at]
        size, body = read_unsigned(view, at + 1)
        if body + size > len(view):
            msg = f"section {sid} ends outside the module"
            raise ImageError(msg)
        found.append((sid, view[body : body + size]))
        at = body + size
    return found


def _one_memory(body: memoryview) -> tuple[bytes, int]:
    count, at = read_unsigned(body, 0)
    if count != 1:
        msg = f"the interpreter module has {count} memories; exactly one is needed"
        raise ImageError(msg)
    if body[at] != 0x00:
        msg = "the interpreter's memory is shared, 64-bit or has a maximum; a plain growable one is needed"
        raise ImageError(msg)
    min_pages, _ = read_unsigned(body, at + 1)
    return bytes(body[at:]), min_pages


def _membrane_imports(imports: list[tuple[str, str, int]], limits: bytes) -> bytes:
    entries = [
        _name_bytes(MEMBRANE_MODULE)
        + _name_bytes(FunctionImport(module, name, (), ()).export_name)
        + bytes([_FUNCTION_KIND])
        + write_unsigned(index)
        for module, name, index in imports
    ]
    memory = _name_bytes(MEMBRANE_MODULE) + _name_bytes(MEMORY_NAME) + bytes([_MEMORY_KIND]) + limits
    return write_unsigned(len(entries) + 1) + b"".join(entries) + memory


def _name_bytes(name: str) -> bytes:
    raw = name.encode()
    return write_unsigned(len(raw)) + raw


def _read_name(body: memoryview, at: int) -> tuple[str, int]:
    size, at = read_unsigned(body, at)
    return bytes(body[at : at + size]).decode(), at + size


def _function_types(body: memoryview) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    count, at = read_unsigned(body, 0)
    types: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    for _ in range(count):
        if body[at] != 0x60:
            msg = f"type {len(types)} is not a function type"
            raise ImageError(msg)
        params, at = _value_types(body, at + 1)
        results, at = _value_types(body, at)
        types.append((params, results))
    return types


def _value_types(body: memoryview, at: int) -> tuple[tuple[str, ...], int]:
    count, at = read_unsigned(body, at)
    return tuple(_VALUE_TYPES.get(b, hex(b)) for b in body[at : at + count]), at + count


def _function_imports(body: memoryview) -> list[tuple[str, str, int]]:
    count, at = read_unsigned(body, 0)
    found: list[tuple[str, str, int]] = []
    for _ in range(count):
        module, at = _read_name(body, at)
        name, at = _read_name(body, at)
        if body[at] != _FUNCTION_KIND:
            msg = f"the interpreter imports {module}.{name}, which is not a function"
            raise ImageError(msg)
        index, at = read_unsigned(body, at + 1)
        found.append((module, name, index))
    return found


def _segments(body: memoryview) -> tuple[Segment, ...]:
    count, at = read_unsigned(body, 0)
    found: list[Segment] = []
    for number in range(count):
        if body[at] != 0x00 or body[at + 1] != _I32_CONST:
            msg = f"data segment {number} is passive or has no constant offset"
            raise ImageError(msg)
        offset, at = read_signed(body, at + 2)
        if body[at] != _END:
            msg = f"data segment {number} has a computed offset"
            raise ImageError(msg)
        size, at = read_unsigned(body, at + 1)
        found.append(Segment(offset & 0xFFFFFFFF, bytes(body[at : at + size])))
        at += size
    return tuple(found)
