"""What counts as equal, what counts as close, and where the first difference is said to be."""

import math
from typing import NamedTuple

import numpy as np
import pytest

from evocell.evaluation.difference import difference, shown
from evocell_guest.arrays import Array

NAN = float("nan")


class Pair(NamedTuple):
    left: int
    right: int


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (9, 9),
        (1, 1.0),
        (np.int64(9), 9),
        (np.float64("nan"), NAN),
        ([1, (2, {"a": {3}})], [1, (2, {"a": {3}})]),
        (Pair(1, 2), (1, 2)),
        ([NAN, {"x": NAN}], [NAN, {"x": NAN}]),
        (complex(NAN, 1), complex(NAN, 1)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.array([1.0, NAN]), np.array([1.0, NAN])),
        (np.array([1, 2]), Array("<i8", (2,), np.array([1, 2]).tobytes())),
        (np.array(3.0), np.array(3.0)),
        (np.array(3), 3),
        ({"a": 3.0}, {"a": np.array(3.0)}),
        (None, None),
        ("", ""),
        ([1, 2], (1, 2)),
        ((1.0, 2), [1, 2.0]),
        ([1, 2], np.array([1, 2])),
        (np.array([[1.5, NAN], [3, 4]]), ((1.5, NAN), [3, 4])),
        ((1, 2), Array("<i8", (2,), np.array([1, 2]).tobytes())),
        ({"a": [np.array([1]), (2,)]}, {"a": ((1,), np.array([2]))}),
        (["a", "b"], np.array(["a", "b"])),
        ([True, 0], np.array([1, 0])),
        ([], ()),
        (np.zeros((0, 3)), []),
        ({1}, frozenset({1})),
    ],
)
def test_equal(expected, value):
    assert difference(expected, value) is None
    assert difference(expected, value, close=True) is None


@pytest.mark.parametrize(
    ("expected", "value", "phrase"),
    [
        (9, 8, "expected 9, got 8"),
        ([1], (2,), "at [0]: expected 1, got 2"),
        ([1, 2], np.array([1, 3]), "at [1]: expected 2, got 3"),
        (np.zeros((2, 2)), [[0, 0], [0]], "at [1]: expected 2 items, got 1"),
        ([1], np.array(1), "expected a list, got an array"),
        ([1], {1}, "expected a list, got a set"),
        ("ab", ["a", "b"], "expected a string, got a list"),
        ({1}, frozenset({2}), "expected {1}, got frozenset({2})"),
        ([1, 2], [1], "expected 2 items, got 1"),
        ([1, [2, 3]], [1, [2, 4]], "at [1][1]: expected 3, got 4"),
        ({"a": 1}, {"b": 1}, "the key 'a' is missing"),
        ({"a": 1}, {"a": 1, "b": 1}, "the key 'b' is not expected"),
        ({"a": [1]}, {"a": [2]}, "at ['a'][0]: expected 1, got 2"),
        ({1, 2}, {1, 3}, "expected {1, 2}, got {1, 3}"),
        (np.zeros((2, 2)), np.zeros(4), "expected an array of shape (2, 2), got (4,)"),
        (np.array([1, 2]), np.array([1, 3]), "at [1]: expected 2, got 3"),
        (1.0, NAN, "expected 1.0, got nan"),
        (NAN, 1.0, "expected nan, got 1.0"),
        ("1", 1, "expected '1', got 1"),
        (b"1", "1", "expected b'1', got '1'"),
        ([], 5, "expected a list, got 5"),
    ],
)
def test_different(expected, value, phrase):
    assert difference(expected, value) == phrase
    assert difference(expected, value, close=True) is not None


@pytest.mark.parametrize(
    ("expected", "value", "close"),
    [
        (1.0, 1.0 + 1e-7, True),
        (1.0, 1.0 + 1e-5, False),
        (0.0, 1e-10, True),
        (0.0, 1e-8, False),
        (1, 1.0000001, True),
        ([1.0, {"a": (2.0,)}], [1.0, {"a": (2.0000001,)}], True),
        (np.array([1.0, 2.0]), np.array([1.0, 2.0000001]), True),
        ({1.0, 2.0}, {1.0000001, 2.0}, True),
        ({1.0, "a"}, {1.0, "b"}, False),
        (1 + 1j, 1 + 1.0000001j, True),
        (math.inf, math.inf, True),
        (math.inf, -math.inf, False),
        (10**400, 10**400, True),
        (10**400, 1.0, False),
        ("1.0", 1.0, False),
        (None, 0.0, False),
    ],
)
def test_close(expected, value, close):
    assert (difference(expected, value, close=True) is None) is close


def test_any_value_can_be_shown():
    assert shown(10**10_000) == "a value of type int"
    assert len(shown("x" * 10_000)) < 100


@pytest.mark.parametrize(
    ("expected", "value", "phrase"),
    [
        ([1], (1,), "expected a list, got a tuple"),
        ([1, 2], np.array([1, 2]), "expected a list, got an array"),
        ({1}, frozenset({1}), "expected a set, got a frozenset"),
    ],
)
def test_kinds_of_sequences_are_told_apart_where_that_is_asked_for(expected, value, phrase):
    assert difference(expected, value) is None
    assert difference(expected, value, same_kinds=True) == phrase
