"""Messages between an engine and its nodes, as bytes.

Nodes trust messages of the engine. Answers of a node are decoded like those of a guest: its machine is not
the caller's, so the answer is scanned under bounds, and each field is validated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgpack
from attrs import fields

from evocell.errors import ProtocolError
from evocell.execution.messages import GuestResult
from evocell.models.limits import Limits
from evocell.wire.values import ENVELOPE_BYTES, check_text, decode_hostile
from evocell_runtime.calls import CallResult
from evocell_runtime.membrane import StopReason
from evocell_runtime.untrusted import GuestBytes

__all__ = ["BRIEF_BYTES", "pack", "read_answer", "read_result", "room_for", "row_of", "unpack"]

BRIEF_BYTES = 1 << 20
"""Most bytes of an answer that is not about requests of guests."""

_SPARE_BYTES = 128 << 10
"""Overhead of a result beyond the guest's bytes: numbers and sentences."""

_ITEMS, _DEPTH = 200_000, 8
_TEXT_BYTES = 64 << 10
_FUEL_DIGITS = 20
_MOST = (1 << 63) - 1

_SIGHTING = tuple(field.name for field in fields(GuestResult))
_RESULT = tuple(field.name for field in fields(CallResult))
_SENTENCES = ("undelivered", "unforked", "no_image", "lost")
_FLAGS = ("timed_out", "session_alive", "loaded")


def pack(message: Mapping[str, Any]) -> bytes:
    """Encode a trusted message."""
    data: bytes = msgpack.packb(message)
    return data


def unpack(data: bytes) -> dict[str, Any]:
    """Decode a message of the engine; for nodes."""
    message: dict[str, Any] = msgpack.unpackb(data)
    return message


def room_for(limits: Limits) -> int:
    """Return the most bytes of a result of a call with the given limits."""
    return limits.payload_bytes + ENVELOPE_BYTES + 2 * limits.output_bytes + _SPARE_BYTES


def read_answer(data: bytes, max_bytes: int = BRIEF_BYTES) -> dict[str, Any]:
    """Decode a node's answer, validating only that it is a map with texts as keys.

    Raises:
        ProtocolError: It is malformed, or over a bound.
    """
    answer = decode_hostile(data, max_bytes=max_bytes, max_items=_ITEMS, max_depth=_DEPTH)
    if not isinstance(answer, dict) or not all(isinstance(key, str) for key in answer):
        raise ProtocolError("its answer is no map of names")
    return answer


def row_of(seen: GuestResult) -> list[Any]:
    """Return a result as a row of plain values, which is scanned in half the time of a map."""
    plain = seen.to_wire()
    result = plain["result"]
    plain["result"] = None if result is None else [result[name] for name in _RESULT]
    return [plain[name] for name in _SIGHTING]


def read_result(row: object, limits: Limits) -> GuestResult:
    """Decode a result from an untrusted row.

    Args:
        row: The decoded row.
        limits: The limits of the request; values that are impossible under them are refused.

    Raises:
        ProtocolError: It is malformed.
    """
    plain = _named(row, _SIGHTING)
    for name in _SENTENCES:
        if plain[name] is not None:
            _sentence(plain[name])
    if not all(isinstance(plain[name], bool) for name in _FLAGS):
        raise ProtocolError("a result in its answer says neither yes nor no")
    seen = [name for name in ("result", *_SENTENCES) if plain[name] is not None]
    if len(seen) != 1:
        raise ProtocolError("a result in its answer is of nothing, or of several things")
    result = None if plain["result"] is None else _read_result(plain["result"], limits)
    return GuestResult(**{**plain, "result": result})


def _read_result(row: object, limits: Limits) -> CallResult:
    plain = _named(row, _RESULT)
    if not isinstance(plain["returned"], bool):
        raise ProtocolError("a result in its answer says neither yes nor no")
    for name in ("trap", "message"):
        if plain[name] is not None:
            _sentence(plain[name])
    for name in ("status", "exit_code"):
        _whole(plain[name], lowest=-_MOST - 1)
    for name in ("response_bytes", "memory_bytes", "imports_ns"):
        _whole(plain[name])
    ran_s = plain["ran_s"]
    if not isinstance(ran_s, float) or not math.isfinite(ran_s) or ran_s < 0:
        raise ProtocolError("a result in its answer took no time that there is")
    fuel = plain["fuel_used"]
    if not isinstance(fuel, str) or not (fuel.isascii() and fuel.isdigit()) or len(fuel) > _FUEL_DIGITS:
        raise ProtocolError("a result in its answer took no fuel that there is")
    try:
        reason = StopReason(_whole(plain["stop_reason"]))
    except ValueError as error:
        raise ProtocolError("a result in its answer was stopped for no reason that there is") from error
    data = {
        "response": _guest_bytes(plain["response"], limits.payload_bytes + ENVELOPE_BYTES),
        "stdout": _guest_bytes(plain["stdout"] or b"", limits.output_bytes),
        "stderr": _guest_bytes(plain["stderr"] or b"", limits.output_bytes),
    }
    return CallResult(**{**plain, **data, "fuel_used": int(fuel), "stop_reason": reason})


def _named(row: object, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(row, list) or len(row) != len(names):
        raise ProtocolError("a result in its answer has other fields than it should")
    return dict(zip(names, row, strict=True))


def _guest_bytes(data: object, most: int) -> GuestBytes | None:
    if data is None:
        return None
    if not isinstance(data, bytes) or len(data) > most:
        raise ProtocolError("a result in its answer holds more than its limits allow")
    return GuestBytes(data)


def _whole(value: object, *, lowest: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= _MOST:
        raise ProtocolError("a result in its answer has a number that cannot be")
    return value


def _sentence(value: object) -> None:
    if not isinstance(value, str):
        raise ProtocolError("its answer says why in something that is no text")
    check_text(value, _TEXT_BYTES, "a node's sentence")
