"""Batches of the size that the engine is made for, over real workers."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager

import numpy as np

import evocell
from evocell import Case, Config, Evaluation, Limits, Stage
from evocell.workers.open_worker import open_worker_processes

N_CANDIDATES = 200
N_CASES = 5
ARRAY_BYTES = 1 << 20


def times(number):
    return f"def solve(n): return n * {number}"


def by_score(n_cases=N_CASES, **more):
    return Evaluation("solve", [Case((n,)) for n in range(1, n_cases + 1)], lambda case, value: value, **more)


def test_results_come_in_order(engine):
    order = []
    results = engine.evaluate(
        [times(number) for number in range(N_CANDIDATES)],
        by_score(),
        progress=lambda result, done, total: order.append((done, total)),
    )
    assert [result.fitness_score for result in results] == [3.0 * n for n in range(N_CANDIDATES)]
    assert {len(result.test_results) for result in results} == {N_CASES}
    assert order == [(n, N_CANDIDATES) for n in range(1, N_CANDIDATES + 1)]
    assert engine.list_sandboxes() == []


def test_one_in_ten_fails_and_nobody_else(engine):
    def source(number):
        return times(number) if number % 10 else "def solve(n): raise ValueError(n)"

    results = engine.evaluate([source(number) for number in range(N_CANDIDATES)], by_score(1))
    assert [result.valid for result in results] == [bool(n % 10) for n in range(N_CANDIDATES)]


def test_cases_that_ran_before_an_early_stop_are_kept(engine):
    task = by_score(stop=lambda so_far: so_far[-1].score >= 3 * 50)
    results = engine.evaluate([times(number) for number in range(100)], task)
    lengths = [len(result.test_results) for result in results]
    assert lengths == [next((n for n in range(1, 6) if n * k >= 150), 5) for k in range(100)]
    assert all(result.valid for result in results)


def test_results_before_a_deadline_are_kept(engine):
    endless = "def solve(n):\n    while True: pass"
    sources = [times(1)] * 20 + [endless] * 10 + [times(1)] * 20
    task = Evaluation("solve", [Case((1,), expected=1)], limits=Limits(fuel=10**13))
    results = engine.evaluate(sources, task, deadline_s=2.0)
    assert [result.valid for result in results[:20]] == [True] * 20
    assert {result.reason for result in results[20:]} == {"timeout"}
    assert engine.evaluate_one(times(1), task).valid


def test_leaving_a_stream_keeps_what_came(engine):
    stream = engine.as_completed((times(number) for number in itertools.count()), by_score(1))
    came = dict(itertools.islice(stream, 50))
    stream.close()
    assert len(came) == 50
    assert all(result.fitness_score == index for index, result in came.items())
    assert engine.evaluate_one(times(1), by_score(1)).valid


def test_stages_over_the_real_image(engine):
    stages = [Stage(by_score(1), 0.25), Stage(by_score(), lambda result: result.fitness_score >= 3 * 38)]
    results = engine.evaluate_stages(
        [times(number) for number in range(40)], stages, total_limits=Limits(fuel=2_000_000_000)
    )
    assert [result.stage for result in results] == [0] * 30 + [1] * 10
    assert [result.kept for result in results] == [False] * 38 + [True] * 2


def test_case_data_is_sent_once_per_worker():
    pools = []

    @asynccontextmanager
    async def opening(config, snapshots, *, progress=None):
        async with open_worker_processes(config, snapshots, progress=progress) as worker:
            pools.append(worker.host)
            yield worker

    arrays = [np.full(ARRAY_BYTES // 8, float(n)) for n in range(N_CASES)]
    task = Evaluation("solve", [Case((array,), expected=array[0]) for array in arrays])
    with evocell.Engine(Config.load(workers=2), open_worker=opening) as engine:
        results = engine.evaluate([f"def solve(a): return float(a[0])  # {n}" for n in range(40)], task)
        assert [result.fitness_score for result in results] == [1.0] * 40
        (pool,) = pools
        sent = [one.sent_bytes for one in pool.processes]
        assert len(sent) == 2
        assert all(N_CASES * ARRAY_BYTES <= size < (N_CASES + 1) * ARRAY_BYTES for size in sent)
        assert [one.missed for one in pool.processes] == [0, 0]
