"""Run queue of guests, shared by both schedulers.

A guest runs in slices of fuel. A scheduler runs one call for a quantum of slices and then, if
others wait, moves it behind them: a long call never starves its neighbours, and a short one is
never interrupted. Calls that have begun hold memory, so their number is bounded;
the others wait unstarted, which costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

__all__ = ["QUANTUM_SLICES", "STARTED_PER_THREAD", "Job", "RunQueue"]

QUANTUM_SLICES = 40
"""Quantum of a call while others wait, in slices: about 20 to 100 ms."""

STARTED_PER_THREAD = 8
"""Most calls under way per thread; each holds a guest's memory."""


class Job(Protocol):
    """A guest's work, run on any thread of the scheduler, one at a time.

    No method may raise: a job keeps its own failure and reports it in `end`.
    """

    def begin(self) -> bool:
        """Fork and start. Returns whether the job is already over."""
        ...

    def step(self) -> bool:
        """Run one slice. Returns whether the work is over."""
        ...

    def wake_at(self) -> float | None:
        """Return when a sleeping guest resumes (`time.monotonic`); None if it is runnable."""
        ...

    def cancel(self) -> None:
        """Make the next `begin` or `step` report the end of the work. From any thread; idempotent."""
        ...

    def end(self, *, frees_later: bool = False) -> Callable[[], object] | None:
        """Deliver the job's result and free its resources. Called exactly once, begun or not.

        Args:
            frees_later: Whether the caller frees the resources.

        Returns:
            A function that frees them, to be called once; None if there are none left.
        """
        ...


class RunQueue:
    """Queue of jobs. Not safe to use from two threads at once.

    Args:
        most: Most jobs under way at once.
    """

    def __init__(self, most: int) -> None:
        self.fresh: deque[Job] = deque()
        """Jobs that have not begun."""
        self.paused: deque[Job] = deque()
        """Jobs that have begun and are not running now."""
        self.started = 0
        """Jobs that have begun and have not ended."""
        self.switches = 0
        """Number of times a call was preempted for waiting ones."""
        self._most = most

    def may_begin(self, *, closing: bool) -> bool:
        """Return whether an unstarted job may begin."""
        if not self.fresh:
            return False
        # Sleeping jobs do not count: they may sleep for long.
        asleep = sum(job.wake_at() is not None for job in self.paused)
        return closing or self.started - asleep < self._most

    def begin_next(self) -> Job:
        """Pop the first unstarted job. It counts as begun."""
        self.started += 1
        return self.fresh.popleft()

    def resume_next(self, now: float) -> tuple[Job | None, float | None]:
        """Pop the first runnable job under way.

        Returns:
            The job, or None with the time at which the first sleeping job wakes, if any sleeps.
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
        """Return whether a job that has used its quantum should yield."""
        return bool(self.paused) or (bool(self.fresh) and self.started < self._most)

    def put_back(self, job: Job, *, over: bool) -> None:
        """Remove a finished job, or move an unfinished one behind the others."""
        if over:
            self.started -= 1
        else:
            self.paused.append(job)
            self.switches += 1
