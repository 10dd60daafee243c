"""Scheduler that runs guests on threads, in a process that also does other work.

Forking maps memory, and two threads of one process that mostly fork contend for the address space:
calls of a millisecond are faster on one thread than on two. So further threads begin
calls only while calls take longer than that. Source: `bench/`, 2 cores, create + call + destroy:
2.1-2.5 ms each on one thread, 2.7-2.8 ms on two.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import trio

from evocell.guests.run_queue import QUANTUM_SLICES, STARTED_PER_THREAD, Job, RunQueue

__all__ = ["PARALLEL_FROM_S", "ThreadScheduler"]

PARALLEL_FROM_S = 0.005
"""Duration of calls, in seconds, from which a second thread pays off."""

_SMOOTHING = 0.2


class ThreadScheduler:
    """Runs jobs on threads, which it owns; `close` ends them.

    Args:
        threads: Number of threads; a core each.
        clock: Time in seconds, for sleeping guests.
    """

    on_loop = False
    """Jobs end on the scheduler's own threads."""

    def __init__(self, threads: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.threads = threads
        """How many jobs run at once."""
        self._changed = threading.Condition()
        self._turns = RunQueue(threads * STARTED_PER_THREAD)
        self._closing = False
        self._typical_s = 0.0
        self._turn_began: list[float | None] = [None] * threads
        self._step_began: list[float | None] = [None] * threads
        self._threads = [
            threading.Thread(target=self._run, args=(n,), name=f"evocell-guest-{n}", daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; its `end` will be called.

        Raises:
            RuntimeError: The scheduler is closing.
        """
        with self._changed:
            if self._closing:
                msg = "the driver is closing"
                raise RuntimeError(msg)
            self._turns.fresh.append(job)
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Cancel a job: it ends at its next slice, or at once if it has not begun or sleeps; idempotent."""
        job.cancel()
        with self._changed:
            unbegun = job in self._turns.fresh
            if unbegun:
                self._turns.fresh.remove(job)
            self._changed.notify_all()
        if unbegun:  # on this thread: the others may be busy for a long time
            job.end()

    def close(self) -> None:
        """Let the threads finish what they run and end; ends queued jobs unbegun. Blocks; idempotent.

        Cancel jobs that should not finish before calling it.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    async def aclose(self) -> None:
        """Close without blocking the event loop; see `close`."""
        await trio.to_thread.run_sync(self.close)

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
        """Longest time that a job has been holding a thread in one slice, in seconds; 0 if none does."""
        now = self._clock()
        return max((now - began for began in self._step_began if began is not None), default=0.0)

    def _run(self, index: int) -> None:
        while (picked := self._pick(index)) is not None:
            job, begun = picked
            began = self._turn_began[index] = self._step_began[index] = self._clock()
            over = job.step() if begun else self._closing or job.begin()
            slices = 0
            while not over and job.wake_at() is None:
                slices += 1
                if slices >= QUANTUM_SLICES:
                    if self._others_wait():
                        break
                    slices = 0
                self._step_began[index] = self._clock()
                over = job.step()
            if over:
                job.end()
            self._step_began[index] = None
            with self._changed:
                self._turn_began[index] = None
                self._typical_s += _SMOOTHING * (self._clock() - began - self._typical_s)
                self._turns.put_back(job, over=over)
                self._changed.notify_all()

    def _others_wait(self) -> bool:
        with self._changed:
            return self._turns.others_wait()

    def _worth_helping(self, now: float) -> bool:
        """Return whether calls take long enough for a further thread to begin some."""
        if self._typical_s >= PARALLEL_FROM_S:
            return True
        return any(began is not None and now - began >= PARALLEL_FROM_S for began in self._turn_began)

    def _pick(self, index: int) -> tuple[Job, bool] | None:
        """Return the next job and whether it has begun; None when the scheduler is closed and drained."""
        with self._changed:
            while True:
                # Unstarted jobs go first, as far as memory allows: most calls are short.
                now = self._clock()
                soonest: float | None = None
                if self._turns.may_begin(closing=self._closing):
                    if index == 0 or self._closing or self._worth_helping(now):
                        return self._turns.begin_next(), False
                    soonest = now + PARALLEL_FROM_S
                job, wakes = self._turns.resume_next(now)
                if job is not None:
                    return job, True
                if wakes is not None:
                    soonest = wakes if soonest is None else min(soonest, wakes)
                if self._closing and not self._turns.started:
                    self._changed.notify_all()
                    return None
                self._changed.wait(None if soonest is None else max(0.0, soonest - now))
