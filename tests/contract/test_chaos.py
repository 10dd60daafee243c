"""Workers killed at random while much is asked of the engine: every result arrives, and nothing is left."""

from __future__ import annotations

import gc
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

import evocell
from evocell import Case, Evaluation, Limits

COUNTER = "n = 0\ndef bump():\n    global n\n    n += 1\n    return n"
MOST_LOST = 0.1


def source(number):
    """A program that works for a while, writes a file, and answers what only it answers."""
    return (
        "def solve(n):\n"
        "    with open('/tmp/file', 'w') as out: out.write('x' * 1000)\n"
        f"    for i in range(30_000): pass\n    return n * {number}\n"
    )


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The temporary directory of this process and of its workers."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def children():
    return {process.pid for process in psutil.Process().children(recursive=True)}


def descriptors():
    gc.collect()
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


class Killer:
    """Kills one worker or the other with -9, at random, so many times at most, while it is entered."""

    def __init__(self, engine, seed, most):
        self._engine = engine
        self._dice = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills, self._most = 0, most

    def _run(self):
        while self.kills < self._most and not self._over.wait(
            self._dice.uniform(0.2, 1.2) if self.kills else 0.2
        ):
            alive = [worker.pid for worker in self._engine.workers() if worker.pid is not None]
            if alive:
                try:
                    psutil.Process(self._dice.choice(alive)).kill()
                except psutil.NoSuchProcess:
                    continue
                self.kills += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def chaos(n_evaluations, seed, tell, most_kills=sys.maxsize):
    """Evaluate many while workers die, and check each result."""
    limits = Limits(scratch_bytes=1 << 20)
    task = Evaluation("solve", [Case((3,))], score=lambda case, value: value, limits=limits)
    with evocell.Engine(evocell.Config.load(workers=2)) as engine:
        sandboxes = [engine.create_sandbox(source=COUNTER) for _ in range(5)]
        with Killer(engine, seed, most_kills) as killer:
            results = engine.evaluate([source(n) for n in range(n_evaluations)], task)
            for sandbox in sandboxes:
                assert sandbox.run("bump").kind in {"completed", "worker_lost"}
        lost = [result for result in results if not result.valid]
        assert {result.reason for result in lost} <= {"worker_lost"}
        assert all("worker" in result.error and not result.deterministic for result in lost)
        right = [n for n, result in enumerate(results) if result.valid and result.fitness_score == 3.0 * n]
        assert len(right) + len(lost) == n_evaluations == len(results)
        assert len(lost) <= MOST_LOST * n_evaluations
        again = engine.evaluate([source(n) for n in range(10)], task)
        assert [result.fitness_score for result in again] == [3.0 * n for n in range(10)]
        # A session goes on, or has started again and says so.
        for sandbox in sandboxes:
            count = sandbox.run("bump").unwrap()
            assert count == 2 or sandbox.get_info().restart_count > 0
            assert sandbox.run("bump").unwrap() == count + 1
        tell(f"{n_evaluations:,} evaluations, {killer.kills} kills with -9, {len(lost)} named as lost")
    return killer.kills


def check_nothing_is_left(place, before_children, before_descriptors):
    end = time.monotonic() + 20
    while children() - before_children:
        assert time.monotonic() < end, "a process is left"
        time.sleep(0.05)
    assert descriptors() <= before_descriptors
    assert list(place.iterdir()) == []


def warm_up():
    """Have this process open what it keeps."""
    with evocell.Engine(evocell.Config.load(workers=1)) as engine:
        engine.evaluate_one(source(1), Evaluation("solve", [Case((3,))], score=lambda case, value: 1.0))


def test_hundreds_of_evaluations(place):
    warm_up()
    before = children(), descriptors()
    assert chaos(800, 1, lambda _: None, most_kills=6) >= 1
    check_nothing_is_left(place, *before)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_two_thousand_evaluations(place, tell, seed):
    warm_up()
    before = children(), descriptors()
    assert chaos(2_000, seed, tell) >= 10
    check_nothing_is_left(place, *before)


def test_a_manager_that_fails_adopts_what_is_alive(monkeypatch, caplog):
    """A bug in its task, while a worker dies with some of the sessions: the others go on."""
    with evocell.Engine(evocell.Config.load(workers=2)) as engine:
        while any(worker.pid is None for worker in engine.workers()):
            time.sleep(0.01)
        sandboxes = [engine.create_sandbox(source=COUNTER) for _ in range(8)]
        for sandbox in sandboxes:
            assert [sandbox.run("bump").unwrap() for _ in range(2)] == [1, 2]
        homes = {sandbox.id: sandbox.get_info().supervisor for sandbox in sandboxes}
        assert set(homes.values()) == {"worker-0", "worker-1"}
        manager = engine._engine._manager
        failures = []

        def bug(record):
            if len(failures) < 2:
                failures.append(record.id)
                raise RuntimeError("an injected bug")
            return type(manager)._has_lost_session(manager, record)

        monkeypatch.setattr(manager, "_has_lost_session", bug)
        psutil.Process(next(one.pid for one in engine.workers() if one.name == "worker-0")).kill()
        end = time.monotonic() + 30
        while any(not one.get_info().restart_count for one in sandboxes if homes[one.id] == "worker-0"):
            assert time.monotonic() < end
            time.sleep(0.01)
        for sandbox in sandboxes:
            died = homes[sandbox.id] == "worker-0"
            assert sandbox.run("bump").unwrap() == (1 if died else 3)
            assert sandbox.get_info().restart_count == (1 if died else 0)
    assert len(failures) == 2
    assert caplog.text.count("the task 'session-watch' failed and is started again") == 2
