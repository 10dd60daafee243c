"""Answers of compilations as bytes, as `encode` gives them, at a tenth of its cost.

The general encoder looks at each value for what a variant may have made of it. Here the agent itself has made
all of them, and most of an answer is always the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .values import encode

_COMPILED = b"\x82\xa1t\xa8compiled"
_UNITS = _COMPILED + b"\xa5units"
_TREES = _COMPILED + b"\xa5trees"
_SHORT_TEXT = 32
_SHORT_LIST = 16


def packed_answer(answer: dict[str, Any]) -> bytes:
    """Encode the answer about one version.

    A version of files without imports, marks and findings, as most are where there are many, is a flat list
    of their paths and code: each value costs its reader a check.
    """
    if answer["t"] != "compiled":
        return encode(answer)
    units = answer["units"]
    if any(imports or marks or findings for _, _, imports, marks, findings in units):
        return b"".join((_UNITS, _list_of(len(units)), *(_unit(*unit) for unit in units)))
    return b"".join((_list_of(2 * len(units)), *(_text(unit[0]) + _bytes(unit[1]) for unit in units)))


def packed_time(nanoseconds: int) -> bytes:
    """Encode a time."""
    return b"\xcf" + nanoseconds.to_bytes(8, "big")


def packed_trees(parts: Sequence[bytes]) -> bytes:
    """Encode the answer about several versions from encoded answers, each followed by its encoded time."""
    pairs = [b"\x92" + parts[at] + parts[at + 1] for at in range(0, len(parts), 2)]
    return b"".join((_TREES, _list_of(len(pairs)), *pairs))


def _unit(path: str, code: bytes, imports: list[str], marks: list[Any], findings: list[str]) -> bytes:
    return b"\x95" + _text(path) + _bytes(code) + encode(imports) + encode(marks) + encode(findings)


def _text(text: str) -> bytes:
    data = text.encode()
    return bytes((0xA0 | len(data),)) + data if len(data) < _SHORT_TEXT else encode(text)


def _bytes(data: bytes) -> bytes:
    size = len(data)
    if size < 1 << 8:
        return b"\xc4" + size.to_bytes(1, "big") + data
    if size < 1 << 16:
        return b"\xc5" + size.to_bytes(2, "big") + data
    return b"\xc6" + size.to_bytes(4, "big") + data


def _list_of(count: int) -> bytes:
    """Return the begin of a list."""
    if count < _SHORT_LIST:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdd" + count.to_bytes(4, "big")
