"""Scheduler that runs guests on the event loop's thread, slice by slice, for dedicated processes.

A second thread would cost more than a short call: two switches of the interpreter lock, and, while both
threads are on cores, an inter-processor interrupt for each change of the process's memory map. The loop runs
between two slices, so new requests and cancellations are seen within a slice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import trio

from evocell.guests.run_queue import QUANTUM_SLICES, STARTED_PER_THREAD, Job, RunQueue

__all__ = ["LoopScheduler"]

BREATH_S = 0.002
"""Longest time between two turns of the loop while short jobs wait."""

MOST_ENDED = 2
"""Ended jobs whose forks are not wiped yet: one that compiled, and one that called."""


class LoopScheduler:
    """Runs jobs on the event loop's thread. Run `serve` in a task.

    Args:
        clock: Time in seconds, for sleeping guests.
    """

    on_loop = True
    """Jobs end on the event loop's thread."""

    threads = 1
    """How many jobs run at once."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.on_pause: Callable[[], object] = bool
        """Called before each turn of the loop, and before the last waiting short job: flushes the results of
        ended jobs, so that new requests arrive in time."""
        self.expects_job: Callable[[], bool] = bool
        """Whether a job is likely to come that is better begun before the fork of an ended one is wiped.

        Others had better wait for that, and use the body again that was used last."""
        self.has_input: Callable[[], bool] = bool
        """Whether requests wait to be read."""
        self._turns = RunQueue(STARTED_PER_THREAD)
        self._closing = False
        self._current: Job | None = None
        self._changed = trio.Event()
        self._ended: deque[Callable[[], object]] = deque()

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return len(self._turns.fresh)

    @property
    def switches(self) -> int:
        """Number of times a call was preempted for waiting ones."""
        return self._turns.switches

    @property
    def stalled_s(self) -> float:
        """Seconds for which a job has held the thread; 0 when read from the thread itself."""
        return 0.0

    def submit(self, job: Job) -> None:
        """Queue a job; its `end` will be called.

        Raises:
            RuntimeError: The scheduler is closing.
        """
        if self._closing:
            msg = "the driver is closing"
            raise RuntimeError(msg)
        self._turns.fresh.append(job)
        self._changed.set()

    def cancel(self, job: Job) -> None:
        """Cancel a job: it ends at its next slice, or at once if it has not begun or sleeps; idempotent."""
        job.cancel()
        if job in self._turns.fresh:
            self._turns.fresh.remove(job)
            job.end()
        self._changed.set()

    async def aclose(self) -> None:
        """End all jobs where they are; idempotent."""
        self._closing = True
        self._changed.set()
        left = [*self._turns.paused, *self._turns.fresh]
        if self._current is not None:
            left.append(self._current)
        self._turns.paused.clear()
        self._turns.fresh.clear()
        self._current = None
        for job in left:
            job.cancel()
            job.end()
        while self._ended:
            self._ended.popleft()()

    async def serve(self) -> None:
        """Run jobs until the scheduler is closed.

        Cancellation: A job that has begun stays as it is; `aclose` ends it.
        """
        breathed = self._clock()
        while not self._closing:
            now = self._clock()
            if now - breathed >= BREATH_S:
                self.on_pause()
                await trio.lowlevel.checkpoint()
                breathed = self._clock()
                continue
            begun = not self._turns.may_begin(closing=False)
            job, wakes = self._turns.resume_next(now) if begun else (self._turns.begin_next(), None)
            if job is not None:
                self._current = job
                await self._turn(job, begun=begun)
                continue
            self.on_pause()
            if self._ended:
                await self._wipe_one()
                breathed = self._clock()
                continue
            self._changed = trio.Event()
            with trio.CancelScope() as scope:
                if wakes is not None:
                    scope.deadline = trio.current_time() + wakes - now
                await self._changed.wait()
            breathed = self._clock()

    async def _wipe_one(self) -> None:
        """Wipe the fork of an ended job, unless a job has come meanwhile, which goes first."""
        if self.has_input():
            await trio.lowlevel.checkpoint()
            if not self._turns.fresh:  # this task may have been resumed before the reader
                await trio.lowlevel.checkpoint()
        if not self._turns.fresh and self._ended:
            self._ended.popleft()()

    async def _turn(self, job: Job, *, begun: bool) -> None:
        if not self._turns.fresh:
            self.on_pause()
        over = job.step() if begun else job.begin() or job.step()
        slices = 1
        while not over and job.wake_at() is None:
            self.on_pause()
            await trio.lowlevel.checkpoint()
            if self._current is not job:  # it was ended by `aclose`
                return
            slices += 1
            if slices > QUANTUM_SLICES and self._turns.others_wait():
                break
            over = job.step()
        self._current = None
        if over:
            # Where no job waits, the result does not wait either until the fork is wiped.
            alone = not self._turns.fresh
            free = job.end(frees_later=alone)
            if alone:
                self.on_pause()
            if free is not None and self.expects_job():
                self._ended.append(free)
            elif free is not None:
                free()
            if len(self._ended) > MOST_ENDED:
                self._ended.popleft()()
        self._turns.put_back(job, over=over)
