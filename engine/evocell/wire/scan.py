"""Bounds check of untrusted bytes, before any value is built.

One pass over the headers, without recursion and without allocating announced lengths. Bytes that pass
cost their reader memory in proportion to their length: nesting, number of values, copies of nested
payloads, array headers and all hashed values are bounded here. The scan also records where a
long message can be cut, so that only a part of it is built in one step.
"""

from __future__ import annotations

from typing import NoReturn, TypeAlias

from attrs import frozen

from evocell.errors import ProtocolError
from evocell.wire.headers import (
    ARRAY_LENGTH,
    BLOB_LENGTH,
    EXT_LENGTH,
    FIXED_EXT,
    MAP_LENGTH,
    SCALAR_BYTES,
)
from evocell_guest.arrays import MAX_DIMENSIONS, check_data, check_header, empty_rows
from evocell_guest.walk import (
    COPY_FACTOR,
    COPY_SLACK_BYTES,
    HASHED_BYTES_PER_KEY,
    HASHED_ITEMS_PER_KEY,
    MAX_HASHED_KEYS,
    MAX_INT_BYTES,
)

# Kind of the enclosing container; it decides which values are allowed next.
_PLAIN, _MAP, _SET, _KEY_TUPLE = range(4)

HELD_FACTOR = 110
"""Most bytes of a decoded value per byte of its message.

A set of 77 small numbers, for which CPython makes a table of 512 entries, takes 98; a list of empty lists 65.
During decoding, payloads of tuples and sets are copied once per level of nesting. The caps of a message bound
both.
"""

STEP_VALUES = 2048
"""Most values built in one step, which holds the interpreter's lock; about 0.2 ms of work."""
STEP_BYTES = 1 << 20
"""Most bytes built in one step, except a single longer text or blob."""

_EMPTY = frozenset({0x80, 0x90})


@frozen
class Part:
    """Part of a long container: several adjacent values, or one that is long itself.

    Attributes:
        begin: Offset of its first byte.
        end: Offset after its last byte.
        count: Number of values, not counting nested ones.
        inner: The container itself, if the part is a long one.
    """

    begin: int
    end: int
    count: int
    inner: Long | None = None


@frozen
class Long:
    """A container too long to be built in one step.

    Attributes:
        code: ``"["`` for a list, ``"{"`` for a map, else the code of its extension type.
        parts: Its contents; keys and values of a map alternate.
    """

    code: str | int
    parts: tuple[Part, ...]


def scan(data: bytes, *, max_bytes: int, max_items: int, max_depth: int) -> Long | None:
    """Check one encoded value.

    Args:
        data: Untrusted bytes.
        max_bytes: Most bytes it may have.
        max_items: Most values, including dict keys and all nested values.
        max_depth: Most nested containers.

    Returns:
        The cuts, if it is a long container.

    Raises:
        ProtocolError: It is malformed or over a limit; the sentence says which, and where.
    """
    if len(data) > max_bytes:
        msg = f"a message of {len(data)} bytes is over the limit of {max_bytes} bytes"
        raise ProtocolError(msg)
    return _Scan(data, max_bytes, max_items, max_depth).run()


_Mark: TypeAlias = tuple[int, int, int]
_Outer: TypeAlias = tuple[int, int, int, str | int, int, int, _Mark, _Mark, list[Part]]


class _Scan:
    """One pass over one message; `_position` is the next byte to be read."""

    def __init__(self, data: bytes, max_bytes: int, max_items: int, max_depth: int) -> None:
        self._data = data
        self._position = 0
        self._max_items = max_items
        self._max_depth = max_depth
        self._max_copied = max_bytes * COPY_FACTOR + COPY_SLACK_BYTES
        self._items = 1
        self._copied = self._hashed = self._hashed_items = self._hashed_bytes = 0
        # The innermost container: values left in its current step and after that, its kind and code,
        # and the end of the extension payload that it must fill exactly (-1 if it has none of its own).
        self._left = 1
        self._rest = 0
        self._kind = _PLAIN
        self._code: str | int = "["
        self._stop = -1
        # Its start, and its current part; both as a position, values left and values seen.
        self._start: _Mark = (0, 1, 1)
        self._cut: _Mark = (0, 1, 1)
        self._parts: list[Part] = []
        # The upper bound of all offsets: the end of the innermost payload, or of the message.
        self._end = len(data)
        self._outer: list[_Outer] = []

    def run(self) -> Long | None:
        data = self._data
        while True:
            while self._left == 0:
                if self._rest:
                    self._next_step()
                elif self._outer:
                    self._leave()
                elif self._position != len(data):
                    self._fail("the value ends before the message does")
                else:
                    return self._parts[0].inner if self._parts else None
            if self._position >= self._end:
                self._fail("the message ends inside a value")
            first = data[self._position]
            self._position += 1
            self._left -= 1
            if first < 0x80 or first >= 0xE0:
                continue
            if 0xA0 <= first < 0xC0:
                self._skip(first & 0x1F)
                continue
            scalar = SCALAR_BYTES.get(first)
            if scalar is not None:
                self._skip(scalar)
                continue
            if first in _EMPTY and self._kind < _MAP and len(self._outer) < self._max_depth:
                continue
            # Values of a map alternate: an odd number of them is left after a key.
            key = self._kind >= _SET or (self._kind == _MAP and self._left & 1 == 1)
            self._long(first, key=key)

    def _long(self, first: int, *, key: bool) -> None:
        """Continue after the first byte of a value with a length."""
        begin = self._position - 1
        size = BLOB_LENGTH.get(first)
        if size is not None:
            self._skip(self._number(size))
            if self._position - self._cut[0] > STEP_BYTES:
                self._end_part()
        elif first in FIXED_EXT:
            self._extension(begin, FIXED_EXT[first], key=key)
        elif first in EXT_LENGTH:
            self._extension(begin, self._number(EXT_LENGTH[first]), key=key)
        elif key:
            self._fail("a list or dict stands where a dict key or set element must")
        elif first < 0x90:
            self._enter(begin, 2 * (first & 0x0F), _MAP, "{")
        elif first < 0xA0:
            self._enter(begin, first & 0x0F, _PLAIN, "[")
        elif first in ARRAY_LENGTH:
            self._enter(begin, self._number(ARRAY_LENGTH[first]), _PLAIN, "[")
        elif first in MAP_LENGTH:
            self._enter(begin, 2 * self._number(MAP_LENGTH[first]), _MAP, "{")
        else:
            self._fail(f"0x{first:02x} begins no value")

    def _extension(self, begin: int, size: int, *, key: bool) -> None:
        code = self._number(1)
        start = self._position
        if size > self._end - start:
            self._fail("an extension is longer than what is left")
        if key:
            if code not in {1, 2}:
                self._fail(f"extension type {code} cannot be a dict key or set element")
            self._count_hashed(size)
        if code in {2, 3, 4}:
            self._copied += size
            if self._copied > self._max_copied:
                self._fail("tuples or sets are nested around too much data")
            count = self._header(start + size)
            kind = _PLAIN
            if code != 2:
                kind = _SET
            elif key:
                kind = _KEY_TUPLE
                self._count_hashed_items(count)
            self._enter(begin, count, kind, code, start + size)
            return
        if code == 1:
            if not 1 <= size <= MAX_INT_BYTES:
                self._fail(f"a big int has {size} bytes; 1 to {MAX_INT_BYTES} may come")
        elif code == 5:
            self._array(start + size)
        elif code in {6, 7}:
            if size % 8:
                self._fail("a list of numbers has a broken length")
            self._count(size // 8)
        elif code != 8:
            self._fail(f"there is no extension type {code}")
        elif size != 16:
            self._fail("a complex number does not have 16 bytes")
        self._position = start + size
        if self._position - self._cut[0] > STEP_BYTES:
            self._end_part()

    def _enter(self, begin: int, count: int, kind: int, code: str | int, stop: int = -1) -> None:
        """Enter a container of `count` values."""
        end = self._end if stop < 0 else stop
        if count > end - self._position:
            self._fail("a container announces more values than there are bytes left")
        if len(self._outer) >= self._max_depth:
            self._fail(f"values are nested deeper than {self._max_depth} levels")
        seen = self._items
        self._count(count)
        self._outer.append(
            (
                self._left,
                self._rest,
                self._kind,
                self._code,
                self._stop,
                self._end,
                self._start,
                self._cut,
                self._parts,
            )
        )
        step = min(STEP_VALUES, count)
        self._left, self._rest, self._kind, self._code = step, count - step, kind, code
        self._stop, self._end, self._parts = stop, end, []
        self._start = (begin, seen, count)
        self._cut = (self._position, self._items, count)

    def _next_step(self) -> None:
        """Continue with the next values of a long container."""
        self._end_part()
        step = min(self._rest, STEP_VALUES)
        self._left, self._rest = step, self._rest - step

    def _end_part(self, position: int = -1, left: int = -1) -> None:
        """Record a cut of the innermost container at a position, with the number of values left after it."""
        if position < 0:
            position, left = self._position, self._left + self._rest
        if left < self._cut[2]:
            self._parts.append(Part(self._cut[0], position, self._cut[2] - left))
        self._cut = (position, self._items, left)

    def _leave(self) -> None:
        """Leave a container at its end."""
        if self._stop not in {-1, self._position}:
            self._fail("a tuple or set does not fill its payload")
        begin, seen, _ = self._start
        long = None
        if self._items - seen > STEP_VALUES or self._position - begin > 2 * STEP_BYTES:
            self._end_part()
            long = Long(self._code, tuple(self._parts))
        (
            self._left,
            self._rest,
            self._kind,
            self._code,
            self._stop,
            self._end,
            self._start,
            self._cut,
            self._parts,
        ) = self._outer.pop()
        if long is not None:
            left = self._left + self._rest
            self._end_part(begin, left + 1)
            self._parts.append(Part(begin, self._position, 1, long))
            self._cut = (self._position, self._items, left)
        elif self._items - self._cut[1] > STEP_VALUES:
            self._end_part()

    def _header(self, end: int) -> int:
        """Read the array header of a payload that ends at `end`."""
        if self._position >= end:
            self._fail("a payload that must be an array is empty")
        first = self._number(1)
        if 0x90 <= first < 0xA0:
            return first & 0x0F
        if first not in ARRAY_LENGTH:
            self._fail("a payload that must be an array is something else")
        return self._number(ARRAY_LENGTH[first])

    def _array(self, end: int) -> None:
        """Check a numeric array: ``[dtype, [shape], data]``."""
        outer, self._end = self._end, end
        if self._header(end) != 3:
            self._fail("an array is not made of dtype, shape and data")
        size = self._number(1) - 0xA0
        if not 0 <= size < 0x20:
            self._fail("an array's dtype is not a short string")
        dtype = self._take(size).decode("ascii", "replace")
        dimensions = self._header(end)
        if dimensions > MAX_DIMENSIONS:
            self._fail(f"an array has more than {MAX_DIMENSIONS} dimensions")
        shape = [self._length() for _ in range(dimensions)]
        first = self._number(1)
        if first not in {0xC4, 0xC5, 0xC6}:
            self._fail("an array's data are not bytes")
        data = self._take(self._number(BLOB_LENGTH[first]))
        try:
            check_header(dtype, shape, len(data))
            check_data(dtype, data)
        except ValueError as error:
            self._fail(str(error))
        self._count(empty_rows(shape))
        if self._position != end:
            self._fail("an array does not fill its payload")
        self._end = outer

    def _length(self) -> int:
        first = self._number(1)
        if first < 0x80:
            return first
        if not 0xCC <= first <= 0xCF:
            self._fail("an array's shape holds something that is not a length")
        return self._number(1 << (first - 0xCC))

    def _count(self, items: int) -> None:
        self._items += items
        if self._items > self._max_items:
            self._fail(f"there are more than {self._max_items} values")

    def _count_hashed(self, size: int) -> None:
        self._hashed += 1
        self._hashed_bytes += size
        if self._hashed > MAX_HASHED_KEYS or self._hashed_bytes > MAX_HASHED_KEYS * HASHED_BYTES_PER_KEY:
            self._fail("too many dict keys or set elements are tuples or big ints, whose hashes can collide")

    def _count_hashed_items(self, items: int) -> None:
        self._hashed_items += items
        if self._hashed_items > MAX_HASHED_KEYS * HASHED_ITEMS_PER_KEY:
            self._fail("tuples among dict keys or set elements are too long")

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _take(self, size: int) -> bytes:
        start = self._position
        self._skip(size)
        return self._data[start : start + size]

    def _skip(self, size: int) -> None:
        self._position += size
        if self._position > self._end:
            self._fail("the message ends inside a value")

    def _fail(self, what: str) -> NoReturn:
        size = len(self._data)
        msg = f"a malformed message: {what} (at byte {min(self._position, size)} of {size})"
        raise ProtocolError(msg)
