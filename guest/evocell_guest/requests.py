"""Decoding of requests, whose cost every call pays.

The host writes the request of a call in the interpreter's own format (`marshal`): a flat map of plain scalars
and bytes, which the interpreter decodes at a tenth of the cost of Python code. The host is trusted; the other
direction never uses this format. Other requests are encoded like any value.

Plain arguments are decoded directly too, at a fifth of the cost of msgpack's pure-Python unpacker. Both were
40 % of a trivial call's fuel.
"""

from __future__ import annotations

import marshal
from struct import unpack_from
from typing import Any

from .decoding import decode

MARSHALLED = b"{"
"""First byte of a request in marshal format; as a value this would be a number."""

_loads = marshal.loads
_unpack_from = unpack_from

# First byte -> bytes of the length, or of the number, that follows it.
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_TEXT = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_SIGNED = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}


class _NotPlain(Exception):
    """It contains a value that needs the general decoder."""


def read_request(data: bytes) -> dict[str, Any]:
    """Decode a request from the trusted host."""
    request: dict[str, Any] = _loads(data) if data[:1] == MARSHALLED else decode(data)
    return request


def read_arguments(data: bytes) -> Any:
    """Decode a value from the host like `decode`, but faster for plain values."""
    try:
        value, end = _read(data, 0)
    except (_NotPlain, IndexError):
        return decode(data)
    return value if end == len(data) else decode(data)


def _read(data: bytes, at: int) -> tuple[Any, int]:
    """Read the value at an offset; returns it and its end."""
    first = data[at]
    at += 1
    if first < 0x80:
        return first, at
    if 0xA0 <= first < 0xC0:
        end = at + (first & 0x1F)
        return data[at:end].decode(), end
    if 0x90 <= first < 0xA0:
        return _read_list(data, at, first & 0x0F)
    if first < 0x90:
        mapping = {}
        for _ in range(first & 0x0F):
            key, at = _read(data, at)
            mapping[key], at = _read(data, at)
        return mapping, at
    if first >= 0xE0:
        return first - 0x100, at
    if first == 0xCB:
        return _unpack_from(">d", data, at)[0], at + 8
    if first == 0xC0:
        return None, at
    if first in (0xC2, 0xC3):
        return first == 0xC3, at
    return _read_long(data, at, first)


def _read_list(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    values: list[Any] = []
    add = values.append
    for _ in range(count):
        value, at = _read(data, at)
        add(value)
    return values, at


def _read_long(data: bytes, at: int, first: int) -> tuple[Any, int]:
    """Read a value whose first byte is followed by a number: its length or itself."""
    number = int.from_bytes
    for widths in (_UNSIGNED, _SIGNED, _TEXT, _BYTES, _LISTS):
        width = widths.get(first)
        if width is not None:
            start = at + width
            size = number(data[at:start], "big", signed=widths is _SIGNED)
            if widths is _UNSIGNED or widths is _SIGNED:
                return size, start
            if widths is _LISTS:
                return _read_list(data, start, size)
            end = start + size
            found = data[start:end]
            return (found if widths is _BYTES else found.decode()), end
    raise _NotPlain
