"""Incremental encoding of long messages, which does not block other threads for a whole message. No I/O.

The output equals that of ``msgpack.packb`` for the same value after conversion of tuples, sets and arrays to
the reader's forms. Arrays are converted to lists in parts, and the number of resulting values is computed
before.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from struct import Struct
from typing import Any

import msgpack

from evocell.errors import ProtocolError
from evocell_guest.arrays import Array, empty_rows, item_bytes
from evocell_guest.values import encode

__all__ = ["Packing", "is_array", "is_long"]

STEP_VALUES = 4096
"""Values packed in one step, which holds the interpreter's lock; some 0.2 ms of work."""
STEP_BYTES = 1 << 18
_SORTED_AT_ONCE = 1 << 14

_ATOMS = frozenset({str, bytes, int, float, bool, type(None)})
_SHORT_ATOMS = frozenset({int, float, bool, type(None)})
_TEXTS = frozenset({str, bytes})
_HEADER_32 = Struct(">BI")
_EXT_32 = Struct(">BIB")


def is_array(value: object) -> bool:
    """Return whether a value is an array, of numpy or its stand-in in a process without numpy."""
    return isinstance(value, Array) or (hasattr(value, "tolist") and hasattr(value, "shape"))


def is_long(value: object) -> bool:
    """Return whether packing a value takes long; itself quick."""
    left, n_bytes = STEP_VALUES, STEP_BYTES
    stack: list[Any] = [value]
    while stack:
        one = stack.pop()
        kind = type(one)
        if kind in _SHORT_ATOMS:
            continue
        if kind in _TEXTS:
            n_bytes -= len(one)
        elif kind is list or kind is tuple or kind is set or kind is frozenset:
            left -= len(one)
            if left >= 0:
                stack.extend(one)
        elif isinstance(one, Mapping):
            left -= 2 * len(one)
            if left >= 0:
                stack.extend(one)
                stack.extend(one.values())
        elif is_array(one):
            left -= _cells(one.shape)
        elif hasattr(kind, "__attrs_attrs__"):
            left -= len(kind.__attrs_attrs__)
            stack.extend(getattr(one, field.name, None) for field in kind.__attrs_attrs__)
        if left < 0 or n_bytes < 0:
            return True
    return False


class Packing:
    """The encoding of one message.

    Args:
        tuples_as_lists: Whether the reader reads tuples and sets as lists.
        arrays_as_lists: Whether it reads arrays as lists.
        is_plain_map: Returns whether it can represent a map with given keys; None if it can represent any.
        pairs_code: The extension type of the other maps.
        max_bytes: Most bytes that the message may take.
    """

    def __init__(
        self,
        *,
        tuples_as_lists: bool,
        arrays_as_lists: bool,
        is_plain_map: Callable[[Mapping[Any, Any]], bool] | None,
        pairs_code: int,
        max_bytes: int,
    ) -> None:
        self._tuples_as_lists = tuples_as_lists
        self._arrays_as_lists = arrays_as_lists
        self._is_plain_map = is_plain_map
        self._pairs_code = pairs_code
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._pieces: list[bytes] = []

    def pack(self, value: Any) -> bytes:
        """Return the bytes of a value.

        Raises:
            ProtocolError: It is too long.
            ValueError: Part of it has no encoding.
        """
        self._value(value)
        return b"".join(self._pieces)

    def _add(self, piece: bytes) -> None:
        self._n_bytes += len(piece)
        self._check(self._n_bytes)
        self._pieces.append(piece)

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes:
            raise ProtocolError(
                f"the message cannot be sent: it takes more than the limit of {self._max_bytes:,} bytes"
            )

    def _value(self, value: Any) -> None:
        kind = type(value)
        if kind is list:
            self._list(value)
        elif kind is dict:
            self._map(value)
        elif kind in _ATOMS:
            self._atom(value)
        elif kind is tuple:
            self._group(value)
        elif kind is set or kind is frozenset:
            if self._tuples_as_lists:
                self._group(list(_in_order(value)))
            else:
                self._add(encode(value, root="message"))  # elements are hashable: no array is among them
        elif isinstance(value, Mapping):
            self._map(value)
        elif self._arrays_as_lists and is_array(value):
            self._array(value)
        else:
            self._add(encode(value, root="message"))

    def _atom(self, value: Any) -> None:
        kind = type(value)
        if kind is int and not -(1 << 63) <= value < 1 << 64:
            self._add(encode(value, root="message"))
        elif kind is bytes and len(value) > STEP_BYTES:
            self._add(_HEADER_32.pack(0xC6, len(value)))
            self._add(value)
        else:
            self._add(msgpack.packb(value))

    def _list(self, values: Sequence[Any]) -> None:
        self._add(_array_header(len(values)))
        for start in range(0, len(values), STEP_VALUES):
            self._several(values[start : start + STEP_VALUES])

    def _several(self, values: Sequence[Any]) -> None:
        """Pack adjacent values, in one call if they are few and plain."""
        kinds = set(map(type, values))
        plain = kinds <= _SHORT_ATOMS or (kinds <= _ATOMS and not is_long(values))
        if plain and (int not in kinds or _fits(values)):
            self._add(_packed_all(values))
        else:
            for value in values:
                self._value(value)

    def _map(self, value: Mapping[Any, Any]) -> None:
        if self._is_plain_map is not None and not self._is_plain_map(value):
            self._extension(self._pairs_code, [list(pair) for pair in value.items()])
            return
        self._add(_map_header(len(value)))
        for key, item in value.items():
            # A tuple as a key is always an extension type, regardless of the reader's form.
            self._add(msgpack.packb(key) if _is_plain_key(key) else encode(key, root="message"))
            self._value(item)

    def _group(self, values: Sequence[Any]) -> None:
        if self._tuples_as_lists:
            self._list(values)
        else:
            self._extension(2, list(values))

    def _extension(self, code: int, values: list[Any]) -> None:
        """Pack a list in an extension type, preceded by its length."""
        outer, self._pieces = self._pieces, []
        if code == self._pairs_code:
            self._pairs(values)
        else:
            self._list(values)
        data, self._pieces = b"".join(self._pieces), outer
        self._n_bytes -= len(data)
        self._add(_extension_header(code, len(data)))
        self._add(data)

    def _pairs(self, pairs: list[list[Any]]) -> None:
        self._add(_array_header(len(pairs)))
        for key, item in pairs:
            self._add(_array_header(2))
            self._add(msgpack.packb(key) if _is_plain_key(key) else encode(key, root="message"))
            self._value(item)

    def _array(self, array: Any) -> None:
        shape = tuple(array.shape)
        self._check(self._n_bytes + _cells(shape))  # each takes a byte at least
        if not shape:
            self._value(array.tolist())
        else:
            self._rows(array, shape)

    def _rows(self, array: Any, shape: tuple[int, ...]) -> None:
        self._add(_array_header(shape[0]))
        each = _cells(shape[1:])
        if each > STEP_VALUES:
            for number in range(shape[0]):
                self._rows(_part(array, number, number + 1, drop=True), shape[1:])
            return
        step = max(1, STEP_VALUES // max(1, each))
        for start in range(0, shape[0], step):
            values = _part(array, start, min(start + step, shape[0])).tolist()
            try:
                self._add(_packed_all(values))
            except TypeError:  # complex numbers, which have an extension type
                for value in values:
                    self._value(value)


def _cells(shape: Sequence[int]) -> int:
    """Return the number of values of an array as nested lists, counting all lists and elements."""
    if 0 in shape:
        return 1 + empty_rows(shape)
    total, rows = 1, 1
    for length in shape:
        rows *= length
        total += rows
    return total


def _part(array: Any, start: int, stop: int, *, drop: bool = False) -> Any:
    """Return rows of an array; a single row without its dimension, if that is to be dropped."""
    if not isinstance(array, Array):
        return array[start] if drop else array[start:stop]
    row = item_bytes(array.dtype) * math.prod(array.shape[1:])
    shape = array.shape[1:] if drop else (stop - start, *array.shape[1:])
    return Array(array.dtype, shape, array.data[start * row : stop * row])


def _in_order(values: Iterable[Any]) -> Iterator[Any]:
    """Return the elements of a set in the order of their encodings."""
    keyed = [(encode(value), value) for value in values]
    runs = [
        sorted(keyed[start : start + _SORTED_AT_ONCE], key=_first)
        for start in range(0, len(keyed), _SORTED_AT_ONCE)
    ]
    for _, value in heapq.merge(*runs, key=_first):
        yield value


def _first(pair: tuple[bytes, Any]) -> bytes:
    return pair[0]


def _is_plain_key(key: object) -> bool:
    return type(key) in _ATOMS and (type(key) is not int or -(1 << 63) <= key < 1 << 64)


def _fits(values: Sequence[Any]) -> bool:
    return all(type(value) is not int or -(1 << 63) <= value < 1 << 64 for value in values)


def _packed_all(values: Sequence[Any]) -> bytes:
    """Return the concatenated encodings of values."""
    packed: bytes = msgpack.packb(list(values), strict_types=True)
    return packed[len(_array_header(len(values))) :]


def _array_header(length: int) -> bytes:
    if length < 16:  # noqa: PLR2004 - what a header of one byte can say
        return bytes((0x90 | length,))
    if length < 1 << 16:
        return bytes((0xDC,)) + length.to_bytes(2, "big")
    return _HEADER_32.pack(0xDD, length)


def _map_header(length: int) -> bytes:
    if length < 16:  # noqa: PLR2004 - as above
        return bytes((0x80 | length,))
    if length < 1 << 16:
        return bytes((0xDE,)) + length.to_bytes(2, "big")
    return _HEADER_32.pack(0xDF, length)


def _extension_header(code: int, length: int) -> bytes:
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}.get(length)
    if fixed is not None:
        return bytes((fixed, code))
    if length < 1 << 8:
        return bytes((0xC7, length, code))
    if length < 1 << 16:
        return bytes((0xC8,)) + length.to_bytes(2, "big") + bytes((code,))
    return _EXT_32.pack(0xC9, length, code)
