"""Questions of a guest about processes and channels, decoded from untrusted bytes.

A question is one marker byte, which no message begins with, and a msgpack list; an answer is a list too.
Payloads between processes pass through as opaque bytes of bounded length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import field, frozen

from evocell.errors import ProtocolError
from evocell.models.limits import Limits
from evocell.wire.values import ENVELOPE_BYTES, decode_hostile, decode_response
from evocell_guest.values import encode
from evocell_runtime.calls import CallResult
from evocell_runtime.membrane import StopReason
from evocell_runtime.untrusted import GuestBytes

__all__ = [
    "Answer",
    "Fork",
    "Kill",
    "NewChannel",
    "Question",
    "Receive",
    "Refused",
    "Send",
    "Size",
    "Start",
    "Wait",
    "child_request",
    "encode_answer",
    "end_of",
    "most_bytes",
    "read_child_answer",
    "read_question",
]

_MOST_PIDS = 10_000
_ITEMS = _MOST_PIDS + 16
_DEPTH = 3
_MOST_NS = 1 << 62
_CODES = range(-64, 256)
_SIGNALS = range(1, 65)
_SAID_CHARS = 4096
_LENGTH_BYTES, _END = 4, b"0"  # a blob in marshal's format, and the end of a map
_ABORTED, _SEGFAULT, _TOO_LARGE = -6, -11, -25


@frozen
class Start:
    """Start a process: a fresh guest with the same files and code.

    Attributes:
        payload: Arguments of `evocell_child.main`, encoded.
        stdin: Its standard input.
    """

    payload: bytes = field(repr=False)
    stdin: bytes = field(repr=False, default=b"")


@frozen
class Fork:
    """Start a process that is a copy of the asking one.

    Attributes:
        stdin: Its standard input.
    """

    stdin: bytes = b""


@frozen
class Wait:
    """Wait until one of some processes has ended.

    Attributes:
        pids: Child processes of the asking one; empty to let time pass.
        wait_ns: The longest wait, in nanoseconds of the virtual clock; None for ever.
    """

    pids: tuple[int, ...]
    wait_ns: int | None


@frozen
class Kill:
    """End a process.

    Attributes:
        pid: The process.
        signal: The signal.
    """

    pid: int
    signal: int


@frozen
class NewChannel:
    """Make a channel: a queue of messages between a process, its copies and theirs."""


@frozen
class Send:
    """Put a message into a channel.

    Attributes:
        channel: Which.
        data: The message.
    """

    channel: int
    data: bytes = field(repr=False)


@frozen
class Receive:
    """Take the first message out of a channel, or wait for one.

    Attributes:
        channel: Which.
        wait_ns: As in `Wait`.
        takes: Whether the message is removed, and not only awaited.
        watched: Child processes of the asking one whose end also ends the wait.
    """

    channel: int
    wait_ns: int | None
    takes: bool = True
    watched: tuple[int, ...] = ()


@frozen
class Size:
    """Count the messages in a channel.

    Attributes:
        channel: Which.
    """

    channel: int


Question = Start | Fork | Wait | Kill | NewChannel | Send | Receive | Size


@frozen
class Answer:
    """How a process ended.

    Attributes:
        pid: Which.
        code: Its exit status, or the negative number of a signal.
        data: Data left for its parent.
        stdout: Its standard output.
        stderr: Its standard error.
        said: A remark on its end, if it was unusual.
    """

    pid: int
    code: int
    data: bytes = field(repr=False)
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    said: str

    @property
    def size(self) -> int:
        """Number of bytes it holds."""
        return len(self.data) + len(self.stdout) + len(self.stderr)


@frozen
class Refused:
    """Refusal of a question.

    Attributes:
        why: ``"malformed"``, ``"depth"``, ``"busy"``, ``"deadlock"``, ``"stranger"``, ``"full"`` or
            ``"ended"``.
        said: A sentence.
    """

    why: str
    said: str = ""


def most_bytes(limits: Limits) -> int:
    """Return the length of the longest valid question: its contents are at most as long as a payload."""
    return limits.payload_bytes + ENVELOPE_BYTES


def read_question(raw: GuestBytes | None, limits: Limits) -> Question:
    """Decode a question.

    Args:
        raw: The bytes, beginning with the marker; None if there are too many.
        limits: The call's limits: contents are at most as long as a payload.

    Raises:
        ProtocolError: It is malformed.
    """
    most = most_bytes(limits)
    if raw is None or len(raw) > most:
        raise ProtocolError(f"a question is longer than the {most:,} bytes that it may be")
    if not len(raw):
        raise ProtocolError("a malformed question: it lies outside the guest's memory")
    asked = decode_hostile(raw.unchecked()[1:], max_bytes=most, max_items=_ITEMS, max_depth=_DEPTH)
    if not isinstance(asked, list) or not asked:
        raise ProtocolError("a malformed question: it is not a list")
    match asked:
        case ["start", bytes(payload), bytes(stdin)]:
            return Start(payload, stdin)
        case ["fork"]:
            return Fork()
        case ["wait", [*pids], wait_ns] if _are_pids(pids):
            return Wait(tuple(pids), _duration(wait_ns))
        case ["kill", pid, signal] if _is_number(pid) and _is_number(signal) and signal in _SIGNALS:
            return Kill(pid, signal)
        case ["channel"]:
            return NewChannel()
        case ["send", channel, bytes(data)] if _is_number(channel):
            return Send(channel, data)
        case ["receive", channel, wait_ns, bool(takes), [*pids]] if _is_number(channel) and _are_pids(pids):
            return Receive(channel, _duration(wait_ns), takes, tuple(pids))
        case ["size", channel] if _is_number(channel):
            return Size(channel)
    raise ProtocolError("a malformed question: it is of no known form")


def child_request(parts: Sequence[bytes], payload: bytes) -> bytes:
    """Make the agent's request for a started process.

    Args:
        parts: The request up to the arguments; see `evocell.workers.requests.child_parts`.
        payload: Its arguments as the parent sent them, included as an opaque blob.
    """
    return b"".join((*parts, len(payload).to_bytes(_LENGTH_BYTES, "little"), payload, _END))


def encode_answer(answer: Answer | Refused | bytes | int | None) -> bytes:
    """Encode an answer: ``["done", value]`` or ``["refused", why, sentence]``."""
    if isinstance(answer, Refused):
        return encode(["refused", answer.why, answer.said])
    if isinstance(answer, Answer):
        return encode(
            ["done", [answer.pid, answer.code, answer.data, answer.stdout, answer.stderr, answer.said]]
        )
    return encode(["done", answer])


def read_child_answer(response: GuestBytes, limits: Limits) -> tuple[int, bytes, str]:
    """Decode the response of a process that returned.

    Args:
        response: The response of its agent.
        limits: The call's.

    Returns:
        Its exit status, its data for the parent, and a remark on its end. A malformed response counts as an
        end by signal 6.
    """
    try:
        answer = decode_response(response, max_bytes=limits.payload_bytes, max_items=_ITEMS, max_depth=_DEPTH)
    except ProtocolError as error:
        return _ABORTED, b"", f"the process's answer cannot be read: {error}"
    match answer:
        case {"t": "completed", "v": [code, bytes(data)]} if _is_number(code) and code in _CODES:
            return code, data, ""
        case {"t": "raised"}:
            return 1, b"", f"{answer['type']}: {answer['message']}"[:_SAID_CHARS]
        case {"t": "limit" | "rejected"}:
            return 1, b"", str(answer["message"])[:_SAID_CHARS]
    return _ABORTED, b"", "the process answered to another question"


def end_of(result: CallResult, limits: Limits) -> tuple[int, bytes, str]:
    """Return the exit status of a process that ended by itself, its data for the parent, and a remark."""
    if result.returned and result.response is not None and not result.status:
        return read_child_answer(result.response, limits)
    if result.stop_reason is StopReason.EXIT:
        return result.exit_code & 0xFF, b"", ""
    if result.stop_reason is StopReason.OUTPUT:
        return _TOO_LARGE, b"", f"the process wrote more than {limits.output_bytes:,} bytes"
    if result.stop_reason in (StopReason.FILES, StopReason.ENTRIES):
        return _TOO_LARGE, b"", "the process wrote more files than there is room for in /tmp"
    if result.trap == "UNREACHABLE":
        return _ABORTED, b"", ""
    if result.trap is None:
        return _ABORTED, b"", "the process returned without an answer"
    return _SEGFAULT, b"", f"the process was stopped ({result.trap})"


def _is_number(value: Any) -> bool:
    return type(value) is int and -_MOST_NS < value < _MOST_NS


def _are_pids(values: list[Any]) -> bool:
    return len(values) <= _MOST_PIDS and all(map(_is_number, values))


def _duration(value: Any) -> int | None:
    """Check a wait in nanoseconds; None is an unbounded wait.

    Raises:
        ProtocolError: It is neither.
    """
    if value is None:
        return None
    if not _is_number(value):
        raise ProtocolError("a malformed question: a duration is a whole number of nanoseconds, or nothing")
    return max(0, int(value))
