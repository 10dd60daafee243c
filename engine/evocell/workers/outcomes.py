"""Classification of a guest's result into the outcome that the caller gets.

Traps and exhausted fuel, memory and time are the host's own readings. The guest's answer is read only if
the call returned normally, and is decoded under limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evocell.code.compiler import FUEL_PER_NS
from evocell.errors import ProtocolError
from evocell.models.limits import Limits
from evocell.models.outcome import (
    Completed,
    GuestCrashed,
    LimitExceeded,
    Outcome,
    Raised,
    Rejected,
)
from evocell.wire.values import ENVELOPE_BYTES, IMPORTS, decode_response
from evocell_runtime.calls import CallResult
from evocell_runtime.membrane import StopReason

NEAR_LIMIT = 0.9
"""Share of the memory limit in use from which a trap is attributed to memory."""

_TRAPS = {
    "ERROR": "it passed a host function an address outside its memory",
    "UNREACHABLE": "it reached code that aborts",
    "MEMORY_OUT_OF_BOUNDS": "it accessed memory outside its own",
    "TABLE_OUT_OF_BOUNDS": "it called through a table index out of bounds",
    "INDIRECT_CALL_TO_NULL": "it called a null function",
    "BAD_SIGNATURE": "it called a function with the wrong signature",
    "INTEGER_DIVISION_BY_ZERO": "it divided by zero in native code",
    "UNCAUGHT_EXCEPTION": "a native exception was not caught",
}


def readings(result: CallResult, image_bytes: int, *, deterministic: bool) -> dict[str, Any]:
    """Return the fields that every outcome has, from the host's readings."""
    return {
        "fuel_used": result.fuel_used,
        "wall_s": result.ran_s,
        "peak_memory_bytes": max(0, result.memory_bytes - image_bytes),
        "stdout": result.stdout.text(),
        "stderr": result.stderr.text(),
        "deterministic": deterministic,
    }


def import_fuel(result: CallResult, imports_ns: int) -> int:
    """The fuel that imports took, of which the guest tells the virtual time; never more than there was."""
    return min(FUEL_PER_NS * imports_ns, result.fuel_used)


def classify(
    result: CallResult, limits: Limits, image_bytes: int, *, timed_out: bool, deterministic: bool = True
) -> Outcome:
    """Return the outcome of a call.

    Args:
        result: The host's observations.
        limits: The call's limits.
        image_bytes: Size of the image's memory, which is not the variant's.
        timed_out: Whether the host killed the call at its deadline.
        deterministic: Whether the profile promises that a repetition gives the same outcome.
    """
    common = readings(result, image_bytes, deterministic=deterministic and not timed_out)
    if deterministic and result.imports_ns:
        common["import_fuel"] = import_fuel(result, result.imports_ns)
    if timed_out:
        return LimitExceeded(kind="timeout", limit=limits.timeout_s, reached=result.ran_s, **common)
    if not result.returned:
        return _stopped(result, limits, common)
    if result.response_bytes > limits.payload_bytes + ENVELOPE_BYTES:
        return LimitExceeded(
            kind="payload", limit=limits.payload_bytes, reached=result.response_bytes, **common
        )
    if result.response is None or result.status:
        return GuestCrashed(reason="it returned without an answer", **common)
    try:
        answer = decode_response(
            result.response,
            **limits.payload_bounds,
        )
    except ProtocolError as e:
        return GuestCrashed(reason=f"its answer cannot be read: {e}", **common)
    if (imports_ns := answer.get(IMPORTS, 0)) and deterministic:
        common["import_fuel"] = import_fuel(result, imports_ns)
    return answered(answer, limits, common)


def _stopped(result: CallResult, limits: Limits, common: dict[str, Any]) -> Outcome:
    if result.stop_reason is StopReason.EXIT:
        return GuestCrashed(
            reason=f"it exited with code {result.exit_code}", exit_code=result.exit_code, **common
        )
    if result.stop_reason is StopReason.OUTPUT:
        reached = len(result.stdout) + len(result.stderr)
        return LimitExceeded(kind="output", limit=limits.output_bytes, reached=reached, **common)
    if result.stop_reason is StopReason.FILES:
        # The write that would have exceeded the limit was not performed.
        limit = limits.scratch_bytes
        return LimitExceeded(kind="files", limit=limit, reached=limit, **common)
    if result.stop_reason is StopReason.ENTRIES:
        message = f"stopped at the limit of {limits.scratch_files:,} files and directories in /tmp"
        return LimitExceeded(kind="files", limit=limits.scratch_files, message=message, **common)
    if result.trap == "OUT_OF_FUEL":
        return LimitExceeded(kind="fuel", limit=limits.fuel, reached=result.fuel_used, **common)
    if result.trap == "STACK_OVERFLOW":
        return LimitExceeded(kind="stack", message="the call nested deeper than the guest's stack", **common)
    if common["peak_memory_bytes"] >= NEAR_LIMIT * limits.memory_bytes:
        return LimitExceeded(
            kind="memory", limit=limits.memory_bytes, reached=common["peak_memory_bytes"], **common
        )
    trap = result.trap or "unknown"
    return GuestCrashed(reason=_TRAPS.get(trap, f"it trapped ({trap})"), **common)


def answered(answer: Mapping[str, Any], limits: Limits, common: dict[str, Any]) -> Outcome:
    """The outcome of a call that the guest answered.

    Args:
        answer: Its response, checked.
        limits: The call's limits.
        common: What `readings` returned.
    """
    match answer["t"]:
        case "completed":
            return Completed(value=answer["v"], **common)
        case "raised":
            return Raised(
                type_name=answer["type"], message=answer["message"], traceback=answer["traceback"], **common
            )
        case "rejected":
            return Rejected(kind=answer["kind"], message=answer["message"], **common)
        case "limit" if answer["kind"] == "memory":
            limit, reached = limits.memory_bytes, common["peak_memory_bytes"]
            return LimitExceeded(
                kind="memory", limit=limit, reached=reached, message=answer["message"], **common
            )
        case "limit":
            return LimitExceeded(
                kind="payload", limit=limits.payload_bytes, message=answer["message"], **common
            )
        case other:
            return GuestCrashed(reason=f"its answer is to another question ({other})", **common)
