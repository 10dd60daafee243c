"""Questions to the host, for which a call waits: other guests that run beside this one, and what they say.

What programs know them by (`subprocess`, `multiprocessing`) is in harnesses, made of these.
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
    """The host does not do what was asked.

    Attributes:
        why: A word: ``"malformed"``, ``"depth"``, ``"busy"``, ``"deadlock"``, ``"stranger"``, ``"full"``
            or ``"ended"``; or ``"none"`` if the call may have no processes.
    """

    def __init__(self, why: str, said: str) -> None:
        super().__init__(said)
        self.why = why


def adopt(call: Callable[[bytes], bytes]) -> None:
    """Tell it the host's mailbox."""
    global _call  # noqa: PLW0603
    _call = call


def ask(*question: Any) -> Any:
    """Ask the host something and wait for the answer.

    Raises:
        Refused: It is not done.
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
    """Have this guest be sent SIGALRM at a time, to a millisecond of work; a sleep ends for it.

    Args:
        clock_ns: When, by `time.monotonic_ns`; 0 for never.
    """
    if _call is not None:
        _call(_MARK * 2 + clock_ns.to_bytes(8, "little"))


def fork(task: Callable[[int], list[Any]]) -> int:
    """Start a copy of this guest, as it is now, that does a task and ends.

    Args:
        task: Is given the number of the process; returns the exit status and bytes for this guest.

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
    """Do what the copy of a guest was made for.

    Args:
        pid: The number of the process that it is.
    """
    if _task is None:
        message = "this guest is no copy that was made for a task"
        raise RuntimeError(message)
    return _task(pid)
