"""Worker processes die, hang and are killed; what was asked of the engine is answered all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
import trio

import evocell

SQUARE = "def solve(n): return n * n"
BUSY = "def solve(n):\n    total = 0\n    for i in range(60_000): total += i\n    return n * n"
TASK = evocell.Evaluation("solve", cases=[evocell.Case(args=(3,), expected=9)])
COUNTER = "count = 0\ndef bump():\n    global count\n    count += 1\n    return count"


def workers_of(pid: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(pid).children():
        try:
            if "evocell.guests.main" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


@pytest.fixture
def before():
    """The workers that belong to other engines of this test run."""
    return {worker.pid for worker in workers_of(os.getpid())}


@pytest.fixture
def engine(before):
    with evocell.Engine(evocell.Config.load(workers=2)) as made:
        yield made
    _, alive = psutil.wait_procs(
        [worker for worker in workers_of(os.getpid()) if worker.pid not in before], timeout=10
    )
    assert not alive


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def own_workers(before):
    return [worker for worker in workers_of(os.getpid()) if worker.pid not in before]


def wait_until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def test_a_killed_worker_costs_nobody_a_result(engine, before):
    wait_until(lambda: len(own_workers(before)) == 2)
    victim = own_workers(before)[0]
    killed = []

    def kill(result, done, total):
        if done == 5:
            victim.kill()
            killed.append(done)

    results = engine.evaluate([BUSY] * 60, TASK, progress=kill)

    assert killed == [5]
    assert {result.error for result in results} == {None}
    assert [result.fitness_score for result in results] == [1.0] * 60
    assert len({result.fuel_used for result in results}) == 1


def test_a_program_is_not_tried_for_ever(engine, before):
    """A call whose worker dies every time is named as lost."""
    sandbox = engine.create_sandbox(source="def spin():\n    while True: pass")
    stop = time.monotonic() + 60
    over = threading.Event()

    def kill_what_runs():
        while not over.is_set() and time.monotonic() < stop:
            for worker in own_workers(before):
                try:
                    if worker.cpu_times().user > 0.6:  # past its start: the call is in it
                        worker.kill()
                except psutil.Error:
                    pass
            time.sleep(0.05)

    killer = threading.Thread(target=kill_what_runs)
    killer.start()
    try:
        outcome = sandbox.run("spin", isolation="call")
    finally:
        over.set()
        killer.join()

    assert isinstance(outcome, evocell.WorkerLost)
    assert not outcome.deterministic
    assert sandbox.hot_reload_source(SQUARE).ok
    assert sandbox.run("solve", args=(4,)).unwrap() == 16


def test_a_session_that_died_with_its_worker_starts_again_and_says_so(engine, before):
    sandbox = engine.create_sandbox(source=COUNTER)
    assert [sandbox.run("bump").unwrap() for _ in range(3)] == [1, 2, 3]
    for worker in own_workers(before):
        worker.kill()
        worker.wait(10)

    assert sandbox.run("bump").unwrap() == 1
    assert sandbox.run("bump").unwrap() == 2
    state = sandbox.get_info()
    assert state.restart_count == 1
    assert state.status is evocell.SandboxStatus.RUNNING


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_that_hangs_is_replaced(before, busy, caplog):
    """It is stopped by a signal: between calls, and in the middle of one."""
    with evocell.Engine(evocell.Config.load(workers=1)) as engine:
        (worker,) = own_workers(before)
        if busy:
            stop = threading.Timer(0.3, worker.send_signal, [signal.SIGSTOP])
            stop.start()
            results = engine.evaluate([BUSY] * 120, TASK)
            stop.join()
        else:
            worker.send_signal(signal.SIGSTOP)
            results = engine.evaluate([SQUARE], TASK)

        assert all(result.valid for result in results)
        wait_until(lambda: [p.pid for p in own_workers(before)] not in ([], [worker.pid]))
    assert "it was stopped by a signal" in caplog.text


@pytest.mark.slow
def test_a_worker_that_waits_for_a_core_is_not_killed(before, caplog):
    """Eight processes fight for its core; it is slow, and it is left alone."""
    with evocell.Engine(evocell.Config.load(workers=1)) as engine:
        (worker,) = own_workers(before)
        worker.cpu_affinity([0])
        worker.nice(19)
        rivals = [
            subprocess.Popen(
                [sys.executable, "-c", "import os\nos.sched_setaffinity(0, {0})\nwhile True: pass"]
            )
            for _ in range(8)
        ]
        try:
            assert engine.evaluate_one(SQUARE, TASK).valid
        finally:
            for rival in rivals:
                rival.kill()
                rival.wait()
        assert [p.pid for p in own_workers(before)] == [worker.pid]
    assert "killed" not in caplog.text


@pytest.mark.trio
async def test_a_drained_worker_finishes_its_runs_and_starts_anew():
    async with evocell.AsyncEngine(evocell.Config.load(workers=2)) as engine:
        while any(worker.pid is None for worker in await engine.workers()):  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)
        old = {worker.pid for worker in await engine.workers()}
        results = []

        async def evaluate():
            results.extend(await engine.evaluate([BUSY] * 80, TASK))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(evaluate)
            await trio.sleep(0.1)
            for worker in await engine.workers():
                await engine.drain_worker(worker.name)

        after = await engine.workers()
        assert not old & {worker.pid for worker in after}
        assert [(worker.name, worker.status, worker.restarts) for worker in after] == [
            ("worker-0", "up", 1),
            ("worker-1", "up", 1),
        ]
        assert [result.error for result in results] == [None] * 80
        assert {result.valid for result in results} == {True}
        with pytest.raises(evocell.ConfigurationError, match="no worker 'nobody'"):
            await engine.drain_worker("nobody")


def test_the_same_numbers_from_any_number_of_workers():
    program = "import random\ndef solve(n):\n    random.random()\n    return [n, random.random(), hash('a')]"
    task = evocell.Evaluation(
        "solve", cases=[evocell.Case(args=(n,)) for n in range(4)], score=lambda case, value: value[1]
    )
    seen = set()
    for workers in (0, 1, 2):
        with evocell.Engine(evocell.Config.load(workers=workers)) as engine:
            result = engine.evaluate_one(program, task)
            values = tuple(str(case.outcome.unwrap()) for case in result.test_results)
            seen.add((values, result.fitness_score, result.fuel_used))
    assert len(seen) == 1


def test_nothing_is_left_of_a_closed_engine(before):
    descriptors = open_descriptors()
    with evocell.Engine(evocell.Config.load(workers=2)) as engine:
        engine.evaluate([SQUARE] * 4, TASK)
        wait_until(lambda: len(own_workers(before)) == 2)
        pids = [worker.pid for worker in own_workers(before)]

    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert open_descriptors() <= descriptors  # one of an earlier test may have gone meanwhile


def test_workers_end_with_a_process_that_is_killed():
    script = textwrap.dedent(
        """
        import time, evocell
        engine = evocell.Engine(evocell.Config.load(workers=2))
        engine.evaluate_one("def f(): return 1", evocell.Evaluation("f", cases=[evocell.Case(expected=1)]))
        print("up", flush=True)
        engine.create_sandbox(source="def f():\\n    while True: pass").run("f")
        """
    )
    path = os.pathsep.join(filter(None, sys.path))
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        assert owner.stdout.readline() == b"up\n"
        workers = workers_of(owner.pid)
        assert workers
        owner.kill()
        owner.wait()
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert alive == []
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_makes_an_engine_of_its_own(engine):
    """Guests live in workers that were started by exec, so a fork of their owner may start others."""
    assert engine.evaluate_one(SQUARE, TASK).valid
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                engine.evaluate_one(SQUARE, TASK)
            except evocell.EngineForked:
                with evocell.Engine(evocell.Config.load(workers=1)) as own:
                    code = 0 if own.evaluate_one(SQUARE, TASK).valid else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert engine.evaluate_one(SQUARE, TASK).valid
