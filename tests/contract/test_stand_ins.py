"""What stands in for threads, signals and limits, in the sandbox where it stands."""

from __future__ import annotations

import pytest

import evocell
from evocell.integrations.stand_ins import stand_ins

HARNESS = stand_ins()
LIMITS = evocell.Limits(fuel=20 * 10**9, memory_bytes=256 << 20, scratch_bytes=1 << 20, processes=4)

THREADS = """
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
import queue, threading, time

def run():
    found = {}
    with ThreadPoolExecutor(4) as pool:
        future = pool.submit(lambda: 1 / 0)
        found["error"] = type(future.exception(timeout=1)).__name__
        futures = [pool.submit(pow, 2, n) for n in range(3)]
        found["completed"] = sorted(one.result() for one in as_completed(futures))
        found["map"] = list(pool.map(abs, [-1, -2], timeout=1))
        found["wait"] = len(wait(futures, timeout=1).done)
    todo, done = queue.Queue(), []
    def take():
        while (item := todo.get()) is not None:
            done.append(item)
    consumer = threading.Thread(target=take)
    consumer.start()
    for n in (1, 2, None):
        todo.put(n)
    consumer.join(timeout=1)
    found["consumed"] = done, consumer.is_alive()
    answers = queue.Queue()
    threading.Thread(target=answers.put, args=(5,), daemon=True).start()
    found["produced"] = answers.get(timeout=1)
    ready = threading.Event()
    threading.Thread(target=ready.set).start()
    found["event"] = ready.wait(timeout=5), threading.Event().wait(timeout=0.1)
    stop, ticks = threading.Event(), []
    def watch():
        while not stop.wait(1):
            ticks.append(1)
    monitor = threading.Thread(target=watch, daemon=True)
    monitor.start()
    time.sleep(0.5)
    stop.set()
    monitor.join()
    rung = []
    timer = threading.Timer(0.2, rung.append, (1,))
    timer.start()
    time.sleep(0.1)
    found["early"] = list(rung)
    time.sleep(0.2)
    found["late"] = list(rung)
    cancelled = threading.Timer(0.1, rung.append, (2,))
    cancelled.start(); cancelled.cancel(); time.sleep(0.3)
    found["cancelled"] = list(rung)
    try:
        queue.Queue().get()
    except RuntimeError as error:
        found["stuck"] = "wait for ever" in str(error)
    return found
"""

SIGNALS = """
import signal, time, resource

class Late(BaseException):
    pass

def late(number, frame):
    raise Late(number)

def guarded(work, seconds):
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    began = time.monotonic()
    try:
        work()
    except Late:
        return "late", round(time.monotonic() - began, 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "in time"

def spin():
    while True:
        pass

def swallow():
    while True:
        try:
            while True:
                pass
        except Exception:
            pass

def run():
    found = {"spin": guarded(spin, 0.3), "swallow": guarded(swallow, 0.2)}
    found["sleep"] = guarded(lambda: time.sleep(100), 0.5)
    found["quick"] = guarded(lambda: sum(range(10)), 0.2)
    signal.alarm(3)
    found["left"] = signal.alarm(0)
    ticks = []
    signal.signal(signal.SIGALRM, lambda number, frame: ticks.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    until = time.monotonic() + 0.55
    while time.monotonic() < until:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    found["ticks"] = len(ticks)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    found["limit"] = resource.getrlimit(resource.RLIMIT_AS)
    return found
"""

PACKAGES = """
import asyncio, subprocess, sys
import numpy as np
from joblib import Parallel, delayed
from tqdm import tqdm

async def later(value):
    await asyncio.sleep(0.01)
    return value

async def threads():
    return await asyncio.wait_for(asyncio.to_thread(pow, 2, 3), 1)

def run():
    found = {"tqdm": sum(tqdm([1, 2], disable=False))}
    found["joblib"] = Parallel(n_jobs=2)(delayed(abs)(n) for n in (-1, 2))
    found["asyncio"] = asyncio.run(later(5)), asyncio.run(threads())
    return found
"""


def ask(engine, text):
    driver = "import evocell_stand_ins\nevocell_stand_ins.install()\n" + text
    task = evocell.Evaluation(
        "driver:run",
        [evocell.Case()],
        lambda case, value: 1.0,
        harness={**HARNESS, "driver.py": driver},
        limits=LIMITS,
    )
    results = [engine.evaluate_one("pass", task) for _ in range(2)]
    assert results[0].valid, results[0].feedback()
    assert results[0].fuel_used == results[1].fuel_used
    return results[0].test_results[0].outcome.unwrap()


def test_threads_run_in_turn_and_nobody_waits_for_ever(engine):
    assert ask(engine, THREADS) == {
        "error": "ZeroDivisionError",
        "completed": [1, 2, 4],
        "map": [1, 2],
        "wait": 3,
        "consumed": ([1, 2], False),
        "produced": 5,
        "event": (True, False),
        "early": [],
        "late": [1],
        "cancelled": [1],
        "stuck": True,
    }


def test_an_alarm_interrupts_what_runs(engine):
    found = ask(engine, SIGNALS)
    assert found["spin"] == ("late", 0.3)
    assert found["swallow"] == ("late", 0.2)
    assert found["sleep"] == ("late", 0.5)
    assert found["quick"] == "in time"
    assert found["left"] == 3
    assert found["ticks"] == pytest.approx(5, abs=1)
    assert found["limit"] == (1 << 30, 1 << 30)


def test_packages_that_use_them_work(engine):
    assert ask(engine, PACKAGES) == {"tqdm": 3, "joblib": [1, 2], "asyncio": (5, 8)}


BARRIER = """
import multiprocessing as mp, threading

def party(barrier, order, places):
    order.append("before")
    places.append(barrier.wait(timeout=5))
    order.append("after")

def late(barrier, found):
    try:
        barrier.wait(timeout=0.1)
    except threading.BrokenBarrierError:
        found.append("broken")

def run():
    manager = mp.Manager()
    order, places, found, calls = manager.list(), manager.list(), manager.list(), manager.list()
    barrier = mp.Barrier(3, action=lambda: calls.append(1))
    for _ in range(2):  # it can be passed again
        parties = [mp.Process(target=party, args=(barrier, order, places)) for _ in range(3)]
        [one.start() for one in parties]
        [one.join() for one in parties]
    broken = mp.Barrier(2)
    alone = mp.Process(target=late, args=(broken, found))
    alone.start(); alone.join()
    late(broken, found)
    broken.reset()
    return {"order": list(order), "places": sorted(places), "calls": len(calls), "found": list(found),
            "state": (barrier.n_waiting, barrier.broken, broken.broken)}
"""


def test_processes_meet_at_a_barrier(engine):
    assert ask(engine, BARRIER) == {
        "order": (["before"] * 3 + ["after"] * 3) * 2,
        "places": [0, 0, 1, 1, 2, 2],
        "calls": 2,
        "found": ["broken", "broken"],
        "state": (0, False, False),
    }


REFUSED = {
    "__import__('multiprocessing.shared_memory').shared_memory.SharedMemory(create=True, size=8)": "Array",
    "__import__('multiprocessing.shared_memory').shared_memory.ShareableList([1])": "through a Queue",
    "__import__('os').fork()": "multiprocessing.Process(target=",
    "__import__('os').pipe()": "multiprocessing.Pipe()",
    "__import__('os').execv('/bin/ls', ['ls'])": "subprocess.run(",
    "__import__('os').posix_spawn('/bin/ls', ['ls'], {})": "subprocess.run(",
    "__import__('pty').fork()": "subprocess.run(",
    "asyncio.run(asyncio.create_subprocess_exec(sys.executable))": "subprocess.run(",
    "dialogue()": "communicate(input)",
}

DIALOGUE = """
import asyncio, subprocess, sys

def dialogue():
    other = subprocess.Popen([sys.executable, "-c", "print(input()); print(input())"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    other.stdin.write("1\\n")
    other.stdin.flush()
    other.stdout.readline()
    other.stdin.write("2\\n")
    other.stdin.flush()

def run():
    said = {}
    for text in TEXTS:
        try:
            eval(text)
        except Exception as error:
            said[text] = str(error)
    return said
"""


def test_what_cannot_work_says_what_to_write_instead(engine):
    said = ask(engine, DIALOGUE.replace("TEXTS", repr(list(REFUSED))))
    assert said.keys() == REFUSED.keys()
    assert {text: words for text, words in REFUSED.items() if words not in said[text]} == {}
