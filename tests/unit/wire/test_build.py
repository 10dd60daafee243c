"""Long messages are built in short steps, and come out as they would in one."""

import random

import numpy as np
import pytest

from evocell.wire import decode_hostile
from evocell.wire.scan import STEP_BYTES, STEP_VALUES, scan
from evocell_guest.decoding import decode
from evocell_guest.values import encode

CAPS = {"max_bytes": 64 << 20, "max_items": 2_000_000, "max_depth": 70}


def random_value(rng, size, depth=0):
    """A value of about so many values, in containers of all kinds and shapes."""
    if size <= 1 or depth > 20:
        return rng.choice([None, True, 7, -1, 2.5, "text", b"bytes", 1 << 70, 1j])
    parts = rng.choice([2, 3, 20, size])
    sizes = [max(1, rng.randint(0, 2 * size // parts)) for _ in range(parts)]
    kind = rng.choice(["list", "tuple", "map", "set", "frozenset", "numbers"])
    if kind == "list":
        return [random_value(rng, one, depth + 1) for one in sizes]
    if kind == "tuple":
        return tuple(random_value(rng, one, depth + 1) for one in sizes)
    if kind == "map":
        return {
            rng.choice([f"k{i}", i, i / 2]): random_value(rng, one, depth + 1) for i, one in enumerate(sizes)
        }
    if kind == "numbers":
        return [rng.random() for _ in range(size)]
    made = {rng.choice([f"k{i}", i, i / 2]) for i in range(size)}
    return made if kind == "set" else frozenset(made)


LONG = {
    "list": list(range(-5000, 5000)),
    "mixed list": ["a", 1] * 50_000,
    "list at a step": [None] * STEP_VALUES,
    "list beyond a step": [None] * (STEP_VALUES + 1),
    "list of two steps": [None] * (2 * STEP_VALUES),
    "lists": [[i, [i]] for i in range(7000)],
    "few long lists": [["x"] * 9000, 1, ["y"] * 9000, 2, 3, [["z"] * 9000]],
    "deep": [[[[[["x"] * 9000], 1], 2], 3], 4],
    "empty ones": [[]] * 9000,
    "empty maps": [{}] * 9000,
    "map of text": {f"{i}": i for i in range(20_000)},
    "map of maps": {i: {"a": i, "b": [i]} for i in range(3000)},
    "map of long lists": {i: ["x"] * 5000 for i in range(5)},
    "map with keys of tuples": {(i, (i,)): ["x", i] for i in range(600)},
    "tuple": tuple(range(20_000)),
    "tuples": ((1, 2),) * 5000,
    "set": {f"{i}" for i in range(20_000)},
    "frozensets": [frozenset({1, "a"})] * 5000,
    "set of tuples": {(i, "a") for i in range(1900)},
    "ints": list(range(300_000)),
    "floats": [0.5] * 300_000,
    "arrays": [np.arange(50)] * 3000,
    "texts": ["é" * 100_000] * 30,
    "blobs": dict.fromkeys(range(30), b"x" * 100_000),
    "one blob": b"x" * (4 << 20),
    "blobs in lists": [[b"x" * (3 << 20)], [[b"y" * (3 << 20)], "z"]],
    "big ints": [1 << 3000] * 9000,
}


def same(left, right):
    return encode(left) == encode(right) and type(left) is type(right)


def count(value):
    if isinstance(value, dict):
        return 1 + sum(count(key) + count(item) for key, item in value.items())
    if isinstance(value, list) and len(value) > 15 and len(set(map(type, value)) & {int, float}) == 1:
        return 1  # it travels as one value, and is built piece by piece
    if isinstance(value, list | tuple | set | frozenset):
        return 1 + sum(map(count, value))
    return 1


@pytest.mark.parametrize("value", LONG.values(), ids=LONG)
def test_what_is_built_in_steps_is_what_one_step_builds(value):
    data = encode(value)

    made = decode_hostile(data, **CAPS)

    assert same(made, decode(data))
    data = encode((1, {"k": value, "l": [2]}))
    assert same(decode_hostile(data, **CAPS), decode(data))


@pytest.mark.parametrize("seed", range(40))
def test_random_values_come_out_as_in_one_step(seed):
    rng = random.Random(seed)
    data = encode(random_value(rng, rng.choice([3000, 10_000, 40_000])))

    assert same(decode_hostile(data, **CAPS), decode(data))


def test_the_order_of_keys_is_kept_and_the_last_of_two_equal_keys_counts():
    pairs = [(i, i) for i in range(6000)] + [(3, "again"), ("new", 1)]
    data = (
        b"\xdf" + len(pairs).to_bytes(4, "big") + b"".join(map(encode, (x for pair in pairs for x in pair)))
    )

    made = decode_hostile(data, **CAPS)

    assert made == dict(pairs)
    assert list(made) == list(dict(pairs))


def check_parts(data, long):
    """Parts follow one another without a gap, and none that is built in one step is large."""
    place = None
    for part in long.parts:
        assert place is None or part.begin == place
        assert part.count > 0
        place = part.end
        if part.inner is not None:
            assert part.count == 1
            check_parts(data, part.inner)
            continue
        piece = b"\xdd" + part.count.to_bytes(4, "big") + data[part.begin : part.end]
        made = decode(piece)
        assert len(made) == part.count
        assert count(made) <= 3 * STEP_VALUES
        assert part.count == 1 or len(piece) <= 4 * STEP_BYTES


@pytest.mark.parametrize("value", LONG.values(), ids=LONG)
def test_no_step_is_long(value):
    data = encode([value, value])

    long = scan(data, max_bytes=64 << 20, max_items=4_000_000, max_depth=70)

    if long is None:
        assert count(value) <= 2 * STEP_VALUES
        assert len(data) <= 2 * STEP_BYTES
    else:
        check_parts(data, long)


@pytest.mark.parametrize("seed", range(40))
def test_no_step_of_a_random_value_is_long(seed):
    rng = random.Random(seed)
    data = encode(random_value(rng, 40_000))

    long = scan(data, max_bytes=64 << 20, max_items=4_000_000, max_depth=70)

    if long is not None:
        check_parts(data, long)
