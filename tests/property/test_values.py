"""Values survive the codec, in one form, whichever half of msgpack does the work."""

from __future__ import annotations

import math
import pickle
import struct

import msgpack.fallback
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evocell.wire import decode_hostile
from evocell_guest import Array, decoding, values, walk
from evocell_guest.decoding import decode
from evocell_guest.values import EncodeError, TooLarge, encode

CAPS = {"max_bytes": 1 << 20, "max_items": 10_000, "max_depth": 64}

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**66), 2**66),
    st.floats(),
    text,
    st.binary(max_size=40),
)
# Equal keys of different types would make dicts that no codec can keep apart; NaN keys equal nothing.
keys = st.recursive(
    st.one_of(st.none(), st.integers(), text, st.binary(max_size=10)),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
plain = st.recursive(
    st.one_of(
        scalars,
        st.complex_numbers(allow_nan=False),
        st.lists(st.floats(), min_size=16, max_size=20),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=16, max_size=20),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=12,
)

DTYPES = [
    "?",
    "i1",
    "u1",
    "<i2",
    "<u2",
    "<i4",
    "<u4",
    "<i8",
    "<u8",
    "<f2",
    "<f4",
    "<f8",
    "<c8",
    "<c16",
    "S3",
    "<U2",
]


@st.composite
def arrays(draw):
    """Arrays of every allowed dtype, some transposed, reversed or big-endian."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    size = dtype.itemsize * math.prod(shape)
    if dtype.kind in "bU":
        raw = bytes(draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
        data = np.frombuffer(raw, "u1").astype("<u4").tobytes()[:size] if dtype.kind == "U" else raw
    else:
        data = draw(st.binary(min_size=size, max_size=size))
    array = np.frombuffer(data, dtype).reshape(shape)
    change = draw(st.sampled_from(["none", "transpose", "reverse", "swap"]))
    if change == "transpose":
        return array.T
    if change == "reverse" and array.ndim:
        return array[::-1]
    return array.astype(dtype.newbyteorder(">")) if change == "swap" else array


def same(a, b):
    """Equality that also tells types and NaNs apart."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return a == b


@given(plain)
def test_values_come_back_as_they_were(value):
    assert same(decode(encode(value)), value)


@given(plain)
def test_the_distrustful_reader_takes_what_the_encoder_lets_through(value):
    data = encode(value, **CAPS, max_hashed_keys=walk.MAX_HASHED_KEYS)

    assert same(decode_hostile(data, **CAPS), value)


@given(plain)
def test_encoding_again_gives_the_same_bytes(value):
    data = encode(value)

    assert encode(decode(data)) == data


@given(st.one_of(plain, arrays()))
def test_both_halves_of_msgpack_agree(value):
    with pytest.MonkeyPatch.context() as patch:
        data = encode(value)
        for module in (values, walk):
            patch.setattr(module, "_packb", lambda v: msgpack.fallback.Packer().pack(v))
        patch.setattr(decoding, "_unpackb", msgpack.fallback.unpackb)

        assert encode(value) == data
        assert encode(decode(data)) == data


@given(arrays())
def test_arrays_come_back_writable_and_equal(array):
    data = encode(array)
    back = decode_hostile(data, **CAPS)

    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("<")
    assert back.flags.writeable
    np.testing.assert_array_equal(back, array)
    assert encode(back) == data


@given(arrays())
def test_without_numpy_an_array_is_an_array_all_the_same(array):
    with pytest.MonkeyPatch.context() as patch:
        data = encode(array)
        patch.setattr("evocell.wire.values._numpy", lambda: None)
        back = decode_hostile(data, **CAPS)

        assert isinstance(back, Array)
        assert encode(back) == data
        assert pickle.loads(pickle.dumps(back)) == back
        np.testing.assert_array_equal(np.asarray(back), array)
        np.testing.assert_array_equal(np.array(back.tolist(), array.dtype).reshape(array.shape), array)
        assert back.view().nbytes == len(back.data)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30))
def test_every_nan_has_one_form(payloads):
    nans = [struct.unpack("<d", struct.pack("<Q", p | 0x7FF8 << 48))[0] for p in payloads]

    assert encode(nans) == encode([math.nan] * len(nans))
    assert encode(np.array(nans)) == encode(np.full(len(nans), math.nan))
    assert encode(nans[0]) == encode(math.nan)


@given(st.sets(st.integers() | text, max_size=20), st.randoms())
def test_a_set_has_one_form_whatever_its_order(members, rng):
    shuffled = list(members)
    rng.shuffle(shuffled)

    assert encode(set(shuffled)) == encode(members)


@given(plain, st.integers(1, 60), st.integers(1, 20), st.integers(0, 3))
def test_limits_of_writer_and_reader_agree(value, max_bytes, max_items, max_depth):
    caps = {"max_bytes": max_bytes, "max_items": max_items, "max_depth": max_depth}
    try:
        data = encode(value, **caps, max_hashed_keys=walk.MAX_HASHED_KEYS)
    except TooLarge:
        return
    assert len(data) <= max_bytes
    assert same(decode_hostile(data, **caps), value)


@given(plain)
def test_the_path_of_a_refusal_leads_to_it(value):
    with pytest.raises(EncodeError) as caught:
        encode({"a": [value, (value, object())]}, root="result")

    assert caught.value.path == "result['a'][1][1]"
