"""Answers that a hostile guest might give: near misses of honest ones, forged values, and noise.

Each generator takes its randomness from what it is given, so that a number says which answer it was.
"""

from __future__ import annotations

import random
from typing import Any

import msgpack
from msgpack import ExtType

DTYPES = (
    "O",
    "|O",
    "O,i4",
    "<f8",
    "|b1",
    "<U3",
    "|S0",
    "<U9999999",
    "V8",
    "<c16",
    "\xff",
    "",
    "f8",
    "<i8" * 9,
)
KINDS = (
    "completed",
    "raised",
    "rejected",
    "limit",
    "compiled",
    "info",
    "settled",
    "",
    "COMPLETED",
    b"completed",
)
FIELDS = (
    "t", "v", "type", "message", "traceback", "kind", "path", "line", "column", "text", "code", "imports",
    "units", "python", "packages", "warm", "findings", "__class__",
)  # fmt: skip
TEXTS = (
    "",
    "x",
    "\x1b[2J",
    "\0",
    "é" * 50,
    "syntax",
    "security",
    "memory",
    "payload",
    "x" * 70_000,
    "../../x",
)
HONEST: tuple[dict[Any, Any], ...] = (
    {"t": "completed", "v": [1, 2.5, None, "text"]},
    {"t": "raised", "type": "ValueError", "message": "no", "traceback": "Traceback"},
    {"t": "limit", "kind": "memory", "message": "out of memory"},
    {"t": "compiled", "code": b"code", "imports": ["math"]},
    {"t": "compiled", "units": [["a.py", b"code", ["math"], [["f", 1]], []]]},
    {"t": "info", "python": "3.15", "packages": {"a": "1"}, "warm": ["math"]},
    {"t": "settled"},
    {
        "t": "rejected", "kind": "syntax", "message": "no", "path": "a.py", "line": 1, "column": 2, "text": "x",
    },
)  # fmt: skip
CLAIMS = (
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x05", b"\xc9\xff\xff\xff\xff\x02", b"\xdc\xff\xff", b"\xde\xff\xff", b"\xc1",
)  # fmt: skip


def answer(noise: random.Random) -> bytes:
    """One answer."""
    return noise.choice(_WAYS)(noise)


def nested(levels: int, code: int = 2) -> bytes:
    """Tuples or sets around one another."""
    data = b"\x90"
    for _ in range(levels):
        data = msgpack.packb(ExtType(code, b"\x91" + data))
    return data


def _forged(noise: random.Random) -> bytes:
    """An honest answer of which a field is missing, another, or too many."""
    answer = dict(noise.choice(HONEST))
    for _ in range(noise.randrange(1, 4)):
        name = noise.choice(FIELDS)
        if noise.random() < 0.3:
            answer.pop(name, None)
        else:
            answer[name] = noise.choice(KINDS) if name == "t" and noise.random() < 0.7 else _value(noise, 3)
    return _packed(answer)


def _damaged(noise: random.Random) -> bytes:
    """An honest answer with some bytes changed, cut out or put in."""
    data = bytearray(_packed(noise.choice(HONEST)))
    for _ in range(noise.randrange(1, 5)):
        at = noise.randrange(len(data)) if data else 0
        match noise.randrange(4):
            case 0:
                data[at : at + 1] = noise.randbytes(1)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = noise.choice(CLAIMS)
            case _:
                data[at:at] = noise.randbytes(noise.randrange(6))
    return bytes(data)


def _whole_value(noise: random.Random) -> bytes:
    return _packed({"t": "completed", "v": _value(noise, 5)})


def _claim(noise: random.Random) -> bytes:
    return noise.choice((b"", b"\x82\xa1t\xa9completed\xa1v", b"\x91", b"\x81")) + noise.choice(CLAIMS)


def _deep(noise: random.Random) -> bytes:
    levels = noise.choice((64, 65, 66, 129, 500, 3000))
    inner = nested(levels, noise.choice((2, 3, 4))) if noise.random() < 0.7 else b"\x91" * levels + b"\x90"
    return noise.choice((b"", b"\x82\xa1t\xa9completed\xa1v")) + inner


def _noise(noise: random.Random) -> bytes:
    return noise.randbytes(noise.choice((0, 1, 2, 5, 40, 300)))


def _addresses(noise: random.Random) -> bytes:
    count = noise.choice((1, 2, 50, 2000))
    words = [
        noise.choice((0, 4, 8, noise.randrange(1 << 32), noise.randrange(1 << 12) * 4)) for _ in range(count)
    ]
    return b"".join(word.to_bytes(4, "little") for word in words) + noise.randbytes(noise.randrange(4))


def _scratch(noise: random.Random) -> bytes:
    entry = [
        noise.choice((*TEXTS, "a", "a/b", 5, 1 << 63)),
        noise.choice((None, b"", bytes(5000), "text", 7)),
    ]
    return _packed([entry[: noise.randrange(3)] if noise.random() < 0.2 else entry] * noise.randrange(4))


def _value(noise: random.Random, depth: int) -> Any:
    if depth and noise.random() < 0.4:
        count = noise.choice((0, 1, 3, 20))
        match noise.randrange(4):
            case 0:
                return [_value(noise, depth - 1) for _ in range(count)]
            case 1:
                return {_key(noise): _value(noise, depth - 1) for _ in range(count)}
            case 2:
                return ExtType(2, _packed([_value(noise, depth - 1) for _ in range(count)]))
            case _:
                return ExtType(noise.choice((3, 4)), _packed([_key(noise) for _ in range(count)]))
    match noise.randrange(8):
        case 0:
            return noise.choice(TEXTS)
        case 1:
            return noise.choice((0, -1, 1 << 63, -(1 << 63), (1 << 64) - 1, None, True))
        case 2:
            return noise.choice((0.0, float("nan"), float("inf"), -1e308))
        case 3:
            shape = [noise.choice((0, 1, 2, 1 << 20, 1 << 62)) for _ in range(noise.randrange(4))]
            data = noise.randbytes(noise.choice((0, 1, 8, 16, 24)))
            return ExtType(5, _packed([noise.choice(DTYPES), shape, data]))
        case 4:
            return ExtType(1, noise.randbytes(noise.choice((0, 1, 9, 2000, 65_537))))
        case 5:
            return ExtType(noise.choice((6, 7)), noise.randbytes(noise.choice((0, 7, 8, 160))))
        case 6:
            return ExtType(noise.randrange(128), noise.randbytes(noise.choice((0, 1, 16))))
        case _:
            return noise.randbytes(noise.choice((0, 3, 100)))


def _key(noise: random.Random) -> Any:
    big = ExtType(1, noise.randbytes(12))
    pair = ExtType(2, _packed([noise.randrange(9), noise.choice(TEXTS[:4])]))
    return noise.choice(
        (noise.choice(TEXTS), noise.randrange(1 << 40), noise.randbytes(3), None, 1.5, big, pair)
    )


def _packed(value: Any) -> bytes:
    data: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return data


_WAYS = (
    _forged, _forged, _forged, _damaged, _damaged, _whole_value, _whole_value, _claim, _deep, _noise, _addresses,
    _scratch,
)  # fmt: skip
