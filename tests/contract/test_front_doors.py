"""The blocking engine where programs use it: threads, event loops, children, and Ctrl-C, all for real."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import trio

import evocell

SQUARE = "def solve(n): return n * n"
COUNTER = "n = 0\ndef bump():\n    global n\n    n += 1\n    return n"
TASK = evocell.Evaluation("solve", [evocell.Case((3,), expected=9)])
WORKER = "evocell.guests.main"


def workers_of(pid: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if WORKER in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)
    return found


# Threads and event loops


def test_eight_threads_at_once(engine):
    shared = engine.create_sandbox(source=COUNTER)
    together = threading.Barrier(8)

    def work(number: int) -> list[int]:
        together.wait()
        with engine.create_sandbox(source=COUNTER) as own:
            assert [own.run("bump").unwrap() for _ in range(3)] == [1, 2, 3]
            results = engine.evaluate([SQUARE, "def solve(", SQUARE], TASK)
            assert [result.valid for result in results] == [True, False, True]
            assert engine.batch_evaluate([own], lambda box: number + 0.5)[0].fitness_score == number + 0.5
            stream = engine.as_completed([SQUARE] * 3, TASK)
            assert sorted(index for index, _ in stream) == [0, 1, 2]
        return [shared.run("bump").unwrap() for _ in range(5)]

    with shared, ThreadPoolExecutor(8) as threads:
        counts = list(threads.map(work, range(8)))
    assert all(count == sorted(count) for count in counts)
    assert sorted(n for count in counts for n in count) == list(range(1, 41))


def test_inside_a_running_asyncio_loop(engine):
    async def main() -> tuple[bool, list[bool], int]:
        direct = engine.evaluate_one(SQUARE, TASK).valid
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        slow = f"for _ in range(3_000_000): pass\n{SQUARE}"  # long enough for the loop to be seen to go on
        calls = (asyncio.to_thread(engine.evaluate_one, slow, TASK) for _ in range(4))
        results = await asyncio.gather(*calls)
        turning.cancel()
        return direct, [result.valid for result in results], turns

    direct, in_threads, turns = asyncio.run(main())
    assert direct
    assert in_threads == [True] * 4
    assert turns > 10  # the loop went on meanwhile


def test_inside_a_running_trio_loop(engine):
    async def main() -> tuple[bool, bool]:
        direct = engine.evaluate_one(SQUARE, TASK).valid
        in_thread = await trio.to_thread.run_sync(engine.evaluate_one, SQUARE, TASK)
        return direct, in_thread.valid

    assert trio.run(main) == (True, True)


def test_made_and_closed_inside_a_loop():
    async def main() -> bool:
        with evocell.Engine(evocell.Config.load(workers=1)) as own:
            return own.evaluate_one(SQUARE, TASK).valid

    assert asyncio.run(main())
    assert trio.run(main)


# Children


def square_in_child(n: int) -> tuple[float, int | None, int, int]:
    """Score, the default engine's number of workers, how many there are, and whose engine it is."""
    task = evocell.Evaluation("solve", [evocell.Case((n,), expected=n * n)])
    score = evocell.evaluate([SQUARE], task)[0].fitness_score
    engine = evocell.default_engine()
    assert evocell.default_engine() is engine
    return score, engine.config.workers, len(workers_of(os.getpid())), os.getpid()


def square_into(queue, n: int) -> None:
    queue.put(square_in_child(n))


def without_a_number_of_workers(monkeypatch, tmp_path):
    monkeypatch.delenv("EVOCELL_WORKERS", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking beside the engine's thread is the point
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_children_have_one_worker_each(method, engine, monkeypatch, tmp_path):
    """Also while an engine of the parent has run guests, in its own process and in workers."""
    assert engine.evaluate_one(SQUARE, TASK).valid
    without_a_number_of_workers(monkeypatch, tmp_path)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=square_into, args=(queue, n)) for n in (3, 4)]
    for child in children:
        child.start()
    seen = [queue.get(timeout=120) for _ in children]
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert [one[:3] for one in seen] == [(1.0, 1, 1)] * 2
    assert {one[3] for one in seen} == {child.pid for child in children}
    assert list(tmp_path.glob("evocell-*")) == []
    assert engine.evaluate_one(SQUARE, TASK).valid
    queue.close()
    queue.join_thread()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_process_pool_executor(method, monkeypatch, tmp_path):
    without_a_number_of_workers(monkeypatch, tmp_path)
    evocell.default_engine().evaluate_one(SQUARE, TASK)  # the parent's own, which the children do not use
    context = multiprocessing.get_context(method)
    try:
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            seen = list(pool.map(square_in_child, range(8)))
            pids = set(pool._processes)
            workers = [worker for pid in pids for worker in workers_of(pid)]
        assert [one[:3] for one in seen] == [(1.0, 1, 1)] * 8
        assert {one[3] for one in seen} <= pids
        assert psutil.wait_procs(workers, timeout=30)[1] == []
        assert evocell.default_engine().evaluate_one(SQUARE, TASK).valid
    finally:
        evocell.default_engine().close()
    assert list(tmp_path.glob("evocell-*")) == []


def test_what_the_settings_say_goes_before_that(monkeypatch, tmp_path):
    monkeypatch.setenv("EVOCELL_WORKERS", "0")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(square_in_child, 3).result(120)[:3] == (1.0, 0, 0)


# Interrupts


@contextmanager
def program(text: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python program in a process group of its own, as a shell would start it."""
    path = os.pathsep.join(filter(None, sys.path))
    run = subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)},
    )
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


ENDLESS = """
    import sys, evocell
    task = evocell.Evaluation("f", [evocell.Case(expected=1)], limits=evocell.Limits(fuel=10**15))
    engine = evocell.Engine(evocell.Config.load(workers={workers}))
    engine.evaluate_one("def f(): return 1", task)
    print("up")
    {rest}
"""
SPIN_200 = 'engine.evaluate([f"def f():\\n    while {n}: pass" for n in range(1, 201)], task)'


def interrupt(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """Send Ctrl-C, as a terminal does, to a program that is busy; return its workers."""
    assert run.stdout.readline() == "up\n"
    workers = workers_of(run.pid)
    time.sleep(0.5)  # not to wait for something, but to be in the middle of it
    os.killpg(run.pid, signal.SIGINT)
    return workers


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_ends_a_program(workers, tmp_path):
    with program(ENDLESS.format(workers=workers, rest=SPIN_200), tmp_path) as run:
        children = interrupt(run)
        output, errors = run.communicate(timeout=60)
    assert bool(children) == bool(workers)
    assert output == ""
    assert run.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "Thread" not in errors
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert list(tmp_path.glob("evocell-*")) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_engine_goes_on_after_ctrl_c(workers, tmp_path):
    rest = f"""
    try:
        {SPIN_200}
    except KeyboardInterrupt:
        print("caught")
    results = engine.evaluate(["def f(): return 1"] * 20, task)
    print(sum(result.valid for result in results), engine.list_sandboxes())
    print(len(engine._engine._requests))
    engine.close()
    """
    with program(ENDLESS.format(workers=workers, rest=rest), tmp_path) as run:
        children = interrupt(run)
        output, errors = run.communicate(timeout=60)
    assert (output, errors, run.returncode) == ("caught\n20 []\n0\n", "", 0)
    assert psutil.wait_procs(children, timeout=20)[1] == []


@pytest.mark.parametrize("into_it_s", [0.0, 0.06, 0.15])
def test_ctrl_c_while_the_workers_start(into_it_s, tmp_path):
    """A terminal interrupts them too, and they cannot ignore it before they have begun."""
    text = """
    import time, evocell
    print("up")
    try:
        evocell.Engine(evocell.Config.load(workers=2))
        time.sleep(60)
    except KeyboardInterrupt:
        print("caught")
    """
    with program(text, tmp_path) as run:
        assert run.stdout.readline() == "up\n"
        wait_until(lambda: workers_of(run.pid))
        time.sleep(into_it_s)  # where in a worker's start the interrupt arrives
        children = workers_of(run.pid)
        os.killpg(run.pid, signal.SIGINT)
        output, errors = run.communicate(timeout=60)
    assert (output, errors, run.returncode) == ("caught\n", "", 0)
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert list(tmp_path.glob("evocell-*")) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_ends_a_program_and_its_workers(workers, tmp_path):
    with program(ENDLESS.format(workers=workers, rest=SPIN_200), tmp_path) as run:
        assert run.stdout.readline() == "up\n"
        children = workers_of(run.pid)
        run.terminate()
        output, errors = run.communicate(timeout=60)
    assert (output, errors, run.returncode) == ("", "", -signal.SIGTERM)
    assert psutil.wait_procs(children, timeout=20)[1] == []


# The manager's task


def test_sessions_that_die_with_a_worker_are_noticed_before_the_next_call():
    known = {worker.pid for worker in workers_of(os.getpid())}
    with evocell.Engine(evocell.Config.load(workers=1)) as engine:
        sandbox = engine.create_sandbox(source=COUNTER)
        assert [sandbox.run("bump").unwrap() for _ in range(2)] == [1, 2]
        assert sandbox.get_info().supervisor == "worker-0"
        for worker in workers_of(os.getpid()):
            if worker.pid not in known:
                worker.kill()
        state = wait_until(lambda: (info := sandbox.get_info()).restart_count and info)
        assert (state.status.value, state.restart_count, state.supervisor) == ("running", 1, None)
        assert [step.after.value for step in state.transitions[-2:]] == ["error", "running"]
        assert sandbox.run("bump").unwrap() == 1
        assert sandbox.get_info().restart_count == 1
