import struct
import tracemalloc

import numpy as np
import pytest
from msgpack import ExtType, packb

from evocell.errors import ProtocolError
from evocell.wire import decode_hostile
from evocell_guest.values import encode

CAPS = {"max_bytes": 1 << 20, "max_items": 100_000, "max_depth": 16}


def refuse(data, words, **caps):
    with pytest.raises(ProtocolError, match=words):
        decode_hostile(data, **(CAPS | caps))


def array(dtype="<f8", shape=(1,), data=b"\0" * 8):
    return packb(ExtType(5, packb([dtype, list(shape), data])))


def test_length_is_capped():
    refuse(packb(b"x" * 100), "102 bytes is over the limit of 100", max_bytes=100)


def test_values_are_counted_wherever_they_are():
    caps = {"max_items": 21}
    for value in (
        [0] * 20,
        [1.5] * 20,
        tuple(range(20)),
        set(range(20)),
        {i: i for i in range(10)},
        [[0] * 9, [0] * 9],
    ):
        assert decode_hostile(encode(value), **(CAPS | caps)) == value
        refuse(encode([value]), "more than 21 values", **caps)


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: (x,), lambda x: {"k": x}])
def test_depth_is_counted_whatever_the_container(wrap):
    value = 0
    for _ in range(16):
        value = wrap(value)

    assert decode_hostile(encode(value), **CAPS) == value
    refuse(encode(wrap(value)), "deeper than 16")


def test_depth_is_refused_before_anything_is_built():
    refuse(b"\x91" * 100_000 + b"\x00", "deeper than 16")
    refuse(b"\x81\x00" * 100_000 + b"\x00", "deeper than 16")


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x02",
        b"\xdc\xff\xff\x01",
    ],
)
def test_an_announced_length_allocates_nothing(data):
    tracemalloc.start()
    try:
        refuse(data, "ends inside|more values than|longer than", max_items=1 << 40)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_copies_of_nested_payloads_are_bounded():
    value = b"x" * 500_000
    for _ in range(16):
        value = (value,)

    assert decode_hostile(encode(value), max_bytes=1 << 20, max_items=100, max_depth=16) == value
    refuse(encode(value), "nested around too much data", max_bytes=520_000)


@pytest.mark.parametrize(
    "key", [[1], {}, frozenset(), 1j, np.zeros(1), ExtType(9, b"")], ids=lambda key: type(key).__name__
)
def test_only_plain_keys_are_taken(key):
    packed = packb(key) if isinstance(key, ExtType) else encode(key)

    refuse(b"\x81" + packed + b"\x00", "dict key or set element")
    refuse(packb(ExtType(3, b"\x91" + packed)), "dict key or set element")
    refuse(b"\x81" + packb(ExtType(2, b"\x91" + packed)) + b"\x00", "dict key or set element")


def test_a_flood_of_colliding_tuples_is_refused():
    flood = {(i, 0): 0 for i in range(4097)}
    refuse(encode(flood), "hashes can collide")
    flood.popitem()
    assert decode_hostile(encode(flood), **CAPS) == flood


def test_a_flood_over_many_maps_and_sets_is_refused():
    many = [[{(i,): 0}, {(i,)}] for i in range(2049)]

    refuse(encode(many), "hashes can collide")


def test_a_flood_of_colliding_big_ints_is_refused():
    refuse(encode({(2**61 - 1) << (64 + i % 7) | i: 0 for i in range(4200)}), "hashes can collide")
    # All of these have the same hash, but only a handful of 64-bit numbers can.
    assert decode_hostile(encode({i * (2**61 - 1): 0 for i in range(8)}), **CAPS)


def test_long_keys_are_refused():
    refuse(encode({tuple(range(i, i + 400)): 0 for i in range(50)}), "too long")
    refuse(encode({("x" * 3000 + str(i),): 0 for i in range(100)}), "hashes can collide")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends inside"),
        (b"\xc1", "0xc1 begins no value"),
        (b"\x00\x00", "ends before the message"),
        (b"\x92\x00", "more values than there are bytes"),
        (b"\xa2a", "ends inside"),
        (b"\xa1\xff", "UnicodeDecodeError"),
        (packb(ExtType(0, b"x")), "no extension type 0"),
        (b"\xd6\xff\x00\x00\x00\x00", "no extension type 255"),
        (packb(ExtType(1, b"")), "a big int has 0 bytes"),
        (packb(ExtType(1, b"1" * 65537)), "a big int has 65537 bytes"),
        (packb(ExtType(2, b"")), "is empty"),
        (packb(ExtType(2, b"\x00")), "something else"),
        (packb(ExtType(2, b"\x90\x00")), "does not fill"),
        (packb(ExtType(2, b"\x91\xa5ab")) + b"cde", "ends inside"),
        (packb(ExtType(6, b"123")), "broken length"),
        (packb(ExtType(8, b"123")), "does not have 16 bytes"),
        (b"\xd4\x02\xdc" + b"\x00\x00", "more values than"),
    ],
)
def test_malformed_messages_are_refused(data, words):
    refuse(data, words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (array("|O", (1,)), "dtype '|O' cannot travel"),
        (array("<M8", (1,)), "cannot travel"),
        (array("<f16", (1,), b"\0" * 16), "cannot travel"),
        (array(">f8"), "cannot travel"),
        (array("|S0", (5,), b""), "cannot travel"),
        (array("|S99999999", (0,), b""), "cannot travel"),
        (array("<f8", (2,)), "needs 16 bytes, not 8"),
        (array("<f8", (2**31, 2**31), b""), "more than"),
        (array("<f8", (0, 2**31), b""), "more than"),
        (array("|u1", (2**30, 0), b""), "without elements"),
        (array("<f8", (1,) * 33), "32 dimensions"),
        (array("<f8", (-1,)), "not a length"),
        (array("<f8", (1.5,)), "not a length"),
        (array("|b1", (1,), b"\x02"), "other than 0 and 1"),
        (array("<U1", (1,), struct.pack("<I", 0x110000)), "not a code point"),
        (packb(ExtType(5, packb(["<f8", [1]]))), "not made of"),
        (packb(ExtType(5, packb([b"<f8", [1], b"\0" * 8]))), "not a short string"),
        (packb(ExtType(5, packb(["<f8", [1], "\0" * 8]))), "not bytes"),
        (packb(ExtType(5, packb(["<f8", [1], b"\0" * 8]) + b"\0")), "does not fill"),
        (packb(ExtType(5, packb(["<f8", [1], b"\0" * 8])[:-1])), "ends inside"),
        (packb(ExtType(5, b"")), "is empty"),
    ],
)
def test_malformed_arrays_are_refused(data, words):
    refuse(data, words)
