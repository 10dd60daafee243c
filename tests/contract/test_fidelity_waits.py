"""Waits of one thread end as natively: at their timeouts, by the virtual clock, and those that never could are errors."""

from __future__ import annotations

import pytest

import evocell
from evocell import Config

SOURCE = """
import asyncio, concurrent.futures as futures, queue, select, selectors, threading, time

def held():
    lock = threading.Lock()
    lock.acquire()
    return lock

def condition(wait):
    own = threading.Condition()
    with own:
        return wait(own)

def entering(lock):
    with lock:
        return "entered"

def full():
    waiting = queue.Queue(1)
    waiting.put(1)
    return waiting

async def never(awaited):
    await awaited()

def observe(expressions):
    found = []
    for expression in expressions:
        begun, by_the_wall = time.monotonic(), time.time()
        try:
            result = repr(eval(expression))
        except Exception as error:
            result = type(error).__name__ + (f": {error}" if isinstance(error, RuntimeError) else "")
        passed = time.monotonic() - begun
        assert abs(passed - (time.time() - by_the_wall)) < 0.01
        found.append([result, passed])
    return found

def for_ever():
    held().acquire()

def twice():
    condition = threading.Condition()
    found = []
    for _ in range(2):
        with condition:
            try:
                condition.wait()
            except RuntimeError:
                found.append("refused")
    with condition:
        found.append(condition.wait(0.5))
    lock = held()
    found.append(lock.acquire(timeout=0.5))
    lock.release()
    found.append(lock.acquire(timeout=0.5))
    return found
"""

TIMED = {
    "held().acquire(timeout=0.25)": ("False", 0.25),
    "held().acquire(timeout=31536000)": ("False", 31536000),
    "held().acquire(timeout=0)": ("False", 0),
    "held().acquire(False)": ("False", 0),
    "threading.Lock().acquire(timeout=5)": ("True", 0),
    "threading.RLock().acquire(timeout=5)": ("True", 0),
    "threading.Event().wait(0.5)": ("False", 0.5),
    "threading.Semaphore(0).acquire(timeout=1)": ("False", 1),
    "threading.Barrier(2).wait(timeout=0.5)": ("BrokenBarrierError: ", 0.5),
    "condition(lambda own: own.wait(0.25))": ("False", 0.25),
    "condition(lambda own: own.wait_for(lambda: False, timeout=2))": ("False", 2),
    "condition(lambda own: own.wait_for(lambda: 7))": ("7", 0),
    "queue.Queue().get(timeout=1)": ("Empty", 1),
    "queue.SimpleQueue().get(timeout=1.5)": ("Empty", 1.5),
    "queue.SimpleQueue().get(block=False)": ("Empty", 0),
    "queue.PriorityQueue().get(timeout=0.125)": ("Empty", 0.125),
    "full().put(2, timeout=0.75)": ("Full", 0.75),
    "futures.Future().result(timeout=3)": ("TimeoutError", 3),
    "len(futures.wait([futures.Future()], timeout=2).not_done)": ("1", 2),
    "list(futures.as_completed([futures.Future()], timeout=1))": ("TimeoutError", 1),
    "time.sleep(0.5)": ("None", 0.5),
}

ENDLESS = (
    "held().acquire()",
    "held().acquire(timeout=-1)",
    "entering(held())",
    "threading.Event().wait()",
    "threading.Semaphore(0).acquire()",
    "threading.Barrier(2).wait()",
    "condition(lambda own: own.wait())",
    "condition(lambda own: own.wait_for(lambda: False))",
    "queue.Queue().get()",
    "queue.SimpleQueue().get()",
    "full().put(2)",
    "full().join()",
    "futures.Future().result()",
    "list(futures.as_completed([futures.Future()]))",
    "asyncio.run(never(lambda: asyncio.Event().wait()))",
    "asyncio.run(never(lambda: asyncio.Queue().get()))",
    "asyncio.run(never(lambda: asyncio.get_running_loop().create_future()))",
    "asyncio.new_event_loop().run_forever()",
    "select.select([], [], [])",
    "select.poll().poll()",
    "select.poll().poll(-1)",
    "selectors.DefaultSelector().select()",
    "selectors.SelectSelector().select()",
)


@pytest.fixture(scope="module")
def sandbox():
    with evocell.Engine(Config.load(workers=1)) as engine:
        yield engine.create_sandbox(source=SOURCE)


def test_a_wait_with_a_timeout_ends_at_it(sandbox):
    found = sandbox.run("observe", args=(list(TIMED),)).unwrap()
    for (expression, (result, seconds)), (given, passed) in zip(TIMED.items(), found, strict=True):
        assert given == result, expression
        assert seconds <= passed < seconds + 0.01, expression


def test_a_wait_that_can_never_end_is_an_error(sandbox):
    found = sandbox.run("observe", args=(list(ENDLESS),)).unwrap()
    for expression, (given, _) in zip(ENDLESS, found, strict=True):
        assert given.startswith("RuntimeError: this would wait for ever: "), expression


def test_locks_work_on_after_waits(sandbox):
    assert sandbox.run("twice").unwrap() == ["refused", "refused", False, False, True]


def test_an_endless_wait_that_is_not_caught_says_so(sandbox):
    outcome = sandbox.run("for_ever")
    assert outcome.kind == "raised"
    assert "this would wait for ever" in outcome.error
