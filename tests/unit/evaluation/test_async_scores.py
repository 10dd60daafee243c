"""A score function that is awaited: on the engine's loop, several at once, and never a broken engine."""

import functools
import threading

import pytest
import trio
from attrs import evolve

import evocell
from evocell import Case, ConfigurationError, Evaluation, ScoringError, Stage

SQUARE = "def solve(n): return n * n"
CUBE = "def solve(n): return n ** 3"
RAISES = "def solve(n): raise ValueError(n)"
HIDDEN = [Case((2,), expected=4), Case((3,), expected=9, public=False)]


async def closeness(case, value):
    await trio.lowlevel.checkpoint()
    return -abs(value - case.expected), "looked at"


def blocking_closeness(case, value):
    return -abs(value - case.expected), "looked at"


class Judge:
    """An object that is called as an async function."""

    async def __call__(self, case, value):
        return await closeness(case, value)


def task(score=closeness, cases=HIDDEN, **more):
    return Evaluation("solve", cases, score, failure=-1e9, **more)


@pytest.mark.parametrize(
    "score", [closeness, functools.partial(closeness), Judge()], ids=["function", "partial", "object"]
)
@pytest.mark.parametrize("more", [{}, {"stop": "first_failure"}, {"isolation": "candidate"}], ids=str)
def test_awaited_scores_are_those_of_a_function_that_blocks(fake_engine, score, more):
    found = fake_engine.evaluate([SQUARE, CUBE, RAISES, "def solve(:"], task(score, **more))
    wanted = fake_engine.evaluate([SQUARE, CUBE, RAISES, "def solve(:"], task(blocking_closeness, **more))
    assert [evolve(one, sandbox_id="") for one in found] == [evolve(one, sandbox_id="") for one in wanted]
    assert [one.fitness_score for one in found] == [0.0, -11.0, -1e9, -1e9]
    assert found[0].test_results[0].remark == "looked at"


@pytest.mark.trio
async def test_they_run_on_the_engines_loop_several_at_once_and_no_more_than_allowed(async_engine):
    inside, most, loops = 0, 0, set()
    full = trio.Event()

    async def score(case, value):
        nonlocal inside, most
        loops.add(trio.lowlevel.current_trio_token())
        inside += 1
        most = max(most, inside)
        if inside == 5:
            full.set()
        await full.wait()  # nobody goes on before five are here at once
        inside -= 1
        return 1.0

    results = await async_engine.evaluate([SQUARE] * 20, task(score, HIDDEN[:1], scores_at_once=5))
    assert [one.valid for one in results] == [True] * 20
    assert most == 5
    assert loops == {trio.lowlevel.current_trio_token()}


def test_a_blocking_engine_awaits_on_its_own_thread(fake_engine):
    threads = set()

    async def score(case, value):
        threads.add(threading.current_thread().name)
        return 1.0

    assert dict(fake_engine.as_completed([SQUARE, CUBE], task(score)))[1].valid
    assert threads == {"evocell-engine"}


@pytest.mark.trio
async def test_what_it_raises_or_returns_by_mistake_is_data(async_engine):
    async def score(case, value):
        if value == 8:
            raise LookupError("table")
        return value if value == 4 else "good"

    first, second, third = await async_engine.evaluate(
        [SQUARE, CUBE, "def solve(n): return 1"], task(score, HIDDEN[:1])
    )
    assert (first.fitness_score, first.valid) == (4.0, True)
    assert second.error == "case 0: score raised LookupError: table"
    assert second.test_results[0].remark == "LookupError: table"
    assert third.error == "case 0: score returned 'good', which is not a number"
    with pytest.raises(ScoringError, match="LookupError: table"):
        await async_engine.evaluate([CUBE], task(score, HIDDEN[:1]))


def test_a_function_that_only_returns_a_coroutine_is_told_how(fake_engine):
    result = fake_engine.evaluate_one(SQUARE, task(lambda case, value: closeness(case, value + 0)))
    assert "score returned a coroutine; make score an async function" in result.error


@pytest.mark.trio
async def test_a_deadline_and_a_cancellation_go_into_it(async_engine, autojump_clock):
    ended = []

    async def score(case, value):
        try:
            await trio.sleep_forever()
        except BaseException as error:
            ended.append(type(error))
            raise

    (late,) = await async_engine.evaluate([SQUARE], task(score), deadline_s=5)
    assert (late.valid, late.reason) == (False, "timeout")
    assert len(late.test_results) == 1
    with trio.move_on_after(5) as scope:
        await async_engine.evaluate([SQUARE], task(score))
    assert scope.cancelled_caught
    assert ended == [trio.Cancelled] * 2


@pytest.mark.trio
async def test_stages_and_duels_await_it(async_engine):
    staged = await async_engine.evaluate_stages([SQUARE, CUBE], [Stage(task(), keep=0.5), Stage(task())])
    assert [one.stage for one in staged] == [1, 0]
    results = await async_engine.evaluate([SQUARE, CUBE], task(blocking_closeness))
    again = await trio.to_thread.run_sync(evocell.rescore, results, task())
    assert list(again) == list(results)
    with pytest.raises(ConfigurationError, match="from within a trio loop"):
        evocell.rescore(results, task())


@pytest.mark.parametrize("most", [0, True, 1.5, 10**9])
def test_how_many_at_once_is_a_whole_number(most):
    with pytest.raises(ConfigurationError, match="scores_at_once must be a whole number"):
        task(scores_at_once=most)
