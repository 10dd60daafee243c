"""Long messages are packed in pieces; what comes out is what one call makes of what the reader wants."""

import math

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evocell.errors import ProtocolError
from evocell.pipe import packing
from evocell.pipe.codec import PAIRS, MessageEncoder, TypeOptions
from evocell.pipe.packing import Packing, is_long
from evocell.wire.frames import FrameLimits, Response
from evocell_guest import Array
from evocell_guest.values import encode

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.complex_numbers(allow_nan=False)
)
keys = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.text(max_size=3)
    | st.tuples(st.integers())
)
arrays = st.sampled_from(
    [
        np.arange(24).reshape(2, 3, 4),
        np.zeros((3, 0, 2)),
        np.zeros((0, 3)),
        np.array(2.5),
        np.array([["a", "é"], ["b", ""]]),
        np.array([b"x", b""]),
        np.arange(5) * 1j,
        np.arange(7, dtype="u8") + (1 << 63),
        np.ones((5, 1, 1), "?"),
        np.arange(40, dtype="f4").reshape(40, 1),
    ]
)
values = st.recursive(
    scalars | arrays | st.frozensets(st.integers() | st.text(max_size=2), max_size=5),
    lambda x: st.lists(x, max_size=6) | st.tuples(x, x) | st.dictionaries(keys, x, max_size=4),
    max_leaves=12,
)


def wanted(value, types):
    """What one call of msgpack is given so that its reader gets what it wants."""

    def extension(one):
        return msgpack.unpackb(encode(one), ext_hook=msgpack.ExtType, strict_map_key=False)

    def key(one):
        return one if type(one) in (str, int, bool, type(None)) and not big(one) else extension(one)

    def big(one):
        return type(one) is int and not -(1 << 63) <= one < 1 << 64

    if isinstance(value, np.ndarray | Array):
        return wanted(value.tolist(), types) if types.arrays == "list" else extension(value)
    if isinstance(value, list):
        return [wanted(item, types) for item in value]
    if isinstance(value, frozenset) and types.tuples == "ext":
        return extension(value)
    if isinstance(value, tuple | frozenset):
        items = sorted(value, key=encode) if isinstance(value, frozenset) else value
        made = [wanted(item, types) for item in items]
        return made if types.tuples == "list" else msgpack.ExtType(2, msgpack.packb(made))
    if isinstance(value, dict):
        if types.maps == "plain" and not all(type(one) is str and one != "__proto__" for one in value):
            pairs = [[key(one), wanted(item, types)] for one, item in value.items()]
            return msgpack.ExtType(PAIRS, msgpack.packb(pairs))
        return {key(one): wanted(item, types) for one, item in value.items()}
    return extension(value) if big(value) or isinstance(value, complex) else value


def packed(value, types, max_bytes=1 << 26):
    encoder = MessageEncoder(FrameLimits(max_bytes=max_bytes))
    encoder.types = types
    return encoder.encode(Response(1, None, value))


ALL_TYPES = [
    TypeOptions(tuples=tuples, arrays=arrays, maps=maps)
    for tuples in ("list", "ext")
    for arrays in ("list", "ext")
    for maps in ("any", "plain")
    if (tuples, arrays, maps) != ("ext", "ext", "any")
]


@given(values, st.sampled_from(ALL_TYPES), st.sampled_from([1, 3, 4096]))
def test_a_message_in_pieces_is_the_message(value, types, step):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "STEP_VALUES", step)
        patch.setattr(packing, "_SORTED_AT_ONCE", step)

        assert packed(value, types) == msgpack.packb([1, 1, None, wanted(value, types)])


@pytest.mark.parametrize(
    "value",
    [
        list(range(70_000)),
        [[i, [str(i)]] for i in range(5000)],
        {str(i): i for i in range(70_000)},
        np.arange(200_000, dtype="u1").reshape(400, 500),
        np.arange(70_000).reshape(70_000, 1),
        np.arange(70_000).reshape(1, 70_000),
        np.zeros((5000, 0)),
        frozenset(range(40_000)),
        [b"x" * 300_000, "é" * 300_000],
        {"a": [(i, {"b": i}) for i in range(5000)]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_long_values_are_packed_as_short_ones(value):
    for types in ALL_TYPES:
        assert is_long(value)
        assert packed(value, types) == msgpack.packb([1, 1, None, wanted(value, types)])


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2), (5,), (), (0, 2), (3, 0)])
@pytest.mark.parametrize("dtype", ["<f8", "<i2", "|b1", "<c16", "<U3"])
def test_an_array_without_numpy_is_packed_like_one_of_numpy(shape, dtype, monkeypatch):
    monkeypatch.setattr(packing, "STEP_VALUES", 4)
    made = np.zeros(shape, dtype)
    bare = Array(dtype, shape, made.tobytes())

    assert packed(bare, TypeOptions()) == packed(made, TypeOptions())


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1 << 20, 0), "u1"),
        np.zeros((1 << 20,), "u1"),
        np.zeros((1 << 18, 1, 1, 1, 1, 1), "u1"),
        np.zeros((1 << 10, 1 << 10, 0)),
        Array("|u1", (1 << 20, 0), b""),
        Array("|u1", (1 << 20,), bytes(1 << 20)),
    ],
    ids=lambda array: f"{type(array).__name__}{array.shape}",
)
def test_an_array_that_becomes_more_than_the_limit_is_refused_before_it_is_unfolded(array, monkeypatch):
    def unfolded(*_):
        raise AssertionError

    monkeypatch.setattr(packing, "_part", unfolded)
    for value in (array, [array], {"a": (array, 1)}):
        with pytest.raises(ProtocolError, match="takes more than the limit of 1,000,000 bytes"):
            packed(value, TypeOptions(), max_bytes=1_000_000)


def test_many_arrays_share_one_limit(monkeypatch):
    with pytest.raises(ProtocolError, match="more than the limit"):
        packed([np.zeros((1 << 17, 0), "u1")] * 40, TypeOptions(), max_bytes=1_000_000)
    with pytest.raises(ProtocolError, match="more than the limit"):
        packed([[0] * 100_000] * 40, TypeOptions(), max_bytes=1_000_000)


@pytest.mark.parametrize(
    ("value", "long"),
    [
        (1, False),
        ([1] * 1000, False),
        ([1] * 10_000, True),
        ([[1] * 100] * 100, True),
        ("x" * 1000, False),
        ("x" * 300_000, True),
        (["x" * 1000] * 1000, True),
        ({i: [i] for i in range(3000)}, True),
        (np.zeros(10), False),
        (np.zeros(10_000), True),
        (np.zeros((10_000, 0)), True),
        ([(1,)] * 10_000, True),
        (math.nan, False),
        (Response(1, None, [1] * 10_000), True),
        (Response(1, None, [1]), False),
    ],
)
def test_what_is_long_is_known_at_once(value, long):
    assert is_long(value) is long


def test_what_has_no_encoding_is_refused_by_its_place():
    with pytest.raises(ProtocolError, match="cannot leave or enter"):
        packed([object()] + [1] * 10_000, TypeOptions())
    made = Packing(
        tuples_as_lists=True, arrays_as_lists=True, is_plain_map=None, pairs_code=PAIRS, max_bytes=9
    )
    with pytest.raises(ValueError, match=r"surrogate|encode"):
        made.pack(["\ud800"])
