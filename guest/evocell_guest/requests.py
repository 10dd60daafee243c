"""Reading of requests, the one message every call pays for.

The host writes the request of a call in the interpreter's own format (`marshal`): a flat map of plain scalars
and bytes, which the interpreter reads in a tenth of what reading it in Python takes. The host is trusted
here; the other direction is never read like that. Other requests come as any value does.

Arguments that are plain are read directly too, in a fifth of what msgpack's pure-Python unpacker takes for
them. Both were 40 % of a trivial call's fuel.
"""

from __future__ import annotations

import marshal
from struct import unpack_from
from typing import Any

from .decoding import decode

MARSHALLED = b"{"
"""What a request in the interpreter's own format begins with; as a value this would be a number."""

_loads = marshal.loads
_unpack_from = unpack_from

# First byte -> bytes of the length, or of the number, that follows it.
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_TEXT = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_SIGNED = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}


class _NotPlain(Exception):
    """There is something in it that takes the general way."""


def read_request(data: bytes) -> dict[str, Any]:
    """Decode a request; the host, which one trusts, encoded it."""
    request: dict[str, Any] = _loads(data) if data[:1] == MARSHALLED else decode(data)
    return request


def read_arguments(data: bytes) -> Any:
    """Decode a value the host encoded: what `decode` gives, for plain values in less time."""
    try:
        value, end = _read(data, 0)
    except (_NotPlain, IndexError):
        return decode(data)
    return value if end == len(data) else decode(data)


def _read(data: bytes, at: int) -> tuple[Any, int]:
    """Read the value that begins at an offset; returns it and where it ends."""
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
    """Read a value with a number after its first byte: its length or itself."""
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
