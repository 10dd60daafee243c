"""Decoding of values from a trusted side: used by the guest for the host's data, never by the host.

Nothing here is bounded: deep nesting overflows the stack, and announced arrays are allocated. The host
therefore never imports this module, which an import contract enforces.
"""

from __future__ import annotations

import sys
from array import array
from struct import Struct
from types import ModuleType
from typing import Any

from msgpack import unpackb as _unpackb

from .arrays import Array, check_header

_TWO_DOUBLES = Struct("<dd")
_LITTLE = sys.byteorder == "little"
_MODULES = sys.modules


def decode(data: bytes) -> Any:
    """Decode trusted bytes; the other direction is `evocell.wire`.

    Arrays become numpy arrays if numpy can be imported, otherwise `Array`.

    Raises:
        ValueError: The bytes are not a value; other exceptions are possible for malformed ones.
    """
    return _unpackb(data, strict_map_key=False, ext_hook=_from_ext)


def _from_ext(code: int, payload: bytes) -> Any:
    if code == 2:
        return tuple(decode(payload))
    if code in {6, 7}:
        numbers = array("d" if code == 6 else "q")
        numbers.frombytes(payload)
        if not _LITTLE:
            numbers.byteswap()
        return numbers.tolist()
    if code == 5:
        return _to_array(*decode(payload))
    if code == 3:
        return set(decode(payload))
    if code == 4:
        return frozenset(decode(payload))
    if code == 1:
        return int.from_bytes(payload, "big", signed=True)
    if code == 8:
        return complex(*_TWO_DOUBLES.unpack(payload))
    msg = f"unknown extension type {code}"
    raise ValueError(msg)


def _to_array(dtype: str, shape: list[int], data: bytes) -> Any:
    numpy = _numpy()
    if numpy is None:
        return Array(dtype, shape, data)
    # Objects, records and pointers must never be made from bytes of either side.
    check_header(dtype, shape, len(data))
    # Writable, like the original array.
    return numpy.ndarray(tuple(shape), dtype, bytearray(data))


def _numpy() -> ModuleType | None:
    if "numpy" not in _MODULES:
        try:
            import numpy as np
        except ImportError:
            return None
        return np
    return _MODULES["numpy"]
