"""Stages, each of which prunes the next, on one budget."""

import pytest
import trio

from evocell import Case, ConfigurationError, Evaluation, Limits, ScoringError, Stage

SCORE = "def solve(n): return {0} * n"


def scored(*cases, **more):
    """What a candidate returns is its score."""
    return Evaluation("solve", [Case((n,)) for n in cases], lambda case, value: value, **more)


def sources(*numbers):
    return [SCORE.format(number) for number in numbers]


@pytest.mark.trio
async def test_each_stage_prunes_the_next(async_engine, fake_workers):
    stages = [
        Stage(scored(1), 0.5),
        Stage(scored(10), lambda result: result.fitness_score > 25),
        Stage(scored(100)),
    ]
    results = await async_engine.evaluate_stages(sources(1, 4, 2, 3, 0), stages)
    assert [result.stage for result in results] == [0, 2, 1, 2, 0]
    assert [result.kept for result in results] == [False, True, False, True, False]
    assert [result.result.fitness_score for result in results] == [1, 400, 20, 300, 0]
    assert [len(result.results) for result in results] == [1, 3, 2, 3, 1]
    assert [result.fuel_used for result in results] == [7, 21, 14, 21, 7]
    assert len({result.sandbox_id for result in results}) == 5
    assert fake_workers.last.count == {"compile": 5, "call": 5 + 3 + 2}


@pytest.mark.trio
async def test_a_part_is_of_those_that_entered_and_the_best_are_kept(async_engine):
    minimised = scored(1, directions=("minimize",), failure=1e9)
    crash = "def solve(n): raise SystemExit"
    results = await async_engine.evaluate_stages(
        [*sources(3, 1, 1, 2), crash, crash], [Stage(minimised, 1 / 3), Stage(minimised, 0.001)]
    )
    assert [result.stage for result in results] == [0, 1, 1, 0, 0, 0]
    assert [result.kept for result in results] == [False, True, False, False, False, False]
    assert [result.result.reason for result in results] == [None] * 4 + ["crashed"] * 2


@pytest.mark.trio
async def test_the_invalid_never_go_on(async_engine, fake_workers):
    stages = [Stage(scored(1)), Stage(scored(1), lambda result: True)]
    results = await async_engine.evaluate_stages(
        ["def solve(", "def solve(n): raise ValueError", *sources(1)], stages
    )
    assert [(result.stage, result.kept) for result in results] == [(0, False), (0, False), (1, True)]
    none = await async_engine.evaluate_stages(["def solve("] * 2, stages)
    assert [result.stage for result in none] == [0, 0]


@pytest.mark.trio
async def test_stages_share_one_budget(async_engine):
    stages = [Stage(scored(1, 2)), Stage(scored(1, 2))]
    (result,) = await async_engine.evaluate_stages(sources(1), stages, total_limits=Limits(fuel=28))
    assert result.kept
    (result,) = await async_engine.evaluate_stages(sources(1), stages, total_limits=Limits(fuel=21))
    assert (result.stage, result.kept, result.result.reason) == (1, False, "fuel")
    assert [case.outcome.kind for case in result.result.test_results] == ["completed", "fuel"]
    assert "all cases together" in result.result.error


@pytest.mark.trio
async def test_each_candidate_has_a_budget_of_its_own_and_each_stage_its_limits(async_engine, fake_workers):
    small = scored(1, limits=Limits(fuel=8))
    stages = [Stage(scored(1, limits=Limits(fuel=100))), Stage(small)]
    results = await async_engine.evaluate_stages(sources(1, 2), stages, total_limits=Limits(fuel=50))
    assert [result.kept for result in results] == [True, True]
    assert sorted(job.limits.fuel for job in fake_workers.last.jobs) == [8, 8, 50, 50]


@pytest.mark.trio
async def test_a_population_is_kept_whole_with_the_last_fitness(async_engine):
    stages = [Stage(scored(1), 1 / 3), Stage(scored(10))]
    results = await async_engine.evaluate_stages(
        [*sources(1, 2), "def solve("], stages, population="p", generation=2
    )
    states = await async_engine.list_sandboxes(population="p")
    assert [state.fitness for state in states] == [1, 20, 0.0]
    assert [state.id for state in states] == [result.sandbox_id for result in results]
    assert [state.status.value for state in states] == ["running", "running", "error"]


@pytest.mark.trio
async def test_progress_tells_who_goes_no_further(async_engine):
    seen = []
    stages = [Stage(scored(1), 1 / 3), Stage(scored(10))]
    await async_engine.evaluate_stages(
        [*sources(1, 2), "def solve("],
        stages,
        progress=lambda result, done, total: seen.append((result.fitness_score, done, total)),
    )
    assert seen == [(0.0, 1, 3), (1, 2, 3), (20, 3, 3)]


@pytest.mark.trio
async def test_a_predicate_that_raises_for_some_prunes_them(async_engine):
    def keep(result):
        return 1 / (result.fitness_score - 1) > 0

    results = await async_engine.evaluate_stages(sources(1, 2), [Stage(scored(1), keep), Stage(scored(1))])
    assert [result.kept for result in results] == [False, True]
    assert results[0].error.startswith("keep raised ZeroDivisionError")
    assert results[1].error is None
    with pytest.raises(ScoringError, match="keep failed for every one of 2"):
        await async_engine.evaluate_stages(sources(1, 1), [Stage(scored(1), keep)])


@pytest.mark.trio
async def test_one_that_is_left_does_not_prove_the_scoring_broken(async_engine):
    def score(case, value):
        raise KeyError(value)

    broken = Evaluation("solve", [Case((1,))], score)
    results = await async_engine.evaluate_stages(sources(1, 2), [Stage(scored(1), 0.5), Stage(broken)])
    assert [result.result.reason for result in results] == [None, "score"]
    with pytest.raises(ScoringError):
        await async_engine.evaluate_stages(sources(1, 2), [Stage(scored(1)), Stage(broken)])


@pytest.mark.trio
async def test_a_deadline_holds_for_all_stages_together(async_engine, autojump_clock):
    hangs_later = "def solve(n): return 'hang' if n > 1 else n"
    stages = [Stage(Evaluation("solve", [Case((n,), expected=n)])) for n in (1, 2)]
    results = await async_engine.evaluate_stages([hangs_later, *sources(1)], stages, deadline_s=2.0)
    assert [result.result.reason for result in results] == ["timeout", None]


@pytest.mark.trio
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Stage(scored(1), 0), "keep must be"),
        (lambda: Stage(scored(1), 1.5), "keep must be"),
        (lambda: Stage(scored(1), True), "keep must be"),
        (lambda: Stage("solve"), "needs an Evaluation"),
        (lambda: Stage(scored(1), name=1), "stage name"),
    ],
)
async def test_a_stage_that_cannot_be(make, said):
    with pytest.raises(ConfigurationError, match=said):
        make()


@pytest.mark.trio
@pytest.mark.parametrize(
    ("stages", "total", "said"),
    [
        ([], None, "at least one Stage"),
        ("solve", None, "list of at least one"),
        ([scored(1)], None, r"stages\[0\] must be a Stage"),
        ([Stage(scored(1, total_limits=Limits()))], Limits(), "not both"),
        ([Stage(scored(1))], 5, "must be a Limits"),
    ],
)
async def test_stages_that_cannot_be_run(async_engine, stages, total, said):
    with pytest.raises(ConfigurationError, match=said):
        await async_engine.evaluate_stages(sources(1), stages, total_limits=total)


def test_the_blocking_engine_has_them_too(fake_engine):
    (result,) = fake_engine.evaluate_stages(sources(2), [Stage(scored(1)), Stage(scored(2))])
    assert (result.kept, result.result.fitness_score) == (True, 4)


@pytest.mark.trio
async def test_a_deadline_cuts_the_question_who_goes_on(async_engine, mock_clock):
    release = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def keep(result):
        trio.from_thread.run_sync(mock_clock.jump, 2.0, trio_token=token)
        trio.from_thread.run(release.wait, trio_token=token)
        return True

    stages = [Stage(scored(1), keep), Stage(scored(10))]
    results = await async_engine.evaluate_stages(sources(1, 2), stages, deadline_s=1.0)
    assert [(result.stage, result.kept, result.result.valid) for result in results] == [(0, False, True)] * 2
    assert {result.error for result in results} == {
        "keep had not answered: the deadline of 1 s passed (unlike timeout_s it counts waiting and compiling)"
    }
    release.set()
