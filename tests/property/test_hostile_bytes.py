"""Any bytes either decode or raise `ProtocolError`; what they cost is bounded by the caps."""

from __future__ import annotations

import msgpack
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evocell.errors import ProtocolError
from evocell.wire import decode_hostile, decode_response
from evocell_guest.values import encode

CAPS = {"max_bytes": 1 << 16, "max_items": 500, "max_depth": 8}
PLAIN = (type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)

SEEDS = [
    encode(value)
    for value in (
        {"t": "completed", "v": [1, (2, {3: {4, (5, "six")}}), 2**70, 1j]},
        {"t": "raised", "type": "E", "message": "m" * 40, "traceback": "t" * 300},
        {"t": "compiled", "code": b"x" * 70_000, "imports": ["os"]},
        {"floats": [1.0] * 20, "ints": [1] * 20, (1, 2): frozenset({b"a"})},
        ((((("deep",),),),),),
        __import__("numpy").arange(12).reshape(3, 4),
    )
]


@st.composite
def mutants(draw):
    """Valid messages with a few bytes changed, removed, repeated or put in."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, min(len(data), 120)))
        change = draw(st.sampled_from(["set", "cut", "insert", "double"]))
        if change == "set" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif change == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        elif change == "insert":
            data[at:at] = draw(st.binary(max_size=8))
        else:
            data[at:at] = data[at : at + 16]
    return bytes(data)


# Structure without sense: headers, lengths and extension codes are frequent.
soups = st.lists(
    st.one_of(
        st.sampled_from([bytes([b]) for b in (*range(0x80, 0xA8), *range(0xC0, 0xE0), 0, 1, 0x7F, 0xFF)]),
        st.tuples(st.sampled_from([0xC7, 0xD4, 0xD5, 0xD7, 0xD8]), st.integers(0, 12), st.integers(0, 9)).map(
            bytes
        ),
        st.binary(max_size=6),
    ),
    max_size=30,
).map(b"".join)


def check(value):
    assert type(value) in PLAIN or type(value).__name__ == "ndarray"
    if isinstance(value, dict):
        for key, item in value.items():
            check(key)
            check(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            check(item)


@settings(max_examples=400)
@given(st.one_of(st.binary(max_size=80), mutants(), soups))
@example(b"")
@example(b"\xc1")
@example(b"\xd6\xff\x00\x00\x00\x00")
@example(b"\xa1\xff")
@example(b"\x81\x90\x00")
@example(b"\xc7\x01\x02")
@example(b"\xc7\x01\x02\xdc\x00\x00")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
def test_any_bytes_decode_or_are_refused(data):
    try:
        value = decode_hostile(data, **CAPS)
    except ProtocolError:
        return
    check(value)


@settings(max_examples=200)
@given(st.one_of(mutants(), soups))
def test_any_bytes_are_a_response_or_are_refused(data):
    try:
        response = decode_response(data, **CAPS)
    except ProtocolError:
        return
    assert response["t"] in {"completed", "raised", "rejected", "limit", "compiled", "info"}


@given(st.sampled_from(SEEDS), st.data())
def test_every_cut_of_a_message_is_refused(seed, data):
    end = data.draw(st.integers(0, len(seed) - 1))
    try:
        decode_hostile(seed[:end], max_bytes=1 << 20, max_items=1000, max_depth=20)
    except ProtocolError:
        return
    raise AssertionError(end)


@given(st.recursive(st.integers() | st.text(max_size=3), lambda x: st.lists(x, max_size=3), max_leaves=8))
def test_plain_messagepack_of_others_is_read(value):
    try:
        data = msgpack.packb(value)
    except (OverflowError, UnicodeEncodeError):
        return

    assert decode_hostile(data, **CAPS) == value
