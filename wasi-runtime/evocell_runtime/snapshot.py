"""Snapshots: the memory of a frozen guest as one data segment of a dedicated membrane."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import wasmtime
from attrs import frozen

from evocell_runtime import membrane
from evocell_runtime.errors import ImageError
from evocell_runtime.instance import Instance
from evocell_runtime.leb128 import read_unsigned, write_signed, write_unsigned
from evocell_runtime.native import PAGE_BYTES
from evocell_runtime.rewrite import FunctionImport

DEAD_STACK_BYTES = 16 << 20
"""The interpreter's shadow stack. Between calls it is empty; its bytes are left-overs."""

_DATA_SECTION, _ACTIVE, _I32_CONST, _END = 11, 0x00, 0x41, 0x0B
_BLOCK = 4096


@frozen
class Snapshot:
    """The whole state of a guest between two calls.

    Attributes:
        pages: Size of its memory, in pages of 64 KiB.
        offset: Offset of its first non-zero page, in bytes.
        data: The bytes from there to the last non-zero page.
        state: The membrane's globals.
    """

    pages: int
    offset: int
    data: bytes
    state: Mapping[str, int]

    @property
    def sha256(self) -> str:
        """Hash of memory and globals, independent of how the snapshot was made."""
        digest = hashlib.sha256(f"{self.pages} {self.offset} {sorted(self.state.items())}".encode())
        digest.update(self.data)
        return digest.hexdigest()


def freeze(instance: Instance) -> Snapshot:
    """Take a guest's state, without its scratch files. It must be idle, and stays usable.

    Raises:
        ImageError: The guest has files open (their numbers would mean other files in a fork),
            a call is in flight, or one was killed.
    """
    if not instance.at_rest:
        msg = "a guest with a call in flight, or whose call was killed or trapped, cannot be frozen"
        raise ImageError(msg)
    if instance.open_files:
        msg = f"the guest has {instance.open_files} files open; close them before the freeze"
        raise ImageError(msg)
    memory, state = instance.memory, {**instance.state(), "scratch_used": 0, "scratch_entries": 0}
    memory.clear(0, DEAD_STACK_BYTES)
    memory.clear(state["arena"], membrane.ARENA_BYTES)
    size = memory.size_bytes
    raw = memory.read(0, size)
    first = _first_used(raw)
    last = size - _first_used_from_end(raw)
    return Snapshot(pages=size // PAGE_BYTES, offset=first, data=raw[first:last], state=state)


def _first_used(raw: bytes) -> int:
    stripped = len(raw) - len(raw.lstrip(b"\0"))
    return min(stripped, len(raw)) // _BLOCK * _BLOCK


def _first_used_from_end(raw: bytes) -> int:
    stripped = len(raw) - len(raw.rstrip(b"\0"))
    return stripped // _BLOCK * _BLOCK


def membrane_module(imports: tuple[FunctionImport, ...], snapshot: Snapshot) -> bytes:
    """Return the WebAssembly module whose initial memory is the snapshot.

    The engine maps one dense segment on a page boundary copy-on-write from the file.

    Raises:
        ImageError: The interpreter imports a function that is not in the membrane's table.
    """
    text = membrane.render(imports, pages=snapshot.pages, state=snapshot.state)
    try:
        module = bytes(wasmtime.wat2wasm(text))
    except wasmtime.WasmtimeError as e:
        msg = f"the membrane does not assemble: {e}"
        raise ImageError(msg) from e
    if not snapshot.data:
        return module
    segment = (
        bytes([_ACTIVE, _I32_CONST])
        + write_signed(snapshot.offset)
        + bytes([_END])
        + write_unsigned(len(snapshot.data))
    )
    body = write_unsigned(1) + segment
    section = bytes([_DATA_SECTION]) + write_unsigned(len(body) + len(snapshot.data)) + body
    code, names = _before_custom_sections(module)
    return code + section + snapshot.data + names


def _before_custom_sections(module: bytes) -> tuple[bytes, bytes]:
    """Split a module at its first custom section; the data section must precede the names."""
    at = 8
    while at < len(module) and module[at] != 0:
        size, body = read_unsigned(module, at + 1)
        at = body + size
    return module[:at], module[at:]
