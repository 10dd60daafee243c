"""Telling a worker that hangs from one that is only slow.

A worker that does not answer may be starved by a busy machine, and killing it would lose good work. The
kernel knows better: a question in its input makes a sound worker ready to run at once. One whose threads are
all stopped, or all asleep without one of them having been on a core between two looks, does not run because
it cannot; that is certain after a fraction of a second. One that runs and still does not answer is given the
core time, not the wall time, that an answer cannot need.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import trio
from attrs import frozen

__all__ = ["HANG_S", "HangDetector", "Sample", "diagnose", "sample"]

PING_S = 0.04
"""How often a worker with work under way is asked whether it is there."""
IDLE_PING_S = 1.0
"""How often one without work is asked."""
SUSPECT_S = 0.08
"""A worker that has not answered for so long is looked at."""
SAMPLE_S = 0.03
"""Pause between two looks."""
LOOKS = 2
"""How often in a row a worker must be seen unable to run. The times above come to less than 0.2 s."""
SPIN_S = 60.0
"""A worker that used so much core time without answering is busy with something it will not leave: it hears
of a question between two slices of a guest, and a slice takes milliseconds."""
HANG_S = 120.0
"""A worker that has not answered for so long is killed, whatever it is doing."""

_TICKS = os.sysconf("SC_CLK_TCK")


@frozen
class Sample:
    """What the kernel says of a process at one moment.

    Attributes:
        states: The states of its threads, a letter each, as in ``/proc/<pid>/status``.
        switches: How often its threads left a core, in all.
        core_s: Seconds of core time it has used.
    """

    states: str
    switches: int
    core_s: float


def sample(pid: int) -> Sample | None:
    """Look at a process; None if there is nothing to see."""
    states: list[str] = []
    switches = 0
    try:
        for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
            for line in (task / "status").read_text(encoding="ascii", errors="replace").splitlines():
                key, _, value = line.partition(":")
                if key == "State":
                    states.append(value.split()[0])
                elif key.endswith("voluntary_ctxt_switches"):
                    switches += int(value)
        # The name, in brackets, may hold anything; what follows it is counted from its last bracket.
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        used = stat.rpartition(")")[2].split()[11:13]
        return Sample("".join(states), switches, sum(map(int, used)) / _TICKS)
    except (OSError, ValueError, IndexError):
        return None


def diagnose(before: Sample, after: Sample) -> str | None:
    """Say why a process that has a question waiting cannot run, from two looks; None if it may."""
    if set(after.states) == {"T"} == set(before.states):
        return "it was stopped by a signal"
    asleep = set(before.states) | set(after.states) == {"S"}
    if asleep and (before.switches, before.core_s) == (after.switches, after.core_s):
        return "all its threads wait for each other"
    return None


class HangDetector:
    """A watch over one process that is asked something now and then.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    async def wait(self, answered: trio.Event, *, excused: Callable[[], bool] = bool) -> str | None:
        """Wait for the answer to a question.

        Args:
            answered: Set when it is there.
            excused: Whether its being late is not the process's fault at this moment: the asker may be
                late himself, so that the question is not on its way yet, or the answer lies there unread.

        Returns:
            None once it is there; else why the process will not give one, in a clause.
        """
        silent_since = trio.current_time()
        with trio.move_on_after(SUSPECT_S):
            await answered.wait()
        first = before = sample(self._pid)
        unable = 0
        while not answered.is_set():
            with trio.move_on_after(SAMPLE_S):
                await answered.wait()
                return None
            after = sample(self._pid)
            if excused():
                silent_since, first, before, unable = trio.current_time(), after, None, 0
                continue
            if before is not None and after is not None:
                why = diagnose(before, after)
                unable = 0 if why is None else unable + 1
                if why is not None and unable >= LOOKS:
                    return why
                if first is not None and after.core_s - first.core_s > SPIN_S:
                    return f"it used {SPIN_S:g} s of core time without answering"
            if trio.current_time() - silent_since > HANG_S:
                return f"it did not answer for {HANG_S:g} s"
            before = after
        return None
