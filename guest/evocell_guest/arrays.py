"""Numeric arrays on the wire: allowed types, and `Array` for readers without numpy.

An array is sent as its dtype string, its shape and its elements in C order, little-endian. Only
plain numbers and fixed-width strings are allowed, so that reading one never runs code.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any

MAX_DIMENSIONS = 32
MAX_ARRAY_BYTES = 2**31 - 1
# An array without elements costs its sender nothing, but `tolist` makes a list per outer element.
MAX_EMPTY_EXTENT = 2**20

# dtype -> bytes per element; "S" and "U" are open families, read by `item_bytes`.
_ITEM_BYTES = {
    "|b1": 1,
    "|i1": 1,
    "|u1": 1,
    "<i2": 2,
    "<u2": 2,
    "<f2": 2,
    "<i4": 4,
    "<u4": 4,
    "<f4": 4,
    "<i8": 8,
    "<u8": 8,
    "<f8": 8,
    "<c8": 8,
    "<c16": 16,
}
# dtype -> format character of `struct` for one real element; complex ones are pairs of reals.
_FORMATS = {
    "|b1": "?",
    "|i1": "b",
    "|u1": "B",
    "<i2": "h",
    "<u2": "H",
    "<f2": "e",
    "<i4": "i",
    "<u4": "I",
    "<f4": "f",
    "<i8": "q",
    "<u8": "Q",
    "<f8": "d",
    "<c8": "f",
    "<c16": "d",
}


def item_bytes(dtype: str) -> int:
    """Return the size of one element of `dtype` in bytes.

    Raises:
        ValueError: `dtype` is not an allowed one.
    """
    size = _ITEM_BYTES.get(dtype)
    if size is not None:
        return size
    family, digits = dtype[:2], dtype[2:]
    if (
        family in {"|S", "<U"}
        and 1 <= len(digits) <= 7
        and digits.isascii()
        and digits.isdigit()
        and digits[0] != "0"
    ):
        return int(digits) * (4 if family == "<U" else 1)
    msg = (
        f"dtype {dtype[:32]!r} cannot travel; use bool, int or uint of 8-64 bits, float16/32/64, "
        "complex64/128, or fixed-width 'S' or 'U'"
    )
    raise ValueError(msg)


def check_header(dtype: str, shape: Sequence[int], data_bytes: int) -> None:
    """Check that a dtype and a shape describe exactly `data_bytes` bytes.

    Raises:
        ValueError: They do not, or are over a limit; the message names the offending part.
    """
    size = item_bytes(dtype)
    if len(shape) > MAX_DIMENSIONS:
        msg = f"an array has {len(shape)} dimensions; at most {MAX_DIMENSIONS} may travel"
        raise ValueError(msg)
    # Zero-length dimensions must not hide huge ones, which numpy refuses.
    extent = size
    for length in shape:
        if length < 0:
            msg = f"an array has a dimension of length {length}"
            raise ValueError(msg)
        extent *= length or 1
        if extent > MAX_ARRAY_BYTES:
            msg = f"an array's shape describes more than {MAX_ARRAY_BYTES} bytes"
            raise ValueError(msg)
    expected = size * math.prod(shape)
    if expected == 0 and extent > size * MAX_EMPTY_EXTENT:
        msg = f"an array without elements has the shape {tuple(shape)}; that is too large"
        raise ValueError(msg)
    if expected != data_bytes:
        msg = f"an array of dtype {dtype} and shape {tuple(shape)} needs {expected} bytes, not {data_bytes}"
        raise ValueError(msg)


def empty_rows(shape: Sequence[int]) -> int:
    """Return the number of lists that `Array.tolist` makes of an array without elements; else 0.

    They take memory without any element being sent, so both ends count them as values.
    """
    if 0 not in shape:
        return 0
    rows, total = 1, 0
    for length in shape[: shape.index(0)]:
        rows *= length
        total += rows
    return total


def check_data(dtype: str, data: bytes) -> None:
    """Check that every element is valid for numpy.

    Raises:
        ValueError: A bool is neither 0 nor 1, or a string has a lone surrogate or an invalid code point.
    """
    if dtype == "|b1":
        if data.translate(None, b"\x00\x01"):
            raise ValueError("a bool array holds bytes other than 0 and 1")
    elif dtype[1] == "U":
        try:
            data.decode("utf-32-le")
        except UnicodeDecodeError:
            raise ValueError(
                "a string array holds something that is not a code point, or a lone surrogate"
            ) from None


class Array:
    """An n-dimensional array for readers without numpy.

    ``numpy.asarray(array)`` wraps it without copying.

    Attributes:
        dtype: Element type in numpy's notation, little-endian, such as ``"<f8"``.
        shape: Length of each dimension; ``()`` for a single element.
        data: The elements in C order.
    """

    __slots__ = ("data", "dtype", "shape")

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def __init__(self, dtype: str, shape: Sequence[int], data: bytes) -> None:
        """Check and keep the parts.

        Raises:
            ValueError: The dtype is not allowed, or dtype, shape and data do not match.
        """
        shape = tuple(shape)
        check_header(dtype, shape, len(data))
        check_data(dtype, data)
        self.dtype = dtype
        self.shape = shape
        self.data = bytes(data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        return (self.dtype, self.shape, self.data) == (other.dtype, other.shape, other.data)

    def __hash__(self) -> int:
        return hash((self.dtype, self.shape, self.data))

    def __repr__(self) -> str:
        return f"Array(dtype={self.dtype!r}, shape={self.shape!r}, <{len(self.data)} bytes>)"

    def __reduce__(self) -> tuple[type[Array], tuple[str, tuple[int, ...], bytes]]:
        return Array, (self.dtype, self.shape, self.data)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array of shape () has no length; use .tolist()")
        return self.shape[0]

    def __buffer__(self, flags: int, /) -> memoryview:
        """Let ``memoryview(array)`` work (PEP 688, Python 3.12 and later)."""
        del flags
        return self.view()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Numpy's interface for wrapping the data without copying."""
        return {"version": 3, "typestr": self.dtype, "shape": self.shape, "data": self.data}

    def view(self) -> memoryview:
        """Return a read-only view of the elements, with their shape if `memoryview` supports it.

        float16, complex and string elements, which it does not support, and arrays without elements
        are plain bytes. On Python 3.12 and later ``memoryview(array)`` is the same.
        """
        raw = memoryview(self.data)
        letter = _FORMATS.get(self.dtype)
        if (
            letter is None
            or letter == "e"
            or self.dtype[1] == "c"
            or 0 in self.shape
            or sys.byteorder != "little"
        ):
            return raw
        return raw.cast("B").cast(letter, self.shape)  # type: ignore[call-overload, no-any-return]

    def tolist(self) -> Any:
        """Return nested lists of Python values, as ``numpy.ndarray.tolist`` does.

        Returns:
            A list as deep as the array has dimensions; a single value if the shape is ``()``.
        """
        values: Any = list(self._elements())
        if not self.shape:
            return values[0]
        for length in reversed(self.shape[1:]):
            if length == 0:
                return _empty(self.shape)
            values = [values[i : i + length] for i in range(0, len(values), length)]
        return values

    def _elements(self) -> Iterator[Any]:
        kind = self.dtype[1]
        if kind in "SU":
            size = item_bytes(self.dtype)
            for start in range(0, len(self.data), size):
                raw = self.data[start : start + size]
                if kind == "S":
                    yield raw.rstrip(b"\x00")
                else:
                    yield raw.decode("utf-32-le", "surrogatepass").rstrip("\x00")
            return
        letter = _FORMATS[self.dtype]
        numbers = struct.unpack(f"<{len(self.data) // struct.calcsize('<' + letter)}{letter}", self.data)
        if kind == "c":
            yield from map(complex, numbers[::2], numbers[1::2])
        else:
            yield from numbers


def _empty(shape: Sequence[int]) -> list[Any]:
    return [_empty(shape[1:]) if len(shape) > 1 else None for _ in range(shape[0])]
