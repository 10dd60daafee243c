"""What no single call's limits bound: workers that hold too much, over real processes."""

import logging

import pytest

import evocell
from evocell import Case, Evaluation, Limits

MEGABYTES = 1 << 20
BOUND = 300 * MEGABYTES
LARGE = Limits(memory_bytes=1 << 30, fuel=30_000_000_000)
HUNGRY = "def solve(n):\n    held = b'x' * (600 << 20)\n    for i in range(n): pass\n    return n"
MODEST = "def solve(n): return n"
TASK = Evaluation("solve", [Case((20_000_000,), expected=20_000_000)], limits=LARGE)
QUICK = Evaluation("solve", [Case((n,), expected=n) for n in range(5)])


def open_engine(**settings):
    return evocell.Engine(
        evocell.Config.load(worker_max_memory=BOUND, enforcement_poll_interval_ms=20, **settings)
    )


def test_a_worker_that_holds_too_much_is_killed_and_replaced(caplog):
    with caplog.at_level(logging.WARNING, "evocell"), open_engine(workers=1) as engine:
        sandbox = engine.create_sandbox(source="n = 0\ndef bump():\n    global n\n    n += 1\n    return n")
        assert sandbox.run("bump").unwrap() == 1
        hungry = engine.evaluate_one(HUNGRY, TASK)
        assert (hungry.reason, hungry.valid) == ("worker_lost", False)
        assert f"over worker_max_memory, {BOUND:,}" in hungry.error
        assert engine.evaluate_one(MODEST, QUICK).fitness_score == 1.0
        assert sandbox.run("bump").unwrap() == 1
        assert engine.get_info(sandbox).restart_count == 1
    lines = [line for line in caplog.messages if "killed" in line]
    assert len(lines) == 3  # the call was tried three times
    for line in lines:
        assert line.startswith("worker-0 ")
        assert f"worker_max_memory is {BOUND}" in line
        assert int(line.partition("reached ")[2].partition(" ")[0]) > BOUND


def test_neighbours_lose_nothing():
    with open_engine(workers=2) as engine:
        tasks = [MODEST] * 20 + [HUNGRY] + [MODEST] * 20
        results = engine.evaluate(tasks, TASK)
    assert [result.valid for result in results] == [True] * 20 + [False] + [True] * 20


@pytest.mark.parametrize("bound", [BOUND, None])
def test_without_the_watch_nothing_is_killed(bound, caplog):
    config = evocell.Config.load(
        workers=1,
        enforcement_enabled=bound is None,
        worker_max_memory=bound,
        enforcement_poll_interval_ms=20,
    )
    with evocell.Engine(config) as engine:
        assert engine.evaluate_one(HUNGRY, TASK).fitness_score == 1.0
    assert caplog.messages == []
