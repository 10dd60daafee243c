"""A long call and many short ones on one thread: who gets how many slices, counted and not timed."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

import evocell
from evocell import Case, Evaluation, Limits, SandboxNotFound
from evocell.guests.guest import GuestJob
from evocell.guests.thread_scheduler import QUANTUM_SLICES

N_SHORT = 200
SPIN = "def spin():\n    while True: pass"


def test_short_calls_wait_for_no_more_than_a_quantum_of_the_long_one(monkeypatch):
    """Of the slices that the thread ran, one after the other, it is noted whose they were."""
    turns = []
    step, begin, end = GuestJob.step, GuestJob.begin, GuestJob.end

    def noted(job):
        turns.append(job)
        return step(job)

    begun, ended = [], []
    monkeypatch.setattr(GuestJob, "step", noted)
    monkeypatch.setattr(GuestJob, "begin", lambda job: (begun.append((job, len(turns))), begin(job))[1])
    monkeypatch.setattr(GuestJob, "end", lambda job: (ended.append((job, len(turns))), end(job))[1])
    with evocell.Engine(evocell.Config.load(workers=0, threads=1)) as engine:
        long = engine.create_sandbox(source=SPIN)
        ends = []

        def spin():
            with pytest.raises(SandboxNotFound):  # it is destroyed under the call
                ends.append(long.run("spin", limits=Limits(fuel=10**15)))

        thread = threading.Thread(target=spin)
        thread.start()
        # A compilation has had turns before it.
        while max(Counter(list(turns)).values(), default=0) < QUANTUM_SLICES:
            pass
        (spinning,) = {job for job in turns if turns.count(job) >= QUANTUM_SLICES}
        first = len(turns)
        task = Evaluation("solve", [Case((n,), expected=n * n) for n in range(N_SHORT)])
        (result,) = engine.evaluate(["def solve(n): return n * n"], task)
        assert result.fitness_score == 1.0
        assert len(result.test_results) == N_SHORT
        last = len(turns)
        assert ends == []
        long.destroy()
        thread.join(60)
        assert not thread.is_alive()

    # The short ones: from its begin to its end none saw the long one for more than a quantum.
    short = {job: at for job, at in begun if job is not spinning and at >= first}
    assert len(short) >= N_SHORT
    for job, over in ended:
        if job in short:
            seen = Counter(one is spinning for one in turns[short[job] : over])
            assert seen[True] <= QUANTUM_SLICES
    # And in all it had no more turns than they had reasons to wait for it.
    slices_of_long = sum(one is spinning for one in turns[first:last])
    assert slices_of_long <= QUANTUM_SLICES * (N_SHORT + len(short))
    # The long one has not stood still either.
    assert slices_of_long > 0


def test_a_worker_process_gives_the_short_ones_their_turn():
    """The same over a process: all of them are back before the long one has used up what it may."""
    fuel = 500_000_000_000
    with evocell.Engine(evocell.Config.load(workers=1)) as engine:
        long = engine.create_sandbox(source=SPIN)
        ends = []

        def spin():
            with pytest.raises(SandboxNotFound):
                ends.append(long.run("spin", limits=Limits(fuel=fuel)))

        thread = threading.Thread(target=spin)
        thread.start()
        while not any(worker.calls for worker in engine.workers()):
            pass
        task = Evaluation("solve", [Case((n,), expected=n * n) for n in range(N_SHORT)])
        (result,) = engine.evaluate(["def solve(n): return n * n"], task)
        assert result.fitness_score == 1.0
        assert ends == []
        assert [worker.calls for worker in engine.workers()] == [1]
        long.destroy()
        thread.join(60)
        assert not thread.is_alive()
