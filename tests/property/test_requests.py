"""The agent's short way of reading a request gives what the general way gives."""

from hypothesis import example, given
from hypothesis import strategies as st

from evocell_guest.requests import read_request
from evocell_guest.values import decode, encode

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.binary(max_size=300),
    st.lists(st.integers(), max_size=3),
)


@given(st.dictionaries(names, values, max_size=18))
@example({"code": b"x" * 70_000, "entry": "m:" + "f" * 40_000})
@example({"": 2**64 - 1, "a": -1})
def test_both_ways_agree(request):
    data = encode(request)

    assert read_request(data) == decode(data) == request
