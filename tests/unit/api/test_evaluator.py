"""An evaluation as a function: called, mapped, submitted, cancelled."""

from __future__ import annotations

import pickle
from concurrent.futures import CancelledError
from functools import partial, wraps

import pytest

import evocell

TASK = evocell.Evaluation("f", cases=[evocell.Case(args=(3,))], score=lambda case, value: float(value))
WORSE = evocell.Evaluation(
    "f",
    cases=[evocell.Case(args=(3,))],
    score=lambda case, value: float(value),
    directions=("minimize",),
    failure=1e9,
)


def power(n: int, times: int = 1) -> str:
    return f"def f(x): return {times} * x ** {n}"


def test_an_evaluator_is_called_with_a_source_and_returns_the_objectives(fake_engine):
    assert fake_engine.evaluator(TASK)("def f(x): return x * 2") == (6.0,)


def test_prepare_makes_the_source_and_finish_the_fitness(fake_engine):
    ev = fake_engine.evaluator(
        TASK, prepare=power, finish=lambda result: (result.valid, result.fitness_score)
    )
    assert ev(2, times=5) == (True, 45.0)


def test_a_failure_is_the_failure_objective_and_never_wins(fake_engine):
    ev = fake_engine.evaluator(WORSE)
    assert ev.batch(["def f(x): return -5", "def f(x): return 1 / 0", "def f(x"]) == [(-5.0,), (1e9,), (1e9,)]


def test_map_takes_what_a_toolbox_hands_over(fake_engine, fake_workers):
    ev = fake_engine.evaluator(TASK, prepare=power)
    assert ev.map(partial(ev), [0, 1, 2]) == [(1.0,), (3.0,), (9.0,)]
    assert ev.map(ev, [1, 2], [10, 100]) == [(30.0,), (900.0,)]
    assert ev.map(partial(partial(ev, 2), times=7), [()] * 0) == []
    assert ev.map(partial(ev, 2), [4, 5]) == [(36.0,), (45.0,)]
    assert ev.starmap(partial(ev, times=2), [(0,), (1,)]) == [(2.0,), (6.0,)]


def test_map_runs_the_evaluator_it_is_given_also_another_one(fake_engine):
    one, other = fake_engine.evaluator(TASK), fake_engine.evaluator(TASK, prepare=power)
    assert one.map(other, [2]) == [(9.0,)]


def test_map_refuses_a_function_that_would_run_outside(fake_engine):
    ev = fake_engine.evaluator(TASK)
    ran = []
    with pytest.raises(evocell.ConfigurationError, match="'append' is none and wraps none"):
        ev.map(ran.append, ["def f(x): return 1"])
    assert ran == []


def test_a_function_that_wraps_an_evaluator_is_called_for_each(fake_engine):
    ev = fake_engine.evaluator(TASK, prepare=power)

    @wraps(ev)
    def penalised(n):
        return (-1.0,) if n > 1 else ev(n)

    assert ev.map(partial(penalised), [0, 1, 2]) == [(1.0,), (3.0,), (-1.0,)]


def test_an_exception_of_a_wrapping_function_is_raised(fake_engine):
    ev = fake_engine.evaluator(TASK, prepare=power)

    @wraps(ev)
    def broken(n):
        raise LookupError(n)

    with pytest.raises(LookupError):
        ev.map(broken, [0, 1])


def test_a_function_that_raises_for_all_is_a_scoring_error(fake_engine):
    task = evocell.Evaluation("f", cases=[evocell.Case(args=(3,))], score=lambda case, value: 1 / 0)
    with pytest.raises(evocell.ScoringError, match="division by zero"):
        fake_engine.evaluator(task).batch(["def f(x): return 1", "def f(x): return 2"])


def test_submit_gives_a_future(fake_engine):
    ev = fake_engine.evaluator(TASK, prepare=power)
    assert [future.result() for future in [ev.submit(n) for n in range(3)]] == [(1.0,), (3.0,), (9.0,)]


def test_what_finish_raises_is_the_futures(fake_engine):
    ev = fake_engine.evaluator(TASK, finish=lambda result: {}["no"])
    with pytest.raises(KeyError):
        ev.submit("def f(x): return 1").result()


def test_a_future_that_runs_can_be_cancelled_and_the_call_is_stopped(fake_engine, fake_workers):
    ev = fake_engine.evaluator(TASK)
    future = ev.submit("def f(x): return 'hang'")
    fake_engine._thread.call(fake_workers.last.hanging.wait)
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result()
    assert ev("def f(x): return 4") == (4.0,)
    assert fake_workers.last.running == 0


def test_a_future_that_is_done_cannot_be_cancelled(fake_engine):
    future = fake_engine.evaluator(TASK).submit("def f(x): return 1")
    future.result()
    assert not future.cancel()


def test_an_evaluator_keeps_its_engine(fake_workers):
    ev = evocell.Engine(evocell.Config(), open_worker=fake_workers).evaluator(TASK)
    try:
        assert ev("def f(x): return 4") == (4.0,)
    finally:
        ev._owner.close()
    with pytest.raises(evocell.EngineClosed):
        ev("def f(x): return 4")


def test_an_evaluator_says_why_it_is_not_pickled(fake_engine):
    with pytest.raises(TypeError, match="register its map instead"):
        pickle.dumps(fake_engine.evaluator(TASK))


def test_no_evaluation_is_refused(fake_engine):
    with pytest.raises(evocell.ConfigurationError, match=r"must be an evocell\.Evaluation"):
        fake_engine.evaluator(lambda x: x)


@pytest.mark.trio
async def test_the_async_twin_does_the_same(async_engine):
    ev = async_engine.evaluator(TASK, prepare=power)
    assert await ev(2, times=2) == (18.0,)
    assert await ev.batch([0, 1]) == [(1.0,), (3.0,)]
    assert await ev.map(partial(ev, times=2), [0, 1]) == [(2.0,), (6.0,)]
    assert await ev.starmap(ev, [(1, 3)]) == [(9.0,)]
    with pytest.raises(evocell.ConfigurationError, match="'power' is none"):
        await ev.map(power, [1])
