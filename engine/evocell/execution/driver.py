"""The threads that run guests, and the order in which guests get them.

A guest runs in slices of fuel. A thread keeps to one call for a quantum of slices and then, if
others wait, puts it behind them: a long call never starves its neighbours, and a short one is
never interrupted. Calls that have begun hold memory, so only so many may be under way at once;
the rest wait unbegun, which costs nothing.

Forking maps memory, and two threads of one process that do little else stand in each other's way:
calls of a millisecond go through faster on one thread than on two. So the further threads begin
calls only while calls take longer than that. Source: `bench/`, 2 cores, create + call + destroy:
2.1-2.5 ms each on one thread, 2.7-2.8 ms on two.
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


PARALLEL_FROM_S = 0.005
"""Calls that take this long, in seconds, are worth a second thread."""

_SMOOTHING = 0.2


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
            RuntimeError: The driver is closing.
        """
        with self._changed:
            if self._closing:
                msg = "the driver is closing"
                raise RuntimeError(msg)
            self._fresh.append(job)
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Have a job end at its next slice, or at once if it has not begun or sleeps; idempotent."""
        job.cancel()
        with self._changed:
            unbegun = job in self._fresh
            if unbegun:
                self._fresh.remove(job)
            self._changed.notify_all()
        if unbegun:  # on this thread: the others may be at work for a long time
            job.end()

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

    @property
    def stalled_s(self) -> float:
        """How long a job has held its thread without coming back, in seconds; 0 if none holds one."""
        now = self._clock()
        return max((now - began for began in self._step_began if began is not None), default=0.0)

    def _run(self, index: int) -> None:
        while (picked := self._pick(index)) is not None:
            job, begun = picked
            began = self._turn_began[index] = self._step_began[index] = self._clock()
            over = job.step() if begun else self._closing or job.begin()
            slices = 0
            while not over:
                if job.wake_at() is not None:
                    break
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
                if over:
                    self._started -= 1
                else:
                    self._paused.append(job)
                    self.switches += 1
                self._changed.notify_all()

    def _others_wait(self) -> bool:
        with self._changed:
            return bool(self._paused) or (bool(self._fresh) and self._started < self._most)

    def _worth_helping(self, now: float) -> bool:
        """Whether calls are, or one just now is, long enough for a further thread to begin others."""
        if self._typical_s >= PARALLEL_FROM_S:
            return True
        return any(began is not None and now - began >= PARALLEL_FROM_S for began in self._turn_began)

    def _pick(self, index: int) -> tuple[Job, bool] | None:
        """The next job and whether it has begun; None when the driver has closed and all is done."""
        with self._changed:
            while True:
                # What has not begun goes first, as far as memory allows: most calls are short.
                now = self._clock()
                soonest: float | None = None
                asleep = sum(job.wake_at() is not None for job in self._paused)
                if self._fresh and (self._started - asleep < self._most or self._closing):
                    if index == 0 or self._closing or self._worth_helping(now):
                        self._started += 1
                        return self._fresh.popleft(), False
                    soonest = now + PARALLEL_FROM_S
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
