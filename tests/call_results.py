"""Results of calls for tests that need no guest."""

from __future__ import annotations

from typing import Any

from evocell_runtime.calls import CallResult
from evocell_runtime.membrane import StopReason
from evocell_runtime.untrusted import GuestBytes


def ended_call(**readings: Any) -> CallResult:
    """The result of a call that returned and wrote nothing, but for the given readings."""
    plain: dict[str, Any] = {
        "returned": True,
        "status": 0,
        "trap": None,
        "message": None,
        "stop_reason": StopReason.NONE,
        "exit_code": 0,
        "response": None,
        "response_bytes": 0,
        "stdout": GuestBytes(b""),
        "stderr": GuestBytes(b""),
        "fuel_used": 1,
        "ran_s": 0.001,
        "memory_bytes": 1 << 20,
    }
    return CallResult(**{**plain, **readings})
