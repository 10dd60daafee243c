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
    assert decode_hostile(packb(b"x" * 98), **(CAPS | {"max_bytes": 100})) == b"x" * 98


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


def test_little_data_may_be_nested_around_however_few_bytes_are_allowed():
    def nested(levels):
        value = b"x" * 60_000
        for _ in range(levels):
            value = (value,)
        return encode(value)

    caps = {"max_bytes": 70_000, "max_items": 100, "max_depth": 64}
    decode_hostile(nested(16), **caps)  # 0.96 MB of copies; eight times what is allowed are 0.56 MB
    refuse(nested(32), "nested around too much data", **caps)


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


def test_what_is_hashed_is_bounded_to_the_item_and_to_the_byte():
    items = 4096 * 4
    keys = {tuple(range(i, i + 64)): 0 for i in range(0, items, 64)}
    assert decode_hostile(encode(keys), **CAPS) == keys
    refuse(encode(keys | {(0,): 0}), "too long")

    longest = b"x" * (4096 * 64 - 6)  # which take a header of their own, and one of the tuple around them
    assert decode_hostile(encode({(longest,): 0}), **CAPS) == {(longest,): 0}
    refuse(encode({(longest + b"x",): 0}), "hashes can collide")


FORMS = (
    *(bytes([first]) for first in (0x00, 0x7F, 0x80, 0x90, 0xA0, 0xC0, 0xC2, 0xC3, 0xE0, 0xFF)),
    *(bytes([first]) + bytes(size) for first, size in (
        (0xCA, 4), (0xCB, 8), (0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8), (0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)
    )),
    *(bytes([0xA0 + size]) + b"x" * size for size in (1, 31)),
    *(bytes([first]) + (5).to_bytes(size, "big") + b"abcde" for first, size in (
        (0xC4, 1), (0xC5, 2), (0xC6, 4), (0xD9, 1), (0xDA, 2), (0xDB, 4)
    )),
    *(bytes([first]) + (2).to_bytes(size, "big") + b"\x01\xc2" for first, size in ((0xDC, 2), (0xDD, 4))),
    *(bytes([first]) + (1).to_bytes(size, "big") + b"\x01\xc2" for first, size in ((0xDE, 2), (0xDF, 4))),
    b"\x92\x01\x02", b"\x9f" + b"\xc0" * 15, b"\x82\x01\x02\x03\x04", b"\x8f" + bytes(n // 2 for n in range(30)),
    *(bytes([first, 1]) + b"\x17" * size for first, size in ((0xD4, 1), (0xD5, 2), (0xD6, 4), (0xD7, 8), (0xD8, 16))),
    *(bytes([first]) + (3).to_bytes(size, "big") + b"\x01\x17\x17\x17" for first, size in (
        (0xC7, 1), (0xC8, 2), (0xC9, 4)
    )),
    *(packb(ExtType(code, b"\x93\x01\x02\x03")) for code in (2, 3, 4)),
    packb(ExtType(2, b"\xdc\x00\x01\x05")), packb(ExtType(2, b"\xdd\x00\x00\x00\x01\x05")),
    *(packb(ExtType(code, bytes(24))) for code in (6, 7)), b"\xc7\x00\x06",
    b"\xd8\x08" + bytes(16), array(), array("|u1", (2, 3), b"abcdef"), array("|S31", (1,), b"x" * 31), array("<f8", ()),
    array("|b1", (200,), bytes(200)), array("|b1", (300,), bytes(300)), array("|b1", (70_000,), bytes(70_000)),
    array("|u1", (1,) * 32, b"x"), packb(ExtType(5, b"\x93\xa3|u1\x91\xcf" + (1).to_bytes(8, "big") + b"\xc4\x01x")),
)  # fmt: skip
"""Each way in which a value can be written, in every width of its length."""


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form[:6].hex())
def test_each_form_of_a_value_is_read_to_its_last_byte_and_no_further(form):
    decode_hostile(form, **CAPS)
    assert decode_hostile(b"\x93\xc3" + form + b"\xc3", **CAPS)[::2] == [True, True]
    for end in range(1, len(form)) if len(form) < 1000 else ():
        refuse(form[:end], "ends inside|more values than|longer than what is left")
    refuse(form + b"\xc3", "ends before the message")


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
        (packb(ExtType(2, b"\xa0")), "something else"),
        (packb(ExtType(2, b"\x8f")), "something else"),
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
        (packb(ExtType(5, b"\x93\xa3<f8\x91\x80\xc4\x00")), "not a length"),
        (packb(ExtType(5, b"\x93\xa3<f8\x91\xd0\x01\xc4\x08" + bytes(8))), "not a length"),
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
