"""Hang detection that tells a hung worker from a slow one.

A worker that does not answer may be starved by a busy machine, and killing it would lose good work. The
kernel's view decides: a probe in its input makes a healthy worker runnable at once. A worker whose threads
are all stopped, or all asleep with none scheduled between two samples, is hung; that is certain after a
fraction of a second. A worker that runs and still does not answer is killed once it has used more core time
(not wall time) than an answer can need.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import trio
from attrs import frozen

__all__ = ["HANG_S", "HangDetector", "Sample", "diagnose", "sample"]

PING_S = 0.04
"""Interval of probes to a worker with work under way."""
IDLE_PING_S = 1.0
"""Interval of probes to an idle worker."""
SUSPECT_S = 0.08
"""A worker that has not answered for this long is sampled."""
SAMPLE_S = 0.03
"""Pause between two samples."""
LOOKS = 2
"""Consecutive samples that must find the worker unable to run. The times above come to less than 0.2 s."""
SPIN_S = 60.0
"""A worker that used this much core time without answering is stuck: it reads probes between two slices of
a guest, and a slice takes milliseconds."""
HANG_S = 120.0
"""A worker that has not answered for this long is killed unconditionally."""

_TICKS = os.sysconf("SC_CLK_TCK")


@frozen
class Sample:
    """State of a process at one moment, from the kernel.

    Attributes:
        states: The states of its threads, a letter each, as in ``/proc/<pid>/status``.
        switches: How often its threads left a core, in all.
        core_s: Seconds of core time it has used.
    """

    states: str
    switches: int
    core_s: float


def sample(pid: int) -> Sample | None:
    """Sample a process; None if it cannot be read."""
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
        # The name, in brackets, is arbitrary; fields are counted from its last closing bracket.
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        used = stat.rpartition(")")[2].split()[11:13]
        return Sample("".join(states), switches, sum(map(int, used)) / _TICKS)
    except (OSError, ValueError, IndexError):
        return None


def diagnose(before: Sample, after: Sample) -> str | None:
    """Return why a process with a probe pending cannot run, from two samples; None if it may be able to."""
    if set(after.states) == {"T"} == set(before.states):
        return "it was stopped by a signal"
    asleep = set(before.states) | set(after.states) == {"S"}
    if asleep and (before.switches, before.core_s) == (after.switches, after.core_s):
        return "all its threads wait for each other"
    return None


class HangDetector:
    """Watches one process that is probed periodically.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    async def wait(self, answered: trio.Event, *, excused: Callable[[], bool] = bool) -> str | None:
        """Wait for the answer to a probe.

        Args:
            answered: Set when the answer has arrived.
            excused: Returns whether the delay is not the process's fault: the probe may not have been
                written yet, or the answer may have arrived and not been read yet.

        Returns:
            None once it has arrived; else a clause that says why the process will not answer.
        """
        silent_since = trio.current_time()
        with trio.move_on_after(SUSPECT_S):
            await answered.wait()
            return None
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
