"""LEB128 integers as the WebAssembly binary format writes them."""

from __future__ import annotations


def read_unsigned(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Read one unsigned LEB128 integer.

    Returns:
        The value, and the offset of the byte after it.

    Raises:
        ValueError: The bytes end inside the integer, or it is longer than 64 bits.
    """
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            msg = f"malformed LEB128 integer at byte {at}"
            raise ValueError(msg)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def read_signed(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Read one signed LEB128 integer; see `read_unsigned`."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            msg = f"malformed LEB128 integer at byte {at}"
            raise ValueError(msg)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value - (1 << shift) if byte & 0x40 else value), at


def write_unsigned(value: int) -> bytes:
    """Encode an unsigned integer in its shortest LEB128 form."""
    out = bytearray()
    while True:
        byte = value & 0x7F
        value >>= 7
        if not value:
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


def write_signed(value: int) -> bytes:
    """Encode a signed integer in its shortest LEB128 form."""
    out = bytearray()
    while True:
        byte = value & 0x7F
        value >>= 7
        if (value == 0 and not byte & 0x40) or (value == -1 and byte & 0x40):
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)
