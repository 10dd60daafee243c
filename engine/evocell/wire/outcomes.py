"""Encoding, decoding and digests of outcomes.

Decoding checks every field: the bytes may come from a file that is writable by others.
"""

from __future__ import annotations

import hashlib
from typing import Any, get_args

from attrs import fields

from evocell.errors import ProtocolError
from evocell.models.limits import MAX_OUTPUT_BYTES
from evocell.models.outcome import (
    Completed,
    GuestCrashed,
    LimitExceeded,
    LimitKind,
    Outcome,
    Raised,
    Rejected,
    RejectedKind,
    WorkerLost,
)
from evocell.wire.values import check_text, decode_hostile
from evocell_guest.values import EncodeError, TooLarge, encode

__all__ = ["decode_outcome", "encode_outcome", "outcome_digest"]

_CLASSES: dict[str, type[Outcome]] = {
    kind.__name__: kind for kind in (Completed, Raised, Rejected, LimitExceeded, GuestCrashed, WorkerLost)
}
_NOT_THE_SAME_TWICE = frozenset({"wall_s"})
_MAX_BYTES = 512 << 20
_MAX_ITEMS = 64 << 20
_MAX_DEPTH = 130
_NUMBER = (int, float, type(None))
_TEXT = (str,)
_MAYBE_TEXT = (str, type(None))
_TYPES: dict[str, tuple[type, ...]] = {
    "fuel_used": (int,),
    "wall_s": (float, int),
    "peak_memory_bytes": (int,),
    "stdout": _TEXT,
    "stderr": _TEXT,
    "deterministic": (bool,),
    "import_fuel": (int,),
    "value": (object,),
    "type_name": _TEXT,
    "message": _TEXT,
    "traceback": _TEXT,
    "kind": _TEXT,
    "path": _MAYBE_TEXT,
    "line": (int, type(None)),
    "column": (int, type(None)),
    "text": _MAYBE_TEXT,
    "limit": _NUMBER,
    "reached": _NUMBER,
    "reason": _TEXT,
    "exit_code": (int, type(None)),
}
# As for the texts of a response, with room for the host's additions.
_TEXT_BYTES = {
    "type_name": 1 << 10,
    "kind": 1 << 10,
    "message": 16 << 10,
    "traceback": 64 << 10,
    "path": 16 << 10,
    "text": 16 << 10,
    "reason": 16 << 10,
    "stdout": 3 * MAX_OUTPUT_BYTES,
    "stderr": 3 * MAX_OUTPUT_BYTES,
}
_KINDS: dict[type[Outcome], frozenset[str]] = {
    Rejected: frozenset(get_args(RejectedKind)),
    LimitExceeded: frozenset(get_args(LimitKind)),
}


def encode_outcome(outcome: Outcome) -> bytes | None:
    """Return an outcome as bytes; None if its value is at the maximal depth and cannot be wrapped."""
    return _encode(outcome, frozenset())


def outcome_digest(outcome: Outcome) -> str:
    """Return a hash over the reproducible part of an outcome: everything but wall time."""
    plain = _encode(outcome, _NOT_THE_SAME_TWICE)
    if plain is None and isinstance(outcome, Completed):  # the value has the maximal depth or size
        rest = _encode(outcome, _NOT_THE_SAME_TWICE | {"value"}) or b""
        plain = rest + encode(outcome.value)
    assert plain is not None, "texts are short"
    return hashlib.sha256(plain).hexdigest()


def decode_outcome(data: bytes) -> Outcome:
    """Decode the bytes that `encode_outcome` returns.

    Raises:
        ProtocolError: They are not an outcome.
    """
    plain = decode_hostile(data, max_bytes=_MAX_BYTES, max_items=_MAX_ITEMS, max_depth=_MAX_DEPTH)
    name = plain.pop("", None) if isinstance(plain, dict) else None
    kind = _CLASSES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError("a kept outcome is none of the known kinds")
    names = {attribute.name for attribute in fields(kind)}
    if plain.keys() != names:
        raise ProtocolError(f"a kept {kind.__name__} has other fields than it should")
    for name, value in plain.items():
        if not isinstance(value, _TYPES[name]):
            raise ProtocolError(f"a kept {kind.__name__} has a {name} of the wrong type")
        if isinstance(value, str) and name in _TEXT_BYTES:
            check_text(value, _TEXT_BYTES[name], f"a kept {kind.__name__}'s {name}")
    if kind in _KINDS and plain["kind"] not in _KINDS[kind]:
        raise ProtocolError(f"a kept {kind.__name__} is of no known kind")
    return kind(**plain)


def _encode(outcome: Outcome, without: frozenset[str]) -> bytes | None:
    kind = type(outcome)
    plain: dict[str, Any] = {"": kind.__name__}
    for attribute in fields(kind):
        if attribute.name not in without:
            value = getattr(outcome, attribute.name)
            text = isinstance(value, str) and attribute.name != "value"
            plain[attribute.name] = value.encode("utf-8", "replace").decode() if text else value
    try:
        return encode(plain, max_bytes=_MAX_BYTES, max_items=_MAX_ITEMS, max_depth=_MAX_DEPTH)
    except (EncodeError, TooLarge):
        return None
