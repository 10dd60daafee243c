"""The threads that run guests, and the order in which guests get them.

A guest runs in slices of fuel. A thread keeps to one call for a quantum of slices and then, if
others wait, puts it behind them: a long call never starves its neighbours, and a short one is
never interrupted. Calls that have begun hold memory, so only so many may be under way at once;
the rest wait unbegun, which costs nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

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


class Driver:
    """Threads that drive jobs. It owns the threads; `close` ends them.

    Args:
        threads: How many; a core each.
        clock: Time in seconds, for sleeping guests.
    """

    def __init__(self, threads: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._fresh: deque[Job] = deque()
        self._paused: deque[Job] = deque()
        self._started = 0
        self._most = threads * STARTED_PER_THREAD
        self._closing = False
        self.switches = 0
        """How often a call was put behind waiting ones."""
        self._threads = [
            threading.Thread(target=self._run, name=f"evocell-guest-{n}", daemon=True) for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; its `end` will be called.

        Raises:
            RuntimeError: The driver is closing.
        """
        with self._changed:
            if self._closing:
                msg = "the driver is closing"
                raise RuntimeError(msg)
            self._fresh.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Have a job end at its next slice, or at once if it has not begun or sleeps; idempotent."""
        job.cancel()
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Let the threads finish what they run and end; ends queued jobs unbegun. Blocks; idempotent.

        Jobs that should not run on must have been told to stop before.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return len(self._fresh)

    def _run(self) -> None:
        while (picked := self._pick()) is not None:
            job, begun = picked
            over = job.step() if begun else job.begin()
            slices = 0
            while not over:
                if job.wake_at() is not None:
                    break
                slices += 1
                if slices >= QUANTUM_SLICES:
                    if self._others_wait():
                        break
                    slices = 0
                over = job.step()
            if over:
                job.end()
            with self._changed:
                if over:
                    self._started -= 1
                else:
                    self._paused.append(job)
                    self.switches += 1
                self._changed.notify()

    def _others_wait(self) -> bool:
        with self._changed:
            return bool(self._paused) or (bool(self._fresh) and self._started < self._most)

    def _pick(self) -> tuple[Job, bool] | None:
        """The next job and whether it has begun; None when the driver has closed and all is done."""
        with self._changed:
            while True:
                # What has not begun goes first, as far as memory allows: most calls are short.
                if self._fresh and (self._started < self._most or self._closing):
                    self._started += 1
                    return self._fresh.popleft(), False
                now, soonest = self._clock(), None
                for _ in range(len(self._paused)):
                    job = self._paused.popleft()
                    wake = job.wake_at()
                    if wake is None or wake <= now:
                        return job, True
                    soonest = wake if soonest is None else min(soonest, wake)
                    self._paused.append(job)
                if self._closing and not self._started:
                    self._changed.notify_all()
                    return None
                self._changed.wait(None if soonest is None else max(0.0, soonest - now))
