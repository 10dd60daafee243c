"""A call as data: its limits, and its result, read from the memory of the guest that it ran in."""

from __future__ import annotations

from attrs import frozen

from evocell_guest.imports import MARK as IMPORTS_MARK
from evocell_runtime import membrane
from evocell_runtime.body import Body
from evocell_runtime.membrane import StopReason
from evocell_runtime.untrusted import GuestBytes

__all__ = ["CallLimits", "CallResult", "claimed_bytes", "clock_ns", "read_result"]

MOST_FUEL = (1 << 62) - 1
"""Most fuel of a call."""


@frozen(kw_only=True)
class CallLimits:
    """Limits of one call.

    Attributes:
        fuel: Fuel, host calls included.
        response_bytes: Most bytes of the response.
        output_bytes: stdout and stderr together, in bytes; at most `membrane.OUTPUT_BYTES`.
        open_files: Most open files.
        scratch_bytes: Most bytes under `/tmp`, including those left by earlier calls of the fork.
        scratch_files: Most files and directories there.
        scratch_file_bytes: Most bytes of one file.
        scratch_depth: Names in the longest path below `/tmp`.
    """

    fuel: int
    response_bytes: int = 16 << 20
    output_bytes: int = membrane.OUTPUT_BYTES
    open_files: int = 64
    scratch_bytes: int = 0
    scratch_files: int = 1000
    scratch_file_bytes: int = 1 << 30
    scratch_depth: int = 16

    @property
    def metered_fuel(self) -> int:
        """The fuel that the call gets: at most what its counter can hold."""
        return min(self.fuel, MOST_FUEL)


@frozen(kw_only=True)
class CallResult:
    """Result of a call, as the host observed it.

    Attributes:
        returned: Whether the guest returned by itself. Only then is `response` meaningful.
        status: The value of `turn`: 0, or 1 if Python code raised outside the agent.
        trap: The trap's code name, `"ERROR"`, or None.
        message: The trap's own text, for a log.
        stop_reason: Why the membrane ended the call, if it did.
        exit_code: The guest's argument of `proc_exit`, for `StopReason.EXIT`.
        response: The guest's response; None if it left none or too long a one.
        response_bytes: Its claimed length.
        stdout: Captured bytes.
        stderr: Captured bytes.
        fuel_used: Fuel used, host calls included.
        ran_s: Time the guest held a thread, in seconds.
        memory_bytes: The guest's memory at the end, in bytes; a memory never shrinks.
        imports_ns: Of a call that was stopped, the virtual time that its imports had taken, as it says.
    """

    returned: bool
    status: int
    trap: str | None
    message: str | None
    stop_reason: StopReason
    exit_code: int
    response: GuestBytes | None
    response_bytes: int
    stdout: GuestBytes
    stderr: GuestBytes
    fuel_used: int
    ran_s: float
    memory_bytes: int
    imports_ns: int = 0


def read_result(
    body: Body,
    limits: CallLimits,
    *,
    status: int | None,
    trap: str | None,
    message: str | None,
    ran_s: float,
) -> CallResult:
    """Read the result of a call that has ended.

    Args:
        body: The guest's body; of what it holds, only the membrane's globals are trusted.
        limits: The limits of the call.
        status: The value that the call returned; None if it did not return.
        trap: As in `CallResult`.
        message: As in `CallResult`.
        ran_s: As in `CallResult`.
    """
    returned = status is not None and trap is None
    left = body.fuel
    if trap is not None and left < 0:
        trap = "OUT_OF_FUEL"
    fuel_used = limits.metered_fuel - max(0, left)
    read = body.read
    size = read("response_len") if returned else 0
    wanted = 0 < size <= limits.response_bytes
    return CallResult(
        returned=returned,
        status=1 if status is None else status,
        trap=trap,
        message=message,
        stop_reason=StopReason.NONE if returned else StopReason(read("stop_reason")),
        exit_code=0 if returned else read("exit_code"),
        response=_response(body, read("response"), size) if wanted else None,
        response_bytes=size,
        stdout=_captured(body, "stdout_len", membrane.AT_STDOUT),
        stderr=_captured(body, "stderr_len", membrane.AT_STDERR),
        fuel_used=fuel_used,
        ran_s=ran_s,
        memory_bytes=body.memory.size_bytes,
        imports_ns=0 if returned else _imports_ns(body, fuel_used),
    )


def clock_ns(body: Body) -> int:
    """Return the reading of a guest's virtual clock, in nanoseconds since its start."""
    since = body.read("clock_fuel") - max(0, body.fuel)
    return body.read("clock_ns") + max(0, since) // membrane.COSTS["FUEL_PER_NS"]


def claimed_bytes(body: Body, offset: int, size: int) -> bytes | None:
    """Return bytes at an address given by the guest; None if they are outside its memory."""
    try:
        return body.memory.read(offset, size)
    except IndexError:
        return None


def _response(body: Body, offset: int, size: int) -> GuestBytes | None:
    raw = claimed_bytes(body, offset, size)
    return None if raw is None else GuestBytes(raw)


def _captured(body: Body, length: str, offset: int) -> GuestBytes:
    size = body.read(length)
    raw = claimed_bytes(body, body.read("arena") + offset, size) if size else None
    return GuestBytes(raw or b"")


_TIME_BYTES = 8
_TIMES_AT = (len(IMPORTS_MARK), len(IMPORTS_MARK) + _TIME_BYTES)


def _imports_ns(body: Body, fuel_used: int) -> int:
    """Return the time of imports that a stopped call announced last; 0 if its response is something else."""
    size = body.read("response_len")
    if size != len(IMPORTS_MARK) + 2 * _TIME_BYTES:
        return 0
    raw = claimed_bytes(body, body.read("response"), size) or b""
    if not raw.startswith(IMPORTS_MARK):
        return 0
    began, spent = (int.from_bytes(raw[at : at + _TIME_BYTES], "little") for at in _TIMES_AT)
    spent += max(0, clock_ns(body) - began) if began else 0
    return min(spent, fuel_used // membrane.COSTS["FUEL_PER_NS"])
