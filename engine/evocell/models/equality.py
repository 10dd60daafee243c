"""Equality of plain values by content, for comparing the results of two runs.

``==`` is not enough: NaN differs from itself, numpy arrays compare to an array, and
``1 == 1.0 == True`` although a codec distinguishes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

_PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None)))


def same_value(left: Any, right: Any) -> bool:
    """Return whether two values have the same types and content, recursively.

    NaN equals NaN, and 0.0 differs from -0.0, as in an encoded value. Arrays (anything with
    ``dtype``, ``shape`` and ``tobytes`` or the buffer protocol) are compared by those. The order
    of a mapping's keys does not matter.
    """
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return bool(left.hex() == right.hex())
    if isinstance(left, complex):
        return same_value(left.real, right.real) and same_value(left.imag, right.imag)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same_value, left, right))
    if isinstance(left, Mapping):
        return len(left) == len(right) and all(
            key in right and same_value(item, right[key]) for key, item in left.items()
        )
    if hasattr(left, "dtype") and hasattr(left, "shape"):
        return _same_array(left, right)
    return _plainly_equal(left, right)


def find_incomparable(value: object, path: str) -> tuple[str, str] | None:
    """Find a part of a value whose ``==`` has no single answer, such as a table's.

    Args:
        value: Any value; lists, tuples and the values of mappings are looked into.
        path: How the value itself is called.

    Returns:
        The path and the type's name of the first such part found, or None.
    """
    seen: set[int] = set()
    left: list[tuple[object, str]] = [(value, path)]
    while left:
        one, where = left.pop()
        if type(one) in _PLAIN or type(one).__name__ == "ndarray":
            continue
        if isinstance(one, list | tuple | Mapping):
            if id(one) not in seen:
                seen.add(id(one))
                items = one.items() if isinstance(one, Mapping) else enumerate(one)
                inside = [(item, f"{where}[{key!r:.40}]") for key, item in items if type(item) not in _PLAIN]
                left += reversed(inside)
            continue
        try:
            bool(one == one)  # noqa: PLR0124 - whether there is an answer
        except (TypeError, ValueError):
            return where, type(one).__name__
    return None


def _same_array(left: Any, right: Any) -> bool:
    if str(left.dtype) != str(right.dtype) or tuple(left.shape) != tuple(right.shape):
        return False
    return _array_bytes(left) == _array_bytes(right)


def _array_bytes(array: Any) -> bytes:
    if hasattr(array, "tobytes"):
        return bytes(array.tobytes())
    return bytes(memoryview(array))


def _plainly_equal(left: object, right: object) -> bool:
    try:
        return bool(left == right)
    except Exception:  # noqa: BLE001 - a host object whose == fails equals only itself
        return False


@frozen(eq=False)
class ByContent:
    """Comparison key for attrs fields (``field(eq=ByContent)``) that hold arbitrary values.

    Its hash is coarse (one per type of value), so that a record is hashable whatever values it holds.

    Attributes:
        value: The value to compare.
    """

    value: object

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ByContent):
            return NotImplemented
        return same_value(self.value, other.value)

    def __hash__(self) -> int:
        return hash(type(self.value).__qualname__)
