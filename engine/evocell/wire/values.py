"""Decoding of values and responses of a guest: scanned under caps, then built in bounded steps.

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

from evocell.errors import ProtocolError
from evocell.wire.probing import check_keys
from evocell.wire.scan import STEP_VALUES, Long, scan
from evocell_guest.arrays import Array, check_header
from evocell_runtime.untrusted import GuestBytes

# Allowance of a response beyond its value: messages and tracebacks of the agent are at most
# 20 KiB together, in a map of at most 8 entries.
ENVELOPE_BYTES = 64 << 10
ENVELOPE_ITEMS = 64
ENVELOPE_DEPTH = 1

_TEXT = (str,)
_MAYBE_TEXT = (str, type(None))
_MAYBE_NUMBER = (int, type(None))
_NUMBER_RANGE = range(1 << 31)
_TIMES = range(1 << 63)

IMPORTS = "i"
"""The key in a response under which a call says how long its imports took, if that was long."""

# The agent's own caps on its texts, in bytes of UTF-8; it writes no longer ones.
_NAME_BYTES = 200
_SHORT_BYTES = 4 << 10
_LONG_BYTES = 16 << 10
TEXT_BYTES = {
    "type": _NAME_BYTES,
    "kind": _NAME_BYTES,
    "python": _NAME_BYTES,
    "message": _SHORT_BYTES,
    "path": _SHORT_BYTES,
    "text": _SHORT_BYTES,
    "traceback": _LONG_BYTES,
}
"""Most bytes of a text in a response."""
_MAX_NAMES = 10_000

# Kind of response -> its fields and their types; `object` stands for any value.
_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "completed": {"v": (object,)},
    "raised": {"type": _TEXT, "message": _TEXT, "traceback": _TEXT},
    "rejected": {
        "kind": _TEXT,
        "message": _TEXT,
        "path": _MAYBE_TEXT,
        "line": _MAYBE_NUMBER,
        "column": _MAYBE_NUMBER,
        "text": _MAYBE_TEXT,
    },
    "limit": {"kind": _TEXT, "message": _TEXT},
    "compiled": {"code": (bytes,), "imports": (list,)},
    "info": {"python": _TEXT, "packages": (dict,), "warm": (list,)},
}
_KINDS = {
    "rejected": frozenset({"syntax", "security", "compile", "load"}),
    "limit": frozenset({"payload", "memory"}),
}


_TWO_DOUBLES = Struct("<dd")
_STEP_NUMBERS = 1 << 16
_NUMBER_BYTES = 8


def decode_hostile(data: bytes | GuestBytes, *, max_bytes: int, max_items: int, max_depth: int) -> Any:
    """Decode one value from untrusted bytes.

    Args:
        data: The bytes.
        max_bytes: Most bytes it may have.
        max_items: Most values it may hold, dict keys and all nested ones included.
        max_depth: Most containers around one another.

    Returns:
        The value: plain Python data and arrays, nothing else.

    Raises:
        ProtocolError: The bytes are not a value, or are over a limit.
    """
    raw = data.unchecked() if isinstance(data, GuestBytes) else data
    long = scan(raw, max_bytes=max_bytes, max_items=max_items, max_depth=max_depth)
    try:
        return _build(raw, long)
    except (MemoryError, ProtocolError):
        raise
    except Exception as error:
        # The scan does not check UTF-8; any other failure of a decoder is the sender's fault too.
        msg = f"a malformed message: {type(error).__name__} while decoding it"
        raise ProtocolError(msg) from error


def decode_response(
    data: bytes | GuestBytes, *, max_bytes: int, max_items: int, max_depth: int
) -> dict[str, Any]:
    """Decode a guest agent's response and check its form.

    Args:
        data: The bytes out of the guest's memory.
        max_bytes: The call's limit on the encoded result; the response around it may be longer.
        max_items: The call's limit on values in the result.
        max_depth: The call's limit on nesting of the result.

    Returns:
        The response: its kind under ``"t"`` and exactly the fields of that kind; and how long its imports
        took, in nanoseconds, under `IMPORTS` if it says so.

    Raises:
        ProtocolError: It is not a response, so the guest's state is unreliable.
    """
    response = decode_hostile(
        data,
        max_bytes=max_bytes + ENVELOPE_BYTES,
        max_items=max_items + ENVELOPE_ITEMS,
        max_depth=max_depth + ENVELOPE_DEPTH,
    )
    if not isinstance(response, dict):
        raise ProtocolError("a malformed response: it is not a map")
    imports_ns = response.pop(IMPORTS, 0)
    if type(imports_ns) is not int or imports_ns not in _TIMES:
        raise ProtocolError("a malformed response: the time of its imports is none")
    kind = response.get("t")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise ProtocolError("a malformed response: it is not of a known kind")
    if response.keys() != fields.keys() | {"t"}:
        msg = f"a malformed response: a {kind!r} one must have exactly the fields {', '.join(sorted(fields))}"
        raise ProtocolError(msg)
    for name, types in fields.items():
        if not isinstance(response[name], types) or not _plausible(response[name], types):
            msg = f"a malformed response: the field {name!r} of a {kind!r} one has the wrong type"
            raise ProtocolError(msg)
        if isinstance(response[name], str) and name in TEXT_BYTES:
            check_text(response[name], TEXT_BYTES[name], f"a {kind!r} response's {name}")
    if kind in _KINDS and response["kind"] not in _KINDS[kind]:
        msg = f"a malformed response: a {kind!r} one has an unknown kind"
        raise ProtocolError(msg)
    if imports_ns:
        response[IMPORTS] = imports_ns
    return response


def check_text(text: str, max_bytes: int, what: str) -> None:
    """Refuse a text over the agent's own cap.

    Raises:
        ProtocolError: The text is too long.
    """
    if len(text) > max_bytes or (not text.isascii() and len(text.encode("utf-8", "replace")) > max_bytes):
        msg = f"a malformed response: {what} is longer than {max_bytes:,} bytes"
        raise ProtocolError(msg)


def _plausible(value: Any, types: tuple[type, ...]) -> bool:
    if types is _MAYBE_NUMBER and value is not None:
        return type(value) is int and value in _NUMBER_RANGE
    if types == (list,):
        return len(value) <= _MAX_NAMES and all(map(_is_name, value))
    if types == (dict,):
        return len(value) <= _MAX_NAMES and all(_is_name(item) for pair in value.items() for item in pair)
    return True


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _SHORT_BYTES


def _build(data: bytes, long: Long | None) -> Any:
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
