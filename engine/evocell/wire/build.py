"""Construction of values from scanned bytes, in bounded steps.

A C call that builds a value holds the interpreter's lock throughout. A long value is therefore built from the
parts that the scan found, one call each; other threads can run between two calls.
"""

from __future__ import annotations

import gc
import sys
from array import array
from collections.abc import Callable, Iterator
from itertools import islice
from struct import Struct
from types import ModuleType
from typing import Any

import msgpack

from evocell.wire.probing import check_keys
from evocell.wire.scan import STEP_VALUES, Long
from evocell_guest.arrays import Array, check_header

__all__ = ["build"]

_TWO_DOUBLES = Struct("<dd")
_STEP_NUMBERS = 1 << 16
_NUMBER_BYTES = 8


def build(data: bytes, long: Long | None) -> Any:
    """Build the value of scanned bytes.

    Args:
        data: Bytes that `evocell.wire.scan.scan` accepted.
        long: The cuts that it returned.

    Raises:
        ProtocolError: The hashes of keys collide on purpose.
        ValueError: A text is not UTF-8.
    """
    if long is None:
        return _whole(data)
    return _long(memoryview(data), long, _nothing if gc.get_freeze_count() else _past_the_collector)


def _whole(data: bytes) -> Any:
    return msgpack.unpackb(data, strict_map_key=False, ext_hook=_extension)


def _past_the_collector() -> None:
    """Move the values just built into the oldest generation of the cycle collector.

    The collector would traverse all new lists after every 100,000 of them, which takes longer than building
    them, in one step that holds the interpreter's lock. Decoded values have no cycles. It would unfreeze
    objects that were frozen before, and is then not called.
    """
    gc.freeze()
    gc.unfreeze()


def _nothing() -> None:
    pass


def _long(data: memoryview, long: Long, after_step: Callable[[], None]) -> Any:
    values: list[Any] = []
    for part in long.parts:
        if part.inner is not None:
            values.append(_long(data, part.inner, after_step))
        else:
            values += _whole(b"\xdd" + part.count.to_bytes(4, "big") + data[part.begin : part.end])
        after_step()
    match long.code:
        case "{":
            return _dict(values)
        case 2:
            return tuple(values)
        case 3:
            return _set(values)
        case 4:
            return frozenset(_set(values))
        case _:
            return values


def _dict(flat: list[Any]) -> dict[Any, Any]:
    keys = flat[::2]
    check_keys(keys, for_set=False)
    made: dict[Any, Any] = {}
    pairs = zip(keys, flat[1::2], strict=True)
    for _ in range(0, len(keys), STEP_VALUES):
        made.update(islice(pairs, STEP_VALUES))
    return made


def _set(values: list[Any]) -> set[Any]:
    check_keys(values, for_set=True)
    made: set[Any] = set()
    for start in range(0, len(values), STEP_VALUES):
        made.update(values[start : start + STEP_VALUES])
    return made


def _extension(code: int, payload: bytes) -> Any:
    match code:
        case 1:
            return int.from_bytes(payload, "big", signed=True)
        case 2:
            return tuple(_whole(payload))
        case 3:
            return set(_whole(payload))
        case 4:
            return frozenset(_whole(payload))
        case 5:
            return _array(*_whole(payload))
        case 6 | 7:
            return _numbers("d" if code == 6 else "q", payload)
        case 8:
            return complex(*_TWO_DOUBLES.unpack(payload))
    msg = f"unknown extension type {code}"
    raise ValueError(msg)


def _numbers(letter: str, payload: bytes) -> list[Any]:
    made: list[Any] = []
    for piece in _pieces(payload, _STEP_NUMBERS * _NUMBER_BYTES):
        numbers = array(letter)
        numbers.frombytes(piece)
        if sys.byteorder != "little":
            numbers.byteswap()
        made += numbers
    return made


def _pieces(data: bytes, size: int) -> Iterator[memoryview]:
    view = memoryview(data)
    for start in range(0, len(view), size):
        yield view[start : start + size]


def _array(dtype: str, shape: list[int], data: bytes) -> Any:
    check_header(dtype, shape, len(data))  # independent of the scan: no other type reaches numpy
    numpy = _numpy()
    if numpy is None:
        return Array(dtype, shape, data)
    # Writable, like the original array.
    return numpy.ndarray(tuple(shape), dtype, bytearray(data))


def _numpy() -> ModuleType | None:
    if "numpy" not in sys.modules:
        try:
            import numpy as np  # noqa: PLC0415 - imported only when an array is read
        except ImportError:
            return None
        return np
    return sys.modules["numpy"]
