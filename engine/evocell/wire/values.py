"""Decoding of values and responses of a guest."""

from __future__ import annotations

from typing import Any

from evocell.errors import ProtocolError
from evocell.wire.build import build
from evocell.wire.scan import scan
from evocell_runtime.untrusted import GuestBytes

# Allowance of a response beyond its value: messages and tracebacks of the agent are at most
# 20 KiB together, in a map of at most 8 entries.
ENVELOPE_BYTES = 64 << 10
ENVELOPE_ITEMS = 64
ENVELOPE_DEPTH = 1

_TEXT = (str,)
_MAYBE_TEXT = (str, type(None))
_MAYBE_NUMBER = (int, type(None))
_NUMBER_RANGE = range(1 << 31)
_TIMES = range(1 << 63)

IMPORTS = "i"
"""The key in a response under which a call says how long its imports took, if that was long."""

# The agent's own caps on its texts, in bytes of UTF-8; it writes no longer ones.
_NAME_BYTES = 200
_SHORT_BYTES = 4 << 10
_LONG_BYTES = 16 << 10
TEXT_BYTES = {
    "type": _NAME_BYTES,
    "kind": _NAME_BYTES,
    "python": _NAME_BYTES,
    "message": _SHORT_BYTES,
    "path": _SHORT_BYTES,
    "text": _SHORT_BYTES,
    "traceback": _LONG_BYTES,
}
"""Most bytes of a text in a response."""
_MAX_NAMES = 10_000

# Kind of response -> its fields and their types; `object` stands for any value.
_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "completed": {"v": (object,)},
    "raised": {"type": _TEXT, "message": _TEXT, "traceback": _TEXT},
    "rejected": {
        "kind": _TEXT,
        "message": _TEXT,
        "path": _MAYBE_TEXT,
        "line": _MAYBE_NUMBER,
        "column": _MAYBE_NUMBER,
        "text": _MAYBE_TEXT,
    },
    "limit": {"kind": _TEXT, "message": _TEXT},
    "compiled": {"code": (bytes,), "imports": (list,)},
    "info": {"python": _TEXT, "packages": (dict,), "warm": (list,)},
}
_KINDS = {
    "rejected": frozenset({"syntax", "security", "compile", "load"}),
    "limit": frozenset({"payload", "memory"}),
}


def decode_hostile(data: bytes | GuestBytes, *, max_bytes: int, max_items: int, max_depth: int) -> Any:
    """Decode one value from untrusted bytes.

    Args:
        data: The bytes.
        max_bytes: Most bytes it may have.
        max_items: Most values it may hold, dict keys and all nested ones included.
        max_depth: Most containers around one another.

    Returns:
        The value: plain Python data and arrays, nothing else.

    Raises:
        ProtocolError: The bytes are not a value, or are over a limit.
    """
    raw = data.unchecked() if isinstance(data, GuestBytes) else data
    long = scan(raw, max_bytes=max_bytes, max_items=max_items, max_depth=max_depth)
    try:
        return build(raw, long)
    except (MemoryError, ProtocolError):
        raise
    except Exception as error:
        # The scan does not check UTF-8; any other failure of a decoder is the sender's fault too.
        msg = f"a malformed message: {type(error).__name__} while decoding it"
        raise ProtocolError(msg) from error


def decode_response(
    data: bytes | GuestBytes, *, max_bytes: int, max_items: int, max_depth: int
) -> dict[str, Any]:
    """Decode a guest agent's response and check its form.

    Args:
        data: The bytes out of the guest's memory.
        max_bytes: The call's limit on the encoded result; the response around it may be longer.
        max_items: The call's limit on values in the result.
        max_depth: The call's limit on nesting of the result.

    Returns:
        The response: its kind under ``"t"`` and exactly the fields of that kind; and how long its imports
        took, in nanoseconds, under `IMPORTS` if it says so.

    Raises:
        ProtocolError: It is not a response, so the guest's state is unreliable.
    """
    response = decode_hostile(
        data,
        max_bytes=max_bytes + ENVELOPE_BYTES,
        max_items=max_items + ENVELOPE_ITEMS,
        max_depth=max_depth + ENVELOPE_DEPTH,
    )
    if not isinstance(response, dict):
        raise ProtocolError("a malformed response: it is not a map")
    imports_ns = response.pop(IMPORTS, 0)
    if type(imports_ns) is not int or imports_ns not in _TIMES:
        raise ProtocolError("a malformed response: the time of its imports is none")
    kind = response.get("t")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise ProtocolError("a malformed response: it is not of a known kind")
    if response.keys() != fields.keys() | {"t"}:
        msg = f"a malformed response: a {kind!r} one must have exactly the fields {', '.join(sorted(fields))}"
        raise ProtocolError(msg)
    for name, types in fields.items():
        if not isinstance(response[name], types) or not _plausible(response[name], types):
            msg = f"a malformed response: the field {name!r} of a {kind!r} one has the wrong type"
            raise ProtocolError(msg)
        if isinstance(response[name], str) and name in TEXT_BYTES:
            check_text(response[name], TEXT_BYTES[name], f"a {kind!r} response's {name}")
    if kind in _KINDS and response["kind"] not in _KINDS[kind]:
        msg = f"a malformed response: a {kind!r} one has an unknown kind"
        raise ProtocolError(msg)
    if imports_ns:
        response[IMPORTS] = imports_ns
    return response


def check_text(text: str, max_bytes: int, what: str) -> None:
    """Refuse a text over the agent's own cap.

    Raises:
        ProtocolError: The text is too long.
    """
    if len(text) > max_bytes or (not text.isascii() and len(text.encode("utf-8", "replace")) > max_bytes):
        msg = f"a malformed response: {what} is longer than {max_bytes:,} bytes"
        raise ProtocolError(msg)


def _plausible(value: Any, types: tuple[type, ...]) -> bool:
    if types is _MAYBE_NUMBER and value is not None:
        return type(value) is int and value in _NUMBER_RANGE
    if types == (list,):
        return len(value) <= _MAX_NAMES and all(map(_is_name, value))
    if types == (dict,):
        return len(value) <= _MAX_NAMES and all(_is_name(item) for pair in value.items() for item in pair)
    return True


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _SHORT_BYTES
