"""Encoder of Python values as MessagePack, shared by guest and host; the decoder is in `decoding`.

Plain values are plain MessagePack. Other types are extension types:

==== ======================================== =====================================================
code value                                    payload
==== ======================================== =====================================================
1    int beyond 64 bits                       two's complement, big-endian, at most 64 KiB
2    tuple                                    MessagePack array
3    set                                      MessagePack array, elements sorted by their bytes
4    frozenset                                the same
5    array                                    MessagePack ``[dtype, [shape], C-order data]``
6    list of 16 or more floats, no other type float64, little-endian
7    list of 16 or more ints of 64 bits       int64, little-endian
8    complex                                  two float64, little-endian
==== ======================================== =====================================================

Equal values give equal bytes: NaNs are written in one form and sets in one order. Subclasses of
plain types are encoded as their base, numpy scalars as Python scalars, and all other objects are
refused with their path. No method of a refused or subclassed object is called.
"""

from __future__ import annotations

from msgpack import packb as _packb

from .walk import INT_MAX, INT_MIN, MAX_DEPTH, Refused, Walk


class EncodeError(ValueError):
    """Part of a value has no encoding.

    Attributes:
        path: Its path, such as ``"result['a'][3]"``.
        reason: The problem and the remedy; continues the sentence that `path` starts.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class TooLarge(ValueError):
    """A value is over one of the caller's limits.

    Attributes:
        path: The path at which the limit was exceeded.
        which: ``"bytes"``, ``"items"``, ``"depth"`` or ``"keys"``.
        limit: The limit in that unit.
    """

    def __init__(self, path: str, which: str, limit: int) -> None:
        super().__init__(path, which, limit)
        self.path = path
        self.which = which
        self.limit = limit

    def __str__(self) -> str:
        if self.which == "depth":
            advice = "flatten it, unless it contains itself"
            return f"{self.path} is nested deeper than {self.limit} levels; {advice}"
        if self.which == "keys":
            return (
                f"{self.path} brings more than {self.limit} dict keys or set elements that are tuples or "
                "very large ints, or very long ones; use strings or small ints instead"
            )
        return f"{self.path} takes the whole beyond {self.limit} {self.which}; make it smaller"


def encode(
    value: object,
    *,
    max_bytes: int | None = None,
    max_items: int | None = None,
    max_depth: int = MAX_DEPTH,
    max_hashed_keys: int | None = None,
    root: str = "value",
) -> bytes:
    """Encode a value.

    Args:
        value: The value.
        max_bytes: Limit on the encoded size in bytes; None for no limit.
        max_items: Limit on the number of values, including dict keys and all nested values.
        max_depth: Limit on nesting; a flat list has depth 1. At most `MAX_DEPTH`.
        max_hashed_keys: Limit on dict keys and set elements whose hashes can be forged (tuples and
            ints beyond 64 bits). A sender whose reader distrusts it passes `MAX_HASHED_KEYS`.
        root: Name of the value in paths.

    Returns:
        The encoded bytes, the same for equal values.

    Raises:
        EncodeError: Part of the value has no encoding.
        TooLarge: The value is over a limit.
    """
    kind = type(value)
    if kind is bool or value is None or (kind is int and INT_MIN <= value <= INT_MAX):  # type: ignore[operator]
        short: bytes = _packb(value)
        if max_bytes is not None and len(short) > max_bytes:
            raise TooLarge(root, "bytes", max_bytes)
        return short
    walk = Walk(max_bytes, max_items, max_depth, max_hashed_keys)
    try:
        data: bytes = _packb(walk.value(value, 1))
    except Refused as refused:
        path = refused.path(root)
        if refused.which:
            raise TooLarge(path, refused.which, refused.limit) from None
        raise EncodeError(path, refused.reason) from None
    if len(data) > walk.max_bytes:
        raise TooLarge(root, "bytes", walk.max_bytes)
    return data
