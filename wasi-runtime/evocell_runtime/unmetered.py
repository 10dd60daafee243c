"""Compilation of self-metering code without wasmtime's metering, for an engine that has it.

The only code that depends on how wasmtime stores an engine's settings in compiled code. It checks its
assumptions and raises an `AbiError` where a release breaks one.
"""

from __future__ import annotations

import struct
from importlib.metadata import version

import wasmtime

from evocell_runtime.errors import AbiError
from evocell_runtime.native import new_engine

__all__ = ["compile_unmetered"]

_PROBE = "(module (func (loop (br 0))))"
_ENGINE_SECTION = b".wasmtime.engine"


def compile_unmetered(code: bytes, *, portable: bool = False) -> bytes:
    """Compile code without wasmtime's metering, for an engine with metering.

    wasmtime refuses code compiled under other settings than the engine's. Metering is one byte of the
    compared settings; its position is found by compiling a trivial module both ways.

    Args:
        code: A self-metering WebAssembly module.
        portable: As for `new_engine`.

    Returns:
        Native code for `wasmtime.Module.deserialize` with an engine from `new_engine(portable=portable)`.

    Raises:
        AbiError: This wasmtime stores the setting in another way.
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
    """Return the offset and length of the engine's settings in compiled code.

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
