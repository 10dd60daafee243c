"""Reading of requests, the one message every call pays for.

A request is a flat map of short keys to plain scalars and bytes. Read directly it costs a quarter of
what msgpack's pure-Python unpacker takes for it, which was 40 % of a trivial call's fuel.
"""

from __future__ import annotations

from typing import Any

from .values import decode

# First byte -> bytes of the length, or of the number, that follows it.
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_TEXT = {0xD9: 1, 0xDA: 2}
_NUMBERS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}


def read_request(data: bytes) -> dict[str, Any]:
    """Decode a request; the host, which one trusts, encoded it.

    Anything but a flat map, such as the list of files to be compiled, takes the general way.
    """
    request: dict[str, Any] = {}
    number = int.from_bytes
    at = 1
    for _ in range(data[0] & 0x0F):
        first = data[at]
        if first >> 5 != 5:
            break
        start = at + 1
        at = start + (first & 0x1F)
        key = data[start:at].decode()
        first = data[at]
        at += 1
        value: Any
        if first < 0x80:
            value = first
        elif first == 0xC0:
            value = None
        elif 0xA0 <= first < 0xC0:
            start = at
            at += first & 0x1F
            value = data[start:at].decode()
        elif first in _BYTES:
            start = at + _BYTES[first]
            length = number(data[at:start], "big")
            at = start + length
            value = data[start:at]
        elif first in _NUMBERS:
            start = at
            at += _NUMBERS[first]
            value = number(data[start:at], "big")
        elif first in _TEXT:
            start = at + _TEXT[first]
            length = number(data[at:start], "big")
            at = start + length
            value = data[start:at].decode()
        else:
            break
        request[key] = value
    else:
        if at == len(data) and 0x80 <= data[0] < 0x90:
            return request
    general: dict[str, Any] = decode(data)
    return general
