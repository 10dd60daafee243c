"""An executor of sandboxes, through `concurrent.futures` and through asyncio."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, Executor, as_completed, wait
from functools import partial

import pytest

import evocell
from evocell.integrations.futures import SandboxExecutor

TASK = evocell.Evaluation(
    "f", [evocell.Case((3,), expected=9)], limits=evocell.Limits(fuel=10**12, timeout_s=60.0)
)
GOOD = "def f(n): return n * n"
HANGS = "def f(n):\n    while True: pass"


@pytest.fixture
def evaluate(engine):
    return engine.evaluator(TASK, finish=lambda result: result.fitness_score)


def test_it_is_an_executor_and_maps_in_order(evaluate):
    with SandboxExecutor() as pool:
        assert isinstance(pool, Executor)
        assert list(pool.map(evaluate, [GOOD, "def f(n): return 0", "def f(n"])) == [1.0, 0.0, 0.0]
        assert pool.submit(partial(evaluate, GOOD)).result() == 1.0


def test_results_come_as_they_are_ready(evaluate):
    with SandboxExecutor() as pool:
        futures = {pool.submit(evaluate, source): source for source in (GOOD, "def f(n): return 1")}
        assert {futures[future]: future.result() for future in as_completed(futures)} == {
            GOOD: 1.0,
            "def f(n): return 1": 0.0,
        }


def test_a_plain_function_is_refused(evaluate):
    ran = []
    with SandboxExecutor() as pool, pytest.raises(evocell.ConfigurationError, match="outside of the sandbox"):
        pool.submit(ran.append, 1)
    assert ran == []


def test_a_shut_down_executor_starts_nothing_more(evaluate):
    pool = SandboxExecutor()
    pool.shutdown()
    with pytest.raises(RuntimeError, match="has been shut down"):
        pool.submit(evaluate, GOOD)


def test_shutting_down_can_stop_what_runs(evaluate):
    pool = SandboxExecutor()
    futures = [pool.submit(evaluate, HANGS) for _ in range(3)]
    pool.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    assert evaluate(GOOD) == 1.0


def test_a_future_that_runs_can_be_cancelled(evaluate):
    with SandboxExecutor() as pool:
        future = pool.submit(evaluate, HANGS)
        assert not wait([future], timeout=0.1).done
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result()


def test_asyncio_awaits_gathers_and_gives_up(evaluate):
    async def main(pool):
        loop = asyncio.get_running_loop()
        found = await asyncio.gather(
            *(loop.run_in_executor(pool, evaluate, source) for source in (GOOD, "x"))
        )
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.run_in_executor(pool, evaluate, HANGS), timeout=0.1)
        return found

    with SandboxExecutor() as pool:
        assert asyncio.run(main(pool)) == [1.0, 0.0]
