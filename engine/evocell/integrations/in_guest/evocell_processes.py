"""Processes in a sandbox, each a guest of its own.

The basis of `subprocess`, `multiprocessing` and `os`: starting copies of this guest, waiting for processes,
ending them. All times, including timeouts, are those of the virtual clock.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from evocell_guest import processes

Ask = processes.ask
Refused = processes.Refused

_LAST_STANDARD = 2
_PIPE, _DEVNULL = -1, -3  # as in `subprocess`
_FILE_MODES = {"rb": os.O_RDONLY, "rb+": os.O_RDWR}
_sleep = time.sleep

running: set[int] = set()
"""Child processes that have not been waited for."""
ends: dict[int, list[Any]] = {}
"""Exit records of child processes collected by a waiter for another one."""
before_waiting: list[Callable[[], object]] = []
"""Called before this process waits."""
next_alarm: list[Callable[[], float | None]] = []
"""Functions that return the `time.monotonic` at which `ring` has work to do in this process."""
ring: list[Callable[[], object]] = []
"""Run the due work."""

after_fork: list[Callable[[], object]] = []
"""Called in a copy of this process."""


def ask(*question: Any) -> Any:
    """Send a question to the host; convert refusals to the exceptions that programs expect.

    Raises:
        BlockingIOError: The limit of processes is reached, or they nest too deeply.
        EOFError: All processes wait for one another.
        OSError: It is refused for another reason.
    """
    try:
        return Ask(*question)
    except Refused as refused:
        if refused.why == "ended":
            raise
        if refused.why == "deadlock":
            message = "it would wait for ever: every process of this call waits for another"
            raise EOFError(message) from None
        number = errno.EAGAIN if refused.why in ("busy", "depth") else errno.EPERM
        said = str(refused) or "there are as many processes as this call may have (evocell.Limits.processes)"
        raise OSError(number, said) from None


def to_ns(seconds: float | None) -> int | None:
    """Convert a timeout to nanoseconds; None for no timeout."""
    if seconds is None or seconds == float("inf"):
        return None
    return max(0, int(seconds * 1e9))


def waiting(timeout: float | None, wait: Callable[[int | None], Any]) -> Any:
    """Wait in parts, so that timers of this process fire in between.

    Args:
        timeout: Seconds; None for ever.
        wait: Waits for at most the given nanoseconds; returns None on timeout.
    """
    for prepare in before_waiting:
        prepare()
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        alarms = [found for when in next_alarm if (found := when()) is not None]
        first = min([*alarms, *([] if deadline is None else [deadline])], default=None)
        found = wait(to_ns(None if first is None else first - time.monotonic()))
        if found is not None or not alarms or (deadline is not None and time.monotonic() >= deadline):
            return found
        for bell in ring:
            bell()


def wait_for(pids: list[int], timeout: float | None) -> int | None:
    """Wait until one of the given processes has ended; its exit record is then in `ends`.

    Returns:
        The process; None on timeout.
    """
    for pid in pids:
        if pid in ends:
            return pid
    end = waiting(timeout, lambda left: ask("wait", pids, left))
    if end is None:
        return None
    found: int = end[0]
    running.discard(found)
    ends[found] = end
    return found


def kill(pid: int, number: int) -> None:
    """End a child process.

    Raises:
        ProcessLookupError: There is no such child.
    """
    if pid in ends or number == 0:
        return
    if pid not in running:
        raise ProcessLookupError(errno.ESRCH, "it is no process of this one", str(pid))
    ask("kill", pid, number)


def sleep(seconds: float, /) -> None:
    """Let time pass, also for the child processes."""
    if seconds < 0:
        message = "sleep length must be non-negative"
        raise ValueError(message)
    if running or any(when() is not None for when in next_alarm):
        waiting(seconds, lambda left: ask("wait", [], left))
    else:
        for prepare in before_waiting:
            prepare()
        _sleep(seconds)


def start_copy(task: Callable[[], int]) -> int:
    """Start a copy of this guest that runs a task and ends with its exit status.

    Returns:
        The number of the process.

    Raises:
        OSError: No further process can be started.
    """
    sys.stdout.flush()
    sys.stderr.flush()

    def copy(pid: int) -> list[Any]:
        running.clear()
        ends.clear()
        os.getpid = lambda: pid
        _open_again()
        random.seed()
        for hook in after_fork:
            hook()
        try:
            code = task()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return [code & 0xFF, b""]

    try:
        pid = processes.fork(copy)
    except Refused as refused:
        message = str(refused) or "there are as many processes as this call may have"
        raise BlockingIOError(errno.EAGAIN, message) from None
    running.add(pid)
    return pid


def _open_again() -> None:
    """Reopen the parent's open files under the same descriptors; unnamed ones are closed."""
    found = {}
    for one in gc.get_objects():
        if type(one) is io.FileIO and not one.closed and one.fileno() > _LAST_STANDARD:
            found[one.fileno()] = one
    fillers = []
    for number in sorted(found):
        file = found[number]
        while True:
            flags = _FILE_MODES.get(file.mode, os.O_WRONLY | (os.O_APPEND if file.mode[:1] == "a" else 0))
            try:
                opened = os.open(file.name, flags)
            except (OSError, TypeError, ValueError):
                opened = os.open("/", os.O_RDONLY)
            if opened >= number:
                break
            fillers.append(opened)
    for filler in fillers:
        os.close(filler)


def write_out(stream: bytes, target: Any, number: int) -> None:
    """Write a process's output to the parent's chosen destination, by default the parent's own stream."""
    if not stream or target in (_PIPE, _DEVNULL):
        return
    if target is None:
        own = sys.stdout if number == 1 else sys.stderr
        own.flush()
        target = number
    elif not isinstance(target, int):
        target.flush()
        target = target.fileno()
    while stream:
        stream = stream[os.write(target, stream) :]


def _register_at_fork(
    *,
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] | None = None,
    after_in_child: Callable[[], object] | None = None,
) -> None:
    del before, after_in_parent
    if after_in_child is not None:
        after_fork.append(after_in_child)


def _waitpid(pid: int, options: int, /) -> tuple[int, int]:
    found = wait_for([pid] if pid > 0 else sorted(running), 0 if options & 1 else None)
    if found is None:
        return 0, 0
    code = ends.pop(found)[1]
    return found, -code if code < 0 else code << 8


def install() -> None:
    """Add the functions to `os` and `time` that WASI lacks."""
    time.sleep = sleep  # type: ignore[assignment]
    own: dict[str, Any] = {
        "kill": kill,
        "killpg": kill,
        "getpgid": lambda pid: pid,
        "getppid": lambda: 1,
        "setsid": lambda: None,
        "setpgrp": lambda: None,
        "nice": lambda increment: 0,
        "register_at_fork": _register_at_fork,
        "waitpid": _waitpid,
        "WNOHANG": 1,
        "WIFEXITED": lambda status: not status & 0x7F,
        "WEXITSTATUS": lambda status: status >> 8 & 0xFF,
        "WIFSIGNALED": lambda status: bool(status & 0x7F),
        "WTERMSIG": lambda status: status & 0x7F,
    }
    for name, value in own.items():
        if not hasattr(os, name):
            setattr(os, name, value)
