"""Any bytes either decode or raise `ProtocolError`; what they cost is bounded by the caps."""

from __future__ import annotations

import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.unit.wire import colliding

from evocell.errors import ProtocolError
from evocell.wire import decode_hostile, decode_response, values
from evocell.wire.scan import HELD_FACTOR
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
    assert type(value) in PLAIN or type(value).__name__ in {"ndarray", "Array"}
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


# Structure that makes sense, with members that were chosen to cost their reader as much as they can.


def head(kind, count):
    """The header of a list or a map in one of its widths."""
    short, middle, long = {"list": (0x90, 0xDC, 0xDD), "map": (0x80, 0xDE, 0xDF)}[kind]
    if count < 16:
        return bytes([short | count])
    return (
        bytes([middle]) + count.to_bytes(2, "big")
        if count < 1 << 16
        else bytes([long]) + count.to_bytes(4, "big")
    )


def extension(code, payload):
    return msgpack.packb(msgpack.ExtType(code, payload))


def array(dtype, shape, data):
    return extension(5, msgpack.packb([dtype, list(shape), data]))


CHAIN = [b"\xcf" + key.to_bytes(8, "big") for key in colliding.ints_for_a_dict(12)]
PAIRS = [extension(2, msgpack.packb(pair)) for pair in colliding.tuples(600)]
numbers = st.one_of(
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.integers(0, 40).map(lambda n: 1 << n),
    st.integers(-3, 8).map(lambda n: n * (2**61 - 1)),
    st.sampled_from([0, 1, -1, -2, 127, 128, 255, 256]),
)
hashed = st.one_of(
    numbers.map(msgpack.packb),
    numbers.map(float).map(msgpack.packb),
    st.sampled_from(
        [b"\xc0", b"\xc2", b"\xc3", b"\xa0", b"\xc4\x00", b"\xcb\x7f\xf8" + bytes(6), b"\xd4\x02\x90"]
    ),
    st.text(max_size=3).map(msgpack.packb),
    st.binary(max_size=3).map(lambda data: extension(1, data + b"\x01")),
    st.lists(numbers, max_size=3).map(lambda items: extension(2, msgpack.packb(items))),
)
leaves = st.one_of(
    hashed,
    st.sampled_from([b"\x90", b"\x80", b"\xd4\x03\x90", b"\xd4\x04\x90", b"\xc7\x00\x06", b"\xc7\x00\x07"]),
    st.binary(max_size=40).map(lambda data: extension(6, data)),
    st.tuples(
        st.sampled_from(["|u1", "|b1", "<f8", "<c16", "|S3", "<U2", "|O", "<f2"]),
        st.lists(st.sampled_from([0, 1, 2, 3, 1000, 1 << 20]), max_size=5),
        st.integers(0, 24),
    ).map(lambda parts: array(parts[0], parts[1], bytes(parts[2]))),
)


LONGEST = 2 << 20
"""Bytes of a message here, over twice what is read: repetitions of repetitions would fill the memory."""


def repeated(item, count):
    """A list of one item ``count`` times, or as often as `LONGEST` permits."""
    count = max(1, min(count, LONGEST // len(item)))
    return head("list", count) + item * count


@st.composite
def containers(draw, inside):
    """A container of anything; now and then one member many times, or keys that collide."""
    kind = draw(st.sampled_from(["list", "map", "tuple", "set", "frozenset", "repeated", "chain", "pairs"]))
    if kind == "repeated":
        return repeated(draw(inside), draw(st.sampled_from([2, 19, 77, 300, 3000])))
    if kind == "chain":
        keys = CHAIN[: draw(st.sampled_from([10, 600, len(CHAIN)]))]
        return head("map", len(keys)) + b"".join(key + b"\xc0" for key in keys)
    if kind == "pairs":
        keys = PAIRS[: draw(st.sampled_from([10, 600]))]
        return extension(draw(st.sampled_from([3, 4])), head("list", len(keys)) + b"".join(keys))
    if kind == "map":
        pairs = draw(st.lists(st.tuples(hashed, inside), max_size=8))
        return head("map", len(pairs)) + b"".join(key + item for key, item in pairs)
    items = draw(st.lists(inside if kind in {"list", "tuple"} else hashed, max_size=20))
    plain = head("list", len(items)) + b"".join(items)
    return plain if kind == "list" else extension({"tuple": 2, "set": 3, "frozenset": 4}[kind], plain)


class Shown(bytes):
    """A message that a failing test shows shortly."""

    __slots__ = ()

    def __repr__(self):
        return f"<{len(self)} bytes, {self[:200].hex()}>"


structured = st.recursive(leaves, containers, max_leaves=12)
messages = st.one_of(structured, structured.map(lambda one: repeated(one, 400))).map(Shown)
WIDE = {"max_bytes": 1 << 20, "max_items": 60_000, "max_depth": 16}
SLACK_BYTES = 64 << 10
"""What a message of no length takes: the error and its frames, caches of the interpreter and of numpy."""


@pytest.fixture(params=["with numpy", "without numpy"])
def host(request, monkeypatch):
    if request.param == "without numpy":
        monkeypatch.setattr(values, "_numpy", lambda: None)
    return request.param


def allocated(data):
    """What decoding holds and held, in bytes, and the value or None."""
    tracemalloc.start()
    try:
        value = None
        try:
            value = decode_hostile(data, **WIDE)
        except ProtocolError as error:
            assert len(str(error)) < 500  # noqa: PT017 - most of these are refused
        held, peak = tracemalloc.get_traced_memory()
        return held, peak, value
    finally:
        tracemalloc.stop()


def check_cost(data):
    held, peak, value = allocated(data)

    assert held <= HELD_FACTOR * len(data) + SLACK_BYTES
    # While it is read, what is nested in tuples and sets is there once more for each level.
    assert peak <= (HELD_FACTOR + WIDE["max_depth"]) * len(data) + SLACK_BYTES
    return value


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=messages)
def test_what_a_message_costs_is_in_proportion_to_its_length(host, data):
    check(check_cost(data))


@pytest.mark.parametrize(
    "member",
    [
        b"\x90",
        b"\x80",
        b"\x81\x00\x00",
        b"\xd4\x03\x90",
        b"\xd4\x04\x90",
        extension(3, b"\x95\x00\x01\x02\x03\x04"),
        extension(3, head("list", 19) + bytes(range(19))),
        extension(4, head("list", 77) + bytes(range(77))),
        extension(2, b"\x91\x90"),
        b"\xa2\xc3\xbf",
        b"\xca" + bytes(4),
        b"\xc7\x00\x06",
        array("|u1", (0,), b""),
        array("|u1", (0,) * 32, b""),
        array("|u1", (), b"x"),
        array("|u1", (40, 0), b""),
        head("map", 6) + b"".join(bytes([n, 0]) for n in range(6)),
        head("map", 11) + b"".join(bytes([n, 0]) for n in range(11)),
    ],
    ids=bytes.hex,
)
def test_members_that_cost_the_most_stay_below_the_factor(host, member):
    count = 700

    value = check_cost(head("list", count) + member * count)

    assert value is not None
    assert len(value) == count


def test_what_numbers_cost_is_in_proportion_to_their_length(host):
    for data in (
        extension(6, np.arange(50_000.0).tobytes()),
        extension(7, np.arange(1 << 40, (1 << 40) + 50_000).tobytes()),
        array("<f8", (50_000,), bytes(400_000)),
        msgpack.packb("\U0001f600" + "a" * 500_000),
        msgpack.packb({1 << 40 | n: n for n in range(20_000)}),
        head("list", 4) + extension(3, head("list", 9000) + b"".join(map(msgpack.packb, range(9000)))) * 4,
    ):
        assert check_cost(data) is not None
