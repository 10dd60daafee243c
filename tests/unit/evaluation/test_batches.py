"""Evaluating many at once, over a worker that the tests can look into."""

import pytest
import trio

from evocell import (
    AsyncEngine,
    CapacityError,
    Case,
    Config,
    ConfigurationError,
    Evaluation,
    FitnessResult,
    Limits,
    ScoringError,
)

pytestmark = pytest.mark.trio

SQUARE = "def solve(n): return n * n"
CUBE = "def solve(n): return n ** 3"
RAISES = "def solve(n): raise ValueError(n)"
KILLED = "def solve(n): raise KeyboardInterrupt"
SYNTAX = "def solve(:"
HANGS = "def solve(n): return 'hang'"


def squares(n=3, **more):
    return Evaluation("solve", [Case((i,), expected=i * i) for i in range(n)], **more)


async def test_results_come_in_order_and_failures_stay_alone(async_engine, fake_workers):
    results = await async_engine.evaluate(
        [SQUARE, RAISES, CUBE, SYNTAX, KILLED, SQUARE], squares(), generation=3
    )
    assert [result.reason for result in results] == [None, "raised", None, "syntax", "fuel", None]
    assert [result.fitness_score for result in results] == [1.0, 0.0, 2 / 3, 0.0, 0.0, 1.0]
    assert [result.valid for result in results] == [True, False, True, False, False, True]
    assert {result.generation for result in results} == {3}
    assert results[0].fuel_used == 21
    assert results[3].test_results == ()
    assert fake_workers.last.count["compile"] == 5
    assert fake_workers.last.most_running <= fake_workers.last.slots
    assert await async_engine.list_sandboxes() == []


async def test_a_population_is_kept_with_its_lineage_and_fitness(async_engine):
    first = await async_engine.evaluate([SQUARE, SYNTAX], squares(), population="p")
    ids = [result.sandbox_id for result in first]
    await async_engine.evaluate(
        [CUBE, SQUARE, CUBE], squares(), population="p", generation=1, parents=[ids[0], ids, None]
    )
    states = await async_engine.list_sandboxes(population="p")
    assert [state.fitness for state in states] == [1.0, 0.0, 2 / 3, 1.0, 2 / 3]
    assert [state.mutation_type for state in states[2:]] == ["mutation", "crossover", "seed"]
    assert [state.lineage_depth for state in states[2:]] == [1, 1, 0]
    assert states[0].evaluated_at is not None
    assert states[1].status.value == "error"


async def test_nothing_is_kept_of_a_cancelled_evaluation(async_engine, fake_workers):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: async_engine.evaluate([SQUARE, HANGS], squares(), population="p"))
        await fake_workers.last.hanging.wait()
        nursery.cancel_scope.cancel()
    assert await async_engine.list_sandboxes() == []


async def test_too_large_a_population_is_refused_before_anything_runs(fake_workers):
    async with AsyncEngine(Config(default_max_processes=1), open_worker=fake_workers) as engine:
        with pytest.raises(CapacityError):
            await engine.evaluate([SQUARE, SQUARE], squares(), population="p")
        assert fake_workers.last.count["call"] == 0
        assert len(await engine.evaluate([SQUARE, SQUARE], squares())) == 2


async def test_a_case_is_encoded_once_and_seeded(async_engine, fake_workers):
    task = Evaluation("solve", [Case((1,), expected=1), Case((1,), expected=1, seed=9)], seed=5)
    await async_engine.evaluate([SQUARE, CUBE], task)
    jobs = fake_workers.last.jobs
    assert len({id(job.payload) for job in jobs}) == 2
    assert sorted(job.seed for job in jobs) == [5, 5, 9, 9]
    assert {job.session for job in jobs} == {None}


async def test_an_argument_that_cannot_be_sent_is_named(async_engine):
    task = Evaluation("solve", [Case((1,), expected=1), Case(({"a": [object()]},), expected=1, name="odd")])
    with pytest.raises(ConfigurationError, match=r"cases\[1\] \(odd\): args\[0\]\['a'\]\[0\] is"):
        await async_engine.evaluate([SQUARE], task)


async def test_one_fork_for_all_cases(async_engine, fake_workers):
    source = "n = 0\ndef solve(i):\n    global n\n    n += 1\n    return n"
    task = Evaluation("solve", [Case((0,), expected=i) for i in (1, 2, 3)], isolation="candidate")
    results = await async_engine.evaluate([source, source], task)
    assert [result.fitness_score for result in results] == [1.0, 1.0]
    assert fake_workers.last.sessions == {}
    assert len({job.session for job in fake_workers.last.jobs}) == 2


async def test_a_dead_fork_ends_a_candidate(async_engine):
    source = "def solve(i):\n    if i == 1: raise KeyboardInterrupt\n    return i"
    task = Evaluation("solve", [Case((i,), expected=i) for i in range(5)], isolation="candidate")
    (result,) = await async_engine.evaluate([source], task)
    assert (result.reason, len(result.test_results)) == ("fuel", 2)


async def test_stopping_at_the_first_failure(async_engine, fake_workers):
    (result,) = await async_engine.evaluate([CUBE], squares(10, stop="first_failure"))
    assert len(result.test_results) == 3
    assert result.fitness_score == 0.2
    (result,) = await async_engine.evaluate([CUBE], squares(10, stop=lambda so_far: len(so_far) == 5))
    assert len(result.test_results) == 5


async def test_total_fuel(async_engine):
    (result,) = await async_engine.evaluate([SQUARE], squares(5, total_limits=Limits(fuel=14)))
    assert [case.outcome.kind for case in result.test_results] == ["completed", "completed", "fuel"]
    assert "all cases together" in result.error


async def test_a_harness_is_compiled_apart(async_engine, fake_workers):
    harness = {"pack.py": "def run(n): return solve(n) + 1"}
    task = Evaluation("pack:run", [Case((3,), expected=10)], harness=harness)
    assert (await async_engine.evaluate_one(SQUARE, task)).fitness_score == 1.0
    assert fake_workers.last.jobs[0].harness is not None
    broken = Evaluation("pack:run", [Case((3,), expected=10)], harness={"pack.py": "def"})
    with pytest.raises(ConfigurationError, match="harness"):
        await async_engine.evaluate_one(SQUARE, broken)


async def test_a_deadline_leaves_the_finished_ones(async_engine, autojump_clock):
    autojump_clock.autojump_threshold = 0.2  # scoring is in a thread, of which the clock knows nothing
    results = await async_engine.evaluate([SQUARE, HANGS, HANGS, HANGS], squares(1), deadline_s=2.0)
    assert [result.reason for result in results] == [None, "timeout", "timeout", "timeout"]
    assert [result.deterministic for result in results] == [True, False, False, False]


async def test_a_deadline_cuts_scoring_too(async_engine, mock_clock):
    release = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def score(case, value):
        trio.from_thread.run_sync(mock_clock.jump, 2.0, trio_token=token)
        trio.from_thread.run(release.wait, trio_token=token)
        return 1.0

    (result,) = await async_engine.evaluate([SQUARE], squares(1, score=score), deadline_s=1.0)
    assert (result.reason, len(result.test_results)) == ("timeout", 1)
    release.set()


async def test_scoring_functions_run_one_at_a_time_outside_the_loop(async_engine):
    inside = 0

    def score(case, value):
        nonlocal inside
        inside += 1
        assert inside == 1
        with pytest.raises(RuntimeError):
            trio.lowlevel.current_task()
        inside -= 1
        return float(value)

    results = await async_engine.evaluate([SQUARE, CUBE, SQUARE], squares(score=score))
    assert [result.fitness_score for result in results] == [5 / 3, 3.0, 5 / 3]


async def test_scoring_that_always_raises_is_the_callers_error(async_engine):
    def score(case, value):
        raise LookupError("table")

    with pytest.raises(ScoringError, match="LookupError: table") as caught:
        await async_engine.evaluate([SQUARE, CUBE, SYNTAX], squares(1, score=score))
    assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(ScoringError):
        await async_engine.evaluate([SQUARE], squares(1, score=score))
    assert (await async_engine.evaluate_one(SQUARE, squares(1, score=score))).reason == "score"
    # One that came so far among others that did not proves nothing.
    results = await async_engine.evaluate([SQUARE, SYNTAX], squares(1, score=score))
    assert [result.reason for result in results] == ["score", "syntax"]


async def test_scoring_that_raises_for_some_is_data(async_engine):
    def score(case, value):
        return 1 / (value - 8)

    results = await async_engine.evaluate([CUBE, SQUARE], Evaluation("solve", [Case((2,))], score=score))
    assert [result.reason for result in results] == ["score", None]


async def test_progress_and_its_mistakes(async_engine):
    seen = []
    await async_engine.evaluate([SQUARE] * 3, squares(1), progress=lambda *args: seen.append(args[1:]))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    def broken(*_):
        raise LookupError("progress")

    with pytest.raises(LookupError):
        await async_engine.evaluate([SQUARE] * 3, squares(1), progress=broken)


class Interruption(BaseException):
    """What a test runner raises to end a test, say."""


@pytest.mark.parametrize("error", [Interruption, SystemExit])
@pytest.mark.parametrize("n_cases", [1, 3])
async def test_what_is_no_ordinary_exception_ends_the_batch_and_arrives_bare(async_engine, error, n_cases):
    def broken(*_):
        raise error("stop it all")

    asked = Evaluation("solve", [Case((2,))] * n_cases, score=broken)
    with pytest.raises(error, match="stop it all"):
        await async_engine.evaluate([SQUARE, CUBE], asked)
    with pytest.raises(error):
        await async_engine.evaluate([SQUARE, CUBE], squares(n_cases), progress=broken)
    with pytest.raises(error):
        await async_engine.evaluate([SQUARE, CUBE], squares(n_cases, stop=broken), population="p")

    async def stream():
        async with async_engine.as_completed([SQUARE, CUBE], asked) as results:
            async for _ in results:
                pass

    with pytest.raises(error):
        await stream()
    sandbox = await async_engine.create_sandbox(source=SQUARE)
    with pytest.raises(error):
        await async_engine.batch_evaluate([sandbox], broken)
    await sandbox.destroy()
    assert await async_engine.list_sandboxes() == []
    assert [result.valid for result in await async_engine.evaluate([SQUARE], squares())] == [True]


async def test_sources_and_parents_are_checked(async_engine):
    for wrong in (SQUARE, b"PK", {"program.py": ""}, 3):
        with pytest.raises(ConfigurationError, match="sources must be a list"):
            await async_engine.evaluate(wrong, squares())
    with pytest.raises(ConfigurationError, match="parents"):
        await async_engine.evaluate([SQUARE], squares(), population="p", parents=[])
    with pytest.raises(ConfigurationError, match="evaluation"):
        await async_engine.evaluate([SQUARE], "solve")
    assert await async_engine.evaluate([], squares()) == []
    (result,) = await async_engine.evaluate([{"../evil.py": ""}], squares())
    assert (result.reason, ".." in result.error) == ("load", True)


async def test_as_completed_takes_sources_when_there_is_room(async_engine):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield SQUARE

    seen = []
    async with async_engine.as_completed(endless(), squares(1)) as results:
        async for index, result in results:
            seen.append(index)
            assert result.valid
            if len(seen) == 10:
                break
    assert taken <= 10 + async_engine.slots + 2


async def test_as_completed_ends_and_reports(async_engine):
    async with async_engine.as_completed([SQUARE, SYNTAX], squares(1)) as results:
        found = dict([one async for one in results])
    assert {index: result.reason for index, result in found.items()} == {0: None, 1: "syntax"}


async def test_batch_evaluate_with_an_evaluation(async_engine):
    good = await async_engine.create_sandbox(source=SQUARE, generation=2)
    bad = await async_engine.create_sandbox(source=SYNTAX)
    results = await async_engine.batch_evaluate([good, bad.id], squares())
    assert [(result.sandbox_id, result.fitness_score) for result in results] == [
        (good.id, 1.0),
        (bad.id, 0.0),
    ]
    assert results[0].generation == 2
    assert (await good.get_info()).fitness == 1.0
    assert (await good.evaluate(squares())).valid


async def test_batch_evaluate_with_functions(async_engine):
    sandboxes = [await async_engine.create_sandbox(source=source) for source in (SQUARE, RAISES, CUBE)]

    def fitness(sandbox):
        return sandbox.run("solve", args=(3,)).unwrap()

    async def async_fitness(sandbox):
        return {"score": (await sandbox.run("solve", args=(2,))).unwrap()}

    plain = await async_engine.batch_evaluate(sandboxes, fitness)
    assert [(result.fitness_score, result.reason) for result in plain] == [
        (9, None),
        (0, "raised"),
        (27, None),
    ]
    in_loop = await async_engine.batch_evaluate(sandboxes, async_fitness)
    assert [result.fitness_score for result in in_loop] == [4, 0, 8]
    assert in_loop[0].components == {"score": 4.0}
    own = await async_engine.batch_evaluate(
        sandboxes[:1], lambda sandbox: FitnessResult(sandbox.id, 0, 5.0, valid=True)
    )
    assert own[0].fitness_score == 5.0
    # What another evaluation gave is this sandbox's fitness, and goes by its name.
    (foreign,) = await async_engine.batch_evaluate(
        sandboxes[:1], lambda sandbox: FitnessResult("another", 7, 6.0, valid=True)
    )
    assert (foreign.sandbox_id, foreign.generation) == (sandboxes[0].id, 0)
    assert async_engine.fitness.get(sandboxes[0].id).score == 6.0
    assert async_engine.fitness.get("another") is None
    with pytest.raises(ScoringError):
        await async_engine.batch_evaluate(sandboxes, lambda sandbox: 1 / 0)
    with pytest.raises(ConfigurationError):
        await async_engine.batch_evaluate(sandboxes, 3)


async def test_guest_notes(async_engine):
    text = await async_engine.guest_notes()
    assert "3.15.0" in text
    assert "numpy 2.5" in text


async def test_a_large_batch_keeps_order_and_never_has_more_in_the_worker_than_it_can_use(
    async_engine, fake_workers
):
    sources = [f"def solve(n): return n * {number}" for number in range(300)]
    task = Evaluation("solve", [Case((n,)) for n in range(20)], lambda case, value: value)
    results = await async_engine.evaluate(sources, task)
    assert [result.fitness_score for result in results] == [9.5 * number for number in range(300)]
    assert {len(result.test_results) for result in results} == {20}
    assert fake_workers.last.count == {"compile": 300, "call": 6_000}
    assert fake_workers.last.most_running <= fake_workers.last.slots
