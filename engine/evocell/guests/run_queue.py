"""The order in which guests get to run, on threads and on the loop.

A guest runs in slices of fuel. A scheduler keeps to one call for a quantum of slices and then, if
others wait, puts it behind them: a long call never starves its neighbours, and a short one is
never interrupted. Calls that have begun hold memory, so only so many may be under way at once;
the rest wait unbegun, which costs nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

__all__ = ["QUANTUM_SLICES", "STARTED_PER_THREAD", "Job", "RunQueue"]

QUANTUM_SLICES = 40
"""Slices a call keeps its thread while others wait: about 20 to 100 ms."""

STARTED_PER_THREAD = 8
"""Calls a thread may have under way at once; each holds a guest's memory."""


class Job(Protocol):
    """A guest's work, done on whichever thread the driver gives it, one thread at a time.

    None of the methods may raise: a job keeps its own failure, and tells it in `end`.
    """

    def begin(self) -> bool:
        """Fork and start. Returns whether there is nothing left to run."""
        ...

    def step(self) -> bool:
        """Run one slice. Returns whether the work is over."""
        ...

    def wake_at(self) -> float | None:
        """When a sleeping guest wants to go on (`time.monotonic`), or None if it does now."""
        ...

    def cancel(self) -> None:
        """Make the next `begin` or `step` say that the work is over. From any thread; idempotent."""
        ...

    def end(self) -> None:
        """Free what the work held and hand over its result. Called exactly once, begun or not."""
        ...


class RunQueue:
    """Who runs next. Not safe to use from two threads at once.

    Args:
        most: How many jobs may be under way at once.
    """

    def __init__(self, most: int) -> None:
        self.fresh: deque[Job] = deque()
        """Jobs that have not begun."""
        self.paused: deque[Job] = deque()
        """Jobs that have begun and are not being run."""
        self.started = 0
        """Jobs that have begun and have not ended."""
        self.switches = 0
        """How often a call was put behind waiting ones."""
        self._most = most

    def may_begin(self, *, closing: bool) -> bool:
        """Whether a job waits that has not begun, and may."""
        if not self.fresh:
            return False
        # What sleeps does not count: it may sleep for long.
        asleep = sum(job.wake_at() is not None for job in self.paused)
        return closing or self.started - asleep < self._most

    def begin_next(self) -> Job:
        """Take the first of the jobs that have not begun. It counts as begun."""
        self.started += 1
        return self.fresh.popleft()

    def resume_next(self, now: float) -> tuple[Job | None, float | None]:
        """Take the first of the jobs under way that wants to go on.

        Returns:
            The job, or None and when the first of the sleeping ones wakes, if there are any.
        """
        soonest: float | None = None
        for _ in range(len(self.paused)):
            job = self.paused.popleft()
            wake = job.wake_at()
            if wake is None or wake <= now:
                return job, None
            soonest = wake if soonest is None else min(soonest, wake)
            self.paused.append(job)
        return None, soonest

    def others_wait(self) -> bool:
        """Whether a job that has had its quantum should make room."""
        return bool(self.paused) or (bool(self.fresh) and self.started < self._most)

    def put_back(self, job: Job, *, over: bool) -> None:
        """Count a job out, or put it behind the others."""
        if over:
            self.started -= 1
        else:
            self.paused.append(job)
            self.switches += 1
