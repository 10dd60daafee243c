"""Questions to the host about child processes and channels, for which a call waits.

Harnesses build `subprocess` and `multiprocessing` on these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .decoding import decode
from .values import encode

_MARK = b"\xc1"

_call: Callable[[bytes], bytes] | None = None
_task: Callable[[int], list[Any]] | None = None


class Refused(Exception):
    """The host refused a question.

    Attributes:
        why: The reason: ``"malformed"``, ``"depth"``, ``"busy"``, ``"deadlock"``, ``"stranger"``, ``"full"``
            or ``"ended"``; or ``"none"`` if the call must not have processes.
    """

    def __init__(self, why: str, said: str) -> None:
        super().__init__(said)
        self.why = why


def adopt(call: Callable[[bytes], bytes]) -> None:
    """Register the host's mailbox."""
    global _call  # noqa: PLW0603
    _call = call


def ask(*question: Any) -> Any:
    """Send a question to the host and wait for the answer.

    Raises:
        Refused: The host refused.
    """
    if _call is None:
        raise Refused("none", "there is no host to ask")
    try:
        raw = _call(_MARK + encode(list(question)))
    except OSError:
        said = "this call may have no processes; evocell.Limits(processes=...) says how many it may"
        raise Refused("none", said) from None
    answer = decode(raw)
    if answer[0] != "done":
        raise Refused(answer[1], answer[2])
    return answer[1]


def ring_at(clock_ns: int) -> None:
    """Schedule SIGALRM for this guest, to a millisecond of work; it interrupts a sleep.

    Args:
        clock_ns: The time by `time.monotonic_ns`; 0 for never.
    """
    if _call is not None:
        _call(_MARK * 2 + clock_ns.to_bytes(8, "little"))


def fork(task: Callable[[int], list[Any]]) -> int:
    """Start a copy of this guest in its current state that runs a task and ends.

    Args:
        task: Called with the process id; returns the exit status and bytes for this guest.

    Returns:
        The number of the process.

    Raises:
        Refused: It cannot be started.
    """
    global _task  # noqa: PLW0603
    _task = task
    try:
        pid: int = ask("fork")
    finally:
        _task = None
    return pid


def run_task(pid: int) -> list[Any]:
    """Run the task of a copied guest.

    Args:
        pid: Its own process id.
    """
    if _task is None:
        message = "this guest is no copy that was made for a task"
        raise RuntimeError(message)
    return _task(pid)
