"""The agent's short ways of reading give what the general way gives."""

import marshal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evocell_guest.decoding import decode
from evocell_guest.requests import read_arguments, read_request
from evocell_guest.values import encode

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    texts,
    st.binary(max_size=300),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=20),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(texts, st.integers()), inner, max_size=18),
        st.sets(st.integers(), max_size=3),
    ),
)


@given(values)
@example(list(range(70_000)))
@example([b"x" * 70_000, "y" * 70_000, 2**64 - 1, -(2**63)])
@example(dict.fromkeys(range(20), "v"))
def test_both_ways_of_reading_arguments_agree(value):
    data = encode(value)
    read, expected = read_arguments(data), decode(data)

    assert read == expected == value
    assert repr(read) == repr(expected)


def test_arrays_go_the_general_way():
    read = read_arguments(encode([[np.arange(5.0)], {}]))
    assert read[0][0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_what_is_cut_off_is_refused_both_ways(cut):
    data = encode([1.5, "text"])[: -1 - cut]
    with pytest.raises(ValueError):
        read_arguments(data)


@given(
    st.dictionaries(texts, st.one_of(st.none(), st.integers(), texts, st.binary(max_size=300)), max_size=18)
)
def test_requests_are_read_in_either_form(request):
    assert read_request(marshal.dumps(request, 2)) == request
    assert read_request(encode(request)) == request
