import pytest
from hypothesis import given
from hypothesis import strategies as st

from evocell_runtime.leb128 import read_signed, read_unsigned, write_signed, write_unsigned

UNSIGNED = st.integers(0, 2**64 - 1)
SIGNED = st.integers(-(2**63), 2**63 - 1)


@given(UNSIGNED, st.binary(max_size=8), st.binary(max_size=8))
def test_unsigned_integers_come_back(value, before, after):
    encoded = write_unsigned(value)

    assert read_unsigned(before + encoded + after, len(before)) == (value, len(before) + len(encoded))


@given(SIGNED, st.binary(max_size=8), st.binary(max_size=8))
def test_signed_integers_come_back(value, before, after):
    encoded = write_signed(value)

    assert read_signed(before + encoded + after, len(before)) == (value, len(before) + len(encoded))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, b"\0"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (624_485, b"\xe5\x8e\x26"),
        (2**32 - 1, b"\xff\xff\xff\xff\x0f"),
    ],
)
def test_unsigned_integers_have_their_shortest_form(value, encoded):
    assert write_unsigned(value) == encoded


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, b"\0"), (63, b"\x3f"), (64, b"\xc0\0"), (-1, b"\x7f"), (-64, b"\x40"), (-65, b"\xbf\x7f"),
     (-123_456, b"\xc0\xbb\x78")],
)  # fmt: skip
def test_signed_integers_have_their_shortest_form(value, encoded):
    assert write_signed(value) == encoded


def test_longer_forms_are_read():
    assert read_unsigned(b"\x83\x80\x00", 0) == (3, 3)
    assert read_signed(b"\xff\xff\x7f", 0) == (-1, 3)


@given(st.integers(1, 2**64 - 1))
def test_an_integer_that_is_cut_off_is_refused_with_its_place(value):
    for read in (read_unsigned, read_signed):
        cut = write_unsigned(value)[:-1]
        with pytest.raises(ValueError, match=f"malformed LEB128 integer at byte {len(cut) + 1}"):
            read(b"x" + cut, 1)


def test_an_integer_without_end_is_refused():
    for read in (read_unsigned, read_signed):
        with pytest.raises(ValueError, match="malformed LEB128"):
            read(b"\x80" * 11, 0)
