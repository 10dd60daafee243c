import random

import pytest
from msgpack import ExtType, packb
from tests.unit.wire import colliding

from evocell.errors import ProtocolError
from evocell.wire import decode_hostile, decode_response
from evocell.wire.probing import check_keys
from evocell_guest.values import encode

CAPS = {"max_bytes": 16 << 20, "max_items": 1_000_000, "max_depth": 16}
RANDOM = random.Random(2)
MANY = 20_000
HONEST = {
    "a range": range(MANY),
    "a range from the end": range(0, -MANY, -1),
    "a shuffled range": RANDOM.sample(range(MANY), MANY),
    "random 64 bits": [RANDOM.getrandbits(64) for _ in range(MANY)],
    "random signed": [RANDOM.getrandbits(63) - (1 << 62) for _ in range(MANY)],
    "snowflakes": [(1_700_000_000_000 + 7 * i << 22) | RANDOM.getrandbits(5) for i in range(MANY)],
    "addresses": range(0x7F0000000000, 0x7F0000000000 + 16 * MANY, 16),
    **{f"shifted by {n}": [i << n for i in range(MANY)] for n in (4, 8, 12, 16, 20, 24, 32, 40, 43, 48)},
    **{f"times ten to the {n}": [i * 10**n for i in range(MANY)] for n in (3, 6, 9, 12)},
    "cells of a grid": [(i % 300) << 32 | i // 300 for i in range(MANY)],
    "reversed bits": [int(f"{i:017b}"[::-1], 2) << 40 for i in range(MANY)],
    "squares": [i * i for i in range(MANY)],
    "floats": [RANDOM.random() for _ in range(MANY)],
    "tenths": [i / 10 for i in range(MANY)],
    "halves": [i / 2 for i in range(MANY)],
    "fractions of powers of two": [i / 2**20 for i in range(MANY)],
    "large floats": [i * 2.0**600 for i in range(MANY)],
    "text and numbers": [*range(MANY // 2), *map(str, range(MANY // 2))],
    "ints, floats, bools and None": [True, False, None, *range(2, MANY), *(i + 0.5 for i in range(MANY))],
    "text": list(map(str, range(MANY))),
}


def map_of(keys):
    """A map with these keys, written as no dict could be in reasonable time."""
    pairs = b"".join(encode(key) + b"\xc0" for key in keys)
    return b"\xdf" + len(keys).to_bytes(4, "big") + pairs


def set_of(keys, code=3):
    elements = b"".join(encode(key) for key in keys)
    return packb(ExtType(code, b"\xdd" + len(keys).to_bytes(4, "big") + elements))


@pytest.mark.parametrize("keys", HONEST.values(), ids=HONEST)
def test_keys_that_programs_use_are_taken(keys):
    plain = dict.fromkeys(keys, 0)

    assert decode_hostile(encode(plain), **CAPS) == plain
    assert list(decode_hostile(encode(plain), **CAPS)) == list(plain)
    assert decode_hostile(encode(set(plain)), **CAPS) == set(plain)
    assert decode_hostile(encode(frozenset(plain)), **CAPS) == frozenset(plain)


@pytest.mark.parametrize("bits", [12, 13, 16])
def test_ints_chosen_to_follow_a_chain_are_refused(bits):
    keys = colliding.ints_for_a_dict(bits)
    value = map_of(keys)

    for data in (value, b"\x92\x01" + value, b"\x81\xa1k" + value, packb(ExtType(2, b"\x91" + value))):
        with pytest.raises(ProtocolError, match="keys of a map collide"):
            decode_hostile(data, **CAPS)
    with pytest.raises(ProtocolError, match="collide"):
        decode_response(b"\x82\xa1t\xa9completed\xa1v" + value, **CAPS)


@pytest.mark.parametrize(
    "alike",
    [
        lambda keys: [float(key) for key in keys],
        lambda keys: [key + (2**61 - 1) * (index % 7) for index, key in enumerate(keys)],
        lambda keys: [float(key) if index % 2 else key for index, key in enumerate(keys)],
        lambda keys: [None, True, *keys[2:]],
    ],
    ids=["floats", "ints of the same hash", "ints and floats", "None and bools between"],
)
def test_whatever_hashes_like_such_ints_is_refused(alike):
    with pytest.raises(ProtocolError, match="collide"):
        decode_hostile(map_of(alike(colliding.ints_for_a_dict(13))), **CAPS)


def test_a_table_in_between_counts_too():
    """The keys collide only while the dict is small; those after them give it a larger table."""
    keys = [*colliding.ints_for_a_dict(13), *range(1 << 40, (1 << 40) + 100_000)]

    with pytest.raises(ProtocolError, match="collide"):
        decode_hostile(map_of(keys), **CAPS)


def test_text_among_chosen_ints_hides_nothing():
    keys = [*map(str, range(50)), *colliding.ints_for_a_dict(14)]

    with pytest.raises(ProtocolError, match="collide"):
        decode_hostile(map_of(keys), **CAPS)


@pytest.mark.parametrize("code", [3, 4])
def test_elements_of_one_hash_are_refused(code):
    keys = colliding.tuples(2000)
    assert len(set(map(hash, keys))) == 1

    with pytest.raises(ProtocolError, match="elements of a set collide"):
        decode_hostile(set_of(keys, code), **CAPS)
    with pytest.raises(ProtocolError, match="elements of a set collide"):
        decode_hostile(set_of([7] * 4000, code), **CAPS)  # one again and again, as no set is written


def test_tuples_of_one_hash_are_refused_as_keys():
    with pytest.raises(ProtocolError, match="keys of a map collide"):
        decode_hostile(map_of(colliding.tuples(2000)), **CAPS)


def test_honest_tuples_and_large_ints_are_taken_up_to_their_number():
    keys = [*((i, -i) for i in range(2000)), *(1 << 70 | i for i in range(2000))]

    assert set(decode_hostile(map_of(keys), **CAPS)) == set(keys)
    assert decode_hostile(encode(set(keys)), **CAPS) == set(keys)


def test_few_keys_need_no_look():
    check_keys(colliding.tuples(512), for_set=False)
    check_keys(colliding.tuples(512), for_set=True)
