"""Conversion of a value to msgpack's native types, with counting against limits."""

from __future__ import annotations

import sys
from array import array
from collections import OrderedDict
from struct import Struct
from typing import Any, NoReturn

from msgpack import ExtType
from msgpack import packb as _packb

from .arrays import MAX_DIMENSIONS, Array, empty_rows, item_bytes

# Deeper nesting would exhaust the interpreter's own stack while packing or unpacking.
MAX_DEPTH = 128
MAX_INT_BYTES = 1 << 16
RAW_LIST_MIN = 16
# Readers copy the payloads of tuples and sets once per level.
COPY_FACTOR = 8
COPY_SLACK_BYTES = 1 << 20
# Hashes of tuples and big ints can be forged to collide, which makes reading a dict quadratic.
MAX_HASHED_KEYS = 4096
HASHED_ITEMS_PER_KEY = 4
HASHED_BYTES_PER_KEY = 64

INT_MIN = -(2**63)
INT_MAX = 2**64 - 1
_UNLIMITED = 1 << 62
_MAX_PATH_CHARS = 240
_TWO_DOUBLES = Struct("<dd")
_ARRAY_16 = Struct(">BH")
_ARRAY_32 = Struct(">BI")
_LITTLE = sys.byteorder == "little"
_MODULES = sys.modules
_ALLOWED = "None, bool, int, float, complex, str, bytes, list, tuple, dict, set or a numpy array"
_ALLOWED_KEYS = "None, bool, int, float, str, bytes or a tuple of these"
_type_name = type.__dict__["__name__"].__get__
_LISTED = "return list(value)"
_SURROGATE = "is a str with a lone surrogate, which cannot travel; return ascii(value) or its code points"
_BROKEN_TEXTS = (
    "is an array of str with a lone surrogate, which cannot travel; "
    "return [ascii(text) for text in array.flat]"
)
_BY_TYPE = {
    "DataFrame": "return frame.to_dict('list')",
    "Series": "return series.tolist() or series.to_numpy()",
    "Index": "return index.tolist()",
    "Decimal": "return str(value) or float(value)",
    "Fraction": "return str(value) or (value.numerator, value.denominator)",
    "date": "return value.isoformat()",
    "timedelta": "return value.total_seconds()",
    "datetime64": "return str(value)",
    "timedelta64": "return value.astype('i8')",
    "void": "return value.tolist()",
    "longdouble": "return float(value)",
    "clongdouble": "return complex(value)",
    "UUID": "return str(value)",
    "Categorical": "return value.tolist()",
    "ChainMap": "return dict(value)",
    "Graph": "return list(graph.edges)",
    "NodeView": _LISTED,
    "Basic": "return str(value), int(value) or float(value)",
    "Polynomial": "return value.coef",
    "poly1d": "return value.coef",
    "StringIO": "return value.getvalue()",
    "BytesIO": "return value.getvalue()",
    "BaseException": "return repr(value)",
    "async_generator": "return [item async for item in value] from asyncio.run",
    "Enum": "return value.value",
    "Path": "return str(value)",
    "PurePath": "return str(value)",
    "SimpleNamespace": "return vars(value)",
    "mappingproxy": "return dict(value)",
    "array": "return value.tolist()",
    "spmatrix": "return matrix.toarray()",
    "_spbase": "return matrix.toarray()",
    "function": "return what it computes",
    "type": "return an instance's values",
    "coroutine": "return what asyncio.run(value) gives",
    **dict.fromkeys(
        ("generator", "range", "map", "filter", "zip", "enumerate", "deque", "dict_keys", "dict_values"),
        _LISTED,
    ),
    **dict.fromkeys(("dict_items", "list_iterator", "set_iterator", "reversed", "chain", "islice"), _LISTED),
    **dict.fromkeys(("count", "cycle", "repeat"), "return list(itertools.islice(value, n))"),
}


class Refused(Exception):
    """A refusal that collects the path while it propagates to the root."""

    def __init__(self, which: str, reason: str, limit: int = 0) -> None:
        super().__init__(which, reason, limit)
        self.which = which
        self.reason = reason
        self.limit = limit
        self.steps: list[str] = []

    def path(self, root: str) -> str:
        """Return the path from `root` to the refused value, shortened in its middle."""
        path = root + "".join(reversed(self.steps))
        if len(path) > _MAX_PATH_CHARS:
            half = _MAX_PATH_CHARS // 2
            path = f"{path[:half]}…{path[-half:]}"
        return path


class Walk:
    """Converts one value to msgpack's native types, counting against the limits."""

    __slots__ = (
        "bytes",
        "copied",
        "hashed",
        "hashed_bytes",
        "hashed_items",
        "items",
        "max_bytes",
        "max_copied",
        "max_depth",
        "max_hashed",
        "max_items",
    )

    def __init__(
        self, max_bytes: int | None, max_items: int | None, max_depth: int, max_hashed: int | None
    ) -> None:
        self.bytes = self.copied = self.hashed = self.hashed_items = self.hashed_bytes = 0
        self.items = 1
        self.max_bytes = _UNLIMITED if max_bytes is None else max_bytes
        self.max_copied = _UNLIMITED if max_bytes is None else max_bytes * COPY_FACTOR + COPY_SLACK_BYTES
        self.max_items = _UNLIMITED if max_items is None else max_items
        self.max_depth = min(max_depth, MAX_DEPTH)
        self.max_hashed = _UNLIMITED if max_hashed is None else max_hashed

    def value(self, value: Any, depth: int) -> Any:
        """Return the msgpack form of `value`, a member of a container nested `depth - 1` deep.

        Raises:
            Refused: It has no encoding, or is over a limit.
        """
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is int:
            return value if INT_MIN <= value <= INT_MAX else self._big_int(value)
        if kind is float:
            return value if value == value else float("nan")  # noqa: PLR0124 - only NaN differs from itself
        if kind is bool or value is None:
            return value
        if kind is list:
            return self._list(value, depth)
        if kind is dict:
            return self._dict(value.items(), len(value), depth)
        if kind is tuple:
            return ExtType(2, self._nested(self._sequence(value, depth)))
        if kind is bytes:
            self._grow(len(value))
            return value
        if kind is set or kind is frozenset:
            return self._set(value, depth)
        try:
            return self._other(value, kind, depth)
        except (Refused, MemoryError, RecursionError):
            raise
        except Exception as error:
            what = f"is of type {_name_of(kind)} and cannot be read ({_name_of(type(error))})"
            raise Refused("", f"{what}; return {_ALLOWED}") from None

    def _other(self, value: Any, kind: type, depth: int) -> Any:
        """Convert the rarer types, and subclasses as their base, without running their methods."""
        if kind is complex or issubclass(kind, complex):
            parts = (complex.real.__get__(value), complex.imag.__get__(value))
            return ExtType(8, _TWO_DOUBLES.pack(*(self.value(part, depth) for part in parts)))
        if issubclass(kind, str):
            return self._text(str.__str__(value))
        if issubclass(kind, int):
            return self.value(int.__int__(value), depth)
        if issubclass(kind, float):
            return self.value(float.__float__(value), depth)
        if issubclass(kind, bytes):
            return self.value(bytes.__getitem__(value, slice(None)), depth)
        if issubclass(kind, bytearray):
            self._grow(bytearray.__len__(value))
            return bytes(memoryview(value))
        if kind is memoryview:
            self._grow(value.nbytes)
            return value.tobytes()
        if issubclass(kind, list):
            return self._list(list.copy(value), depth)
        if issubclass(kind, OrderedDict):
            return self._dict(OrderedDict.items(value), dict.__len__(value), depth)
        if issubclass(kind, dict):
            return self._dict(dict.items(value), dict.__len__(value), depth)
        if issubclass(kind, tuple):
            return ExtType(2, self._nested(self._sequence(tuple.__getitem__(value, slice(None)), depth)))
        if issubclass(kind, set | frozenset):
            return self._set(value, depth)
        if kind is Array:
            return self._array(value.dtype, value.shape, value.data)
        numpy = _MODULES.get("numpy")
        if numpy is not None:
            if issubclass(kind, numpy.ndarray):
                return self._ndarray(value, numpy)
            if issubclass(kind, numpy.generic):
                item = value.item()
                # Times in nanoseconds come out of `item` as bare numbers.
                is_time = issubclass(kind, numpy.datetime64 | numpy.timedelta64)
                if type(item) in {bool, int, float, complex, str, bytes} and not is_time:
                    return self.value(item, depth)
        return refuse(kind, f"return {_ALLOWED}")

    def _grow(self, size: int) -> None:
        self.bytes += size
        if self.bytes > self.max_bytes:
            raise Refused("bytes", "", self.max_bytes)

    def _enter(self, items: int, depth: int) -> None:
        if depth > self.max_depth:
            raise Refused("depth", "", self.max_depth)
        self.items += items
        if self.items > self.max_items:
            raise Refused("items", "", self.max_items)

    def _nested(self, values: Any) -> bytes:
        data: bytes = _packb(values)
        self._count_copy(len(data))
        return data

    def _count_copy(self, size: int) -> None:
        self.copied += size
        if self.copied > self.max_copied:
            raise Refused("bytes", "", self.max_bytes)

    def _text(self, value: str) -> str:
        self._grow(len(value))
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Refused("", _SURROGATE) from None
        return value

    def _big_int(self, value: int) -> ExtType:
        size = value.bit_length() // 8 + 1
        if size > MAX_INT_BYTES:
            hint = f"return value.to_bytes({size}, 'big', signed=True)"
            raise Refused("", f"is an int of {size} bytes; at most {MAX_INT_BYTES} may travel; {hint}")
        self._grow(size)
        return ExtType(1, value.to_bytes(size, "big", signed=True))

    def _list(self, value: Any, depth: int) -> Any:
        # Types are compared by identity: hashing or comparing one may run its metaclass.
        if len(value) >= RAW_LIST_MIN and len(set(map(id, map(type, value)))) == 1:
            kind = type(value[0])
            raw = None
            if issubclass(kind, float):
                raw = _raw_floats(value)
            elif issubclass(kind, int) and kind is not bool:
                raw = _raw_ints(value)
            if raw is not None:
                self._enter(len(value), depth)
                self._grow(len(raw))
                return ExtType(6 if issubclass(kind, float) else 7, raw)
        return self._sequence(value, depth)

    def _sequence(self, value: Any, depth: int) -> Any:
        self._enter(len(value), depth)
        values = []
        index = 0
        encode_value = self.value
        try:
            for item in value:
                values.append(encode_value(item, depth + 1))
                index += 1
        except Refused as refused:
            refused.steps.append(f"[{index}]")
            raise
        return values

    def _dict(self, pairs: Any, length: int, depth: int) -> Any:
        self._enter(2 * length, depth)
        values = {}
        for key, item in pairs:
            try:
                name = self._text(key) if type(key) is str else self._key(key, depth + 1)
            except Refused as refused:
                refused.steps.append(".<a key>")
                raise
            try:
                values[name] = self.value(item, depth + 1)
            except Refused as refused:
                refused.steps.append(f"[{_label(key)}]")
                raise
        return values

    def _set(self, value: Any, depth: int) -> ExtType:
        base = set if issubclass(type(value), set) else frozenset
        self._enter(base.__len__(value), depth)
        try:
            packed = [_packb(self._key(item, depth + 1)) for item in base.__iter__(value)]
        except Refused as refused:
            refused.steps.append(".<an element>")
            raise
        packed.sort()
        data = _array_header(len(packed)) + b"".join(packed)
        self._count_copy(len(data))
        return ExtType(3 if base is set else 4, data)

    def _key(self, value: Any, depth: int) -> Any:
        """Convert a value that a reader will hash."""
        kind = type(value)
        if issubclass(kind, tuple):
            items = value if kind is tuple else tuple.__getitem__(value, slice(None))
            self._enter(len(items), depth)
            data = self._nested([self._key(item, depth + 1) for item in items])
            self._count_hashed(len(items), len(data))
            return ExtType(2, data)
        if value is not None and not issubclass(kind, int | float | str | bytes):
            numpy = _MODULES.get("numpy")
            if numpy is None or not issubclass(kind, numpy.generic):
                refuse(kind, f"use {_ALLOWED_KEYS} here")
            is_time = issubclass(kind, numpy.datetime64 | numpy.timedelta64)
            value = value.item()
            if is_time or type(value) not in {bool, int, float}:
                refuse(kind, f"use {_ALLOWED_KEYS} here")
        packed = self.value(value, depth)
        if type(packed) is ExtType:
            self._count_hashed(0, len(packed.data))
        return packed

    def _count_hashed(self, items: int, size: int) -> None:
        limit = self.max_hashed
        self.hashed += 1
        self.hashed_items += items
        self.hashed_bytes += size
        if (
            self.hashed > limit
            or self.hashed_items > limit * HASHED_ITEMS_PER_KEY
            or self.hashed_bytes > limit * HASHED_BYTES_PER_KEY
        ):
            raise Refused("keys", "", limit)

    def _ndarray(self, value: Any, numpy: Any) -> ExtType:
        masked = _MODULES.get("numpy.ma")
        if masked is not None and issubclass(type(value), masked.MaskedArray):
            raise Refused("", "is a masked array; return .filled(value) instead")
        plain = numpy.ndarray.view(value, numpy.ndarray)
        if plain.ndim > MAX_DIMENSIONS:
            raise Refused("", f"is an array of {plain.ndim} dimensions; at most {MAX_DIMENSIONS} may travel")
        dtype = plain.dtype
        if not (dtype.isbuiltin or dtype.kind in "biufcSU"):
            raise Refused(
                "", f"is an array of dtype {str(dtype)[:80]}, which cannot travel; {_dtype_hint(dtype)}"
            )
        dtype = dtype.newbyteorder("<")
        try:
            item_bytes(dtype.str)
        except ValueError as error:
            raise Refused("", f"is an array whose {error}; {_dtype_hint(dtype)}") from None
        if plain.nbytes > self.max_bytes:
            raise Refused("bytes", "", self.max_bytes)
        plain = numpy.asarray(plain, dtype=dtype, order="C")
        if dtype.kind == "U":
            points = plain.reshape(-1).view("<u4")
            if ((points >= 0xD800) & (points < 0xE000)).any():
                raise Refused("", _BROKEN_TEXTS)
        if dtype.kind in "fc":
            reals = plain.reshape(-1).view(f"<f{dtype.itemsize // (2 if dtype.kind == 'c' else 1)}")
            nans = reals != reals  # noqa: PLR0124 - only NaN differs from itself
            if nans.any():
                reals = reals.copy()
                reals[nans] = numpy.nan
            return self._array(dtype.str, plain.shape, reals.tobytes())
        return self._array(dtype.str, plain.shape, plain.tobytes())

    def _array(self, dtype: str, shape: tuple[int, ...], data: bytes) -> ExtType:
        self._grow(len(data))
        self._enter(empty_rows(shape), 0)
        return ExtType(5, _packb([dtype, list(shape), data]))


def refuse(kind: type, hint: str) -> NoReturn:
    """Refuse an object by the name of its type; `hint` is the default remedy."""
    name = _name_of(kind)
    if hint.startswith("return"):
        better = _BY_TYPE.get(name) or _by_base(kind)
        hint = f"{better}, or {hint.removeprefix('return ')}" if better else hint
    article = "an" if name[:1].lower() in {"a", "e", "i", "o"} else "a"
    raise Refused("", f"is {article} {name}, which cannot leave or enter the sandbox; {hint}")


def _by_base(kind: type) -> str:
    """Return what to do with a value of a kind of class, by its bases and what they define."""
    bases = type.__dict__["__mro__"].__get__(kind)
    known = next((_BY_TYPE[base] for base in _bases(kind) if base in _BY_TYPE), "")
    if known:
        return known
    # A class may have names of other types, whose methods are not to run here.
    namespaces = [type.__dict__["__dict__"].__get__(base) for base in bases]
    defined = {name for names in namespaces for name in names if type(name) is str}
    if "__dataclass_fields__" in defined:
        return "return dataclasses.asdict(value)"
    if "__attrs_attrs__" in defined:
        return "return attrs.asdict(value)"
    return _LISTED if "__next__" in defined else ""


def _bases(kind: type) -> list[str]:
    return [_name_of(base) for base in type.__dict__["__mro__"].__get__(kind)]


def _name_of(kind: type) -> str:
    name: str = _type_name(kind)
    return name[:80].encode("ascii", "backslashreplace").decode()


def _dtype_hint(dtype: Any) -> str:
    """Return how to convert an array with an unsupported dtype to a supported one."""
    kind = dtype.kind
    if kind == "T":
        return "return array.astype('U') or array.tolist()"
    if kind in "Mm":
        return "return array.astype('i8') or array.astype(str)"
    if kind == "V":
        return "return {name: array[name] for name in array.dtype.names}"
    if kind in "fc":
        return "return array.astype(float), or array.astype(complex)"
    return "return array.tolist()"


def _label(key: Any) -> str:
    """Format a dict key for a path, without running any method of it."""
    kind = type(key)
    if kind is str or kind is bytes:
        return repr(key) if len(key) <= 40 else f"{key[:40]!r}…"
    if kind is float or kind is bool or key is None or (kind is int and INT_MIN <= key <= INT_MAX):
        return repr(key)
    return f"<{_type_name(kind)[:40]}>"


def _array_header(length: int) -> bytes:
    if length <= 15:
        return bytes((0x90 | length,))
    return _ARRAY_16.pack(0xDC, length) if length <= 0xFFFF else _ARRAY_32.pack(0xDD, length)


def _raw_floats(value: list[float]) -> bytes:
    numbers = array("d", value)
    total = sum(numbers)
    if total != total:  # noqa: PLR0124 - a NaN among them makes the sum one; inf - inf does too
        numbers = array("d", [x if x == x else float("nan") for x in numbers])  # noqa: PLR0124
    if not _LITTLE:
        numbers.byteswap()
    return numbers.tobytes()


def _raw_ints(value: list[int]) -> bytes | None:
    try:
        numbers = array("q", value)
    except OverflowError:
        return None
    if not _LITTLE:
        numbers.byteswap()
    return numbers.tobytes()
