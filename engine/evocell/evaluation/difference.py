"""Comparison of an expected value with a returned one; reports the first difference.

The built-in scorers use this on the host. A list, a tuple and an array that hold the same values in the same
order are equal, and so are a set and a frozenset; other containers must be of one kind. Scalars compare as
Python compares them, except that NaN equals NaN.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from evocell_guest.arrays import Array

__all__ = ["REL_TOLERANCE", "difference"]

REL_TOLERANCE = 1e-6
"""Relative tolerance of ``"close"``."""

ABS_TOLERANCE = 1e-9
"""Absolute tolerance of ``"close"``, which matters near zero."""

_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (str, "a string"),
    ((bytes, bytearray), "bytes"),
    (list, "a list"),
    (tuple, "a tuple"),
    (dict, "a dict"),
    (frozenset, "a frozenset"),
    (set, "a set"),
)
_SCALARS = frozenset({int, float, bool, str, bytes, type(None)})
_SEQUENCES = frozenset({"a list", "a tuple", "an array"})
_SETS = frozenset({"a set", "a frozenset"})
_CONTAINERS = frozenset({"a list", "a tuple", "a dict", "a frozenset", "a set", "an array"})

_short = reprlib.Repr()
_short.maxother = _short.maxstring = _short.maxlong = 80


def difference(
    expected: object, value: object, *, close: bool = False, same_kinds: bool = False
) -> str | None:
    """Find the first place in which two values differ.

    Args:
        expected: The caller's expected answer.
        value: The returned value.
        close: Allow numbers to differ by a relative 1e-6 or an absolute 1e-9.
        same_kinds: Distinguish a list from a tuple and from an array, and a set from a frozenset.

    Returns:
        None if they are equal; otherwise a phrase such as ``"at [2]: expected 9, got 8"``.

    Raises:
        RecursionError: Both are nested deeper than Python recurses.
    """
    return _Comparison(close=close, same_kinds=same_kinds).differ(expected, value, "")


class _Comparison:
    """The rules of a comparison, and its traversal."""

    def __init__(self, *, close: bool, same_kinds: bool) -> None:
        self.same: Callable[[Any, Any], bool] = _close if close else _equal
        self.same_kinds = same_kinds

    def differ(self, expected: Any, value: Any, path: str) -> str | None:
        """Return the first difference at or below a path."""
        if type(expected) in _SCALARS and type(value) in _SCALARS:
            if self.same(expected, value):
                return None
            return _say(path, f"expected {shown(expected)}, got {shown(value)}")
        kind, got = _kind(expected), _kind(value)
        if kind != got and not self.same_kinds:
            if got not in _CONTAINERS and _is_point(expected, kind):
                return self.differ(expected.tolist(), value, path)
            if kind not in _CONTAINERS and _is_point(value, got):
                return self.differ(expected, value.tolist(), path)
            if kind in _SEQUENCES and got in _SEQUENCES:
                expected, value = _without_array(expected, kind), _without_array(value, got)
                if isinstance(expected, list | tuple) and isinstance(value, list | tuple):
                    return self.sequences(expected, value, path)
                return _say(path, f"expected {kind}, got {got}")  # one is a zero-dimensional array
            if kind in _SETS and got in _SETS:
                kind = got
        if kind != got and (kind in _CONTAINERS or got in _CONTAINERS):
            return _say(path, f"expected {kind}, got {got}")
        if kind in {"a list", "a tuple"}:
            return self.sequences(expected, value, path)
        if kind == "a dict":
            return self.mappings(expected, value, path)
        if kind in _SETS:
            return self.sets(expected, value, path)
        if kind == "an array":
            return self.arrays(expected, value, path)
        if self.same(expected, value):
            return None
        return _say(path, f"expected {shown(expected)}, got {shown(value)}")

    def sequences(self, expected: Any, value: Any, path: str) -> str | None:
        """Return the first difference of two lists or tuples."""
        if len(expected) != len(value):
            return _say(path, f"expected {len(expected)} items, got {len(value)}")
        for index, (wanted, item) in enumerate(zip(expected, value, strict=True)):
            found = self.differ(wanted, item, f"{path}[{index}]")
            if found is not None:
                return found
        return None

    def mappings(self, expected: Mapping[Any, Any], value: Mapping[Any, Any], path: str) -> str | None:
        """Return the first difference of two dicts."""
        for key in expected:
            if key not in value:
                return _say(path, f"the key {shown(key)} is missing")
        for key in value:
            if key not in expected:
                return _say(path, f"the key {shown(key)} is not expected")
        for key, wanted in expected.items():
            found = self.differ(wanted, value[key], f"{path}[{shown(key)}]")
            if found is not None:
                return found
        return None

    def sets(self, expected: Any, value: Any, path: str) -> str | None:
        """Return the difference of two sets, which has no position."""
        if expected == value:
            return None
        if len(expected) == len(value):
            try:
                pairs = zip(sorted(expected), sorted(value), strict=True)
                if all(self.same(wanted, item) for wanted, item in pairs):
                    return None
            except TypeError:  # unordered members cannot be paired: only equality counts
                pass
        return _say(path, f"expected {shown(expected)}, got {shown(value)}")

    def arrays(self, expected: Any, value: Any, path: str) -> str | None:
        """Return the first difference of two arrays."""
        if tuple(expected.shape) != tuple(value.shape):
            return _say(
                path,
                f"expected an array of shape {tuple(expected.shape)}, got {tuple(value.shape)}",
            )
        wanted, items = expected.tolist(), value.tolist()
        if wanted == items:
            return None
        return self.differ(wanted, items, path)


def _is_point(value: Any, kind: str) -> bool:
    """Whether a value is an array without dimensions, which is taken for its only element."""
    return kind == "an array" and not tuple(value.shape)


def _without_array(value: Any, kind: str) -> Any:
    return value.tolist() if kind == "an array" else value


def _equal(expected: Any, value: Any) -> bool:
    if isinstance(expected, float) and isinstance(value, float) and expected != expected:  # noqa: PLR0124
        return value != value  # noqa: PLR0124 - NaN equals NaN here
    if isinstance(expected, complex) and isinstance(value, complex):
        return _equal(expected.real, value.real) and _equal(expected.imag, value.imag)
    try:
        return bool(expected == value)
    except ValueError as error:  # a table of truth values is no answer
        name = type(expected).__name__
        raise TypeError(
            f"an expected value of type {name} cannot be compared: give what the function returns in its "
            "place, such as frame.to_dict('list') or a list, or give score a function of case and value"
        ) from error


def _close(expected: Any, value: Any) -> bool:
    if _equal(expected, value):
        return True
    if isinstance(expected, complex) or isinstance(value, complex):
        try:
            expected, value = complex(expected), complex(value)
        except (TypeError, ValueError, OverflowError):
            return False
        return _close(expected.real, value.real) and _close(expected.imag, value.imag)
    if isinstance(expected, str | bytes) or isinstance(value, str | bytes):
        return False
    try:
        return math.isclose(expected, value, rel_tol=REL_TOLERANCE, abs_tol=ABS_TOLERANCE)
    except (TypeError, OverflowError):
        return False


def _kind(value: object) -> str:
    for types, name in _KINDS:
        if isinstance(value, types):
            return name
    if isinstance(value, Array) or _is_numpy_array(value):
        return "an array"
    return f"{shown(value)}"


def _is_numpy_array(value: object) -> bool:
    # numpy scalars have a shape too, the empty one, but no length; a zero-dimensional array is an array.
    return type(value).__name__ == "ndarray" and hasattr(value, "tolist")


def shown(value: object) -> str:
    """Render any value for a sentence, in at most about 80 characters."""
    try:
        text = _short.repr(value)
    except Exception:  # noqa: BLE001 - a repr may fail in any way; an int of a million digits does
        return f"a value of type {type(value).__name__}"
    return text


def _say(path: str, phrase: str) -> str:
    return f"at {path}: {phrase}" if path else phrase
