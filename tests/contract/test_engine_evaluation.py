"""Evaluations over the real worker: values, scoring, determinism, harnesses, the trio twin."""

import numpy as np
import pytest

import evocell
from evocell import AsyncEngine, Case, Config, Evaluation, Limits

SQUARE = "def solve(n): return n * n"
LIMITS = Limits(fuel=2_000_000_000)


def squares(n=3, **more):
    return Evaluation("solve", [Case((i,), expected=i * i) for i in range(n)], limits=LIMITS, **more)


def test_the_first_example(engine):
    sources = [SQUARE, "def solve(n):\n    while True: pass", "def solve(n): return n", "def solve("]
    results = engine.evaluate(sources, squares())
    assert [result.fitness_score for result in results] == [1.0, 0.0, 2 / 3, 0.0]
    assert [result.reason for result in results] == [None, "fuel", None, "syntax"]
    assert results[0].fuel_used > 0


def test_the_same_evaluation_gives_the_same_result_and_fuel(engine):
    source = (
        "import random, hashlib, time, os\nimport numpy as np\n"
        "def solve(n):\n"
        "    marks = {str(random.random()), str(np.random.rand()), os.urandom(4).hex(), str(time.time())}\n"
        "    print(marks)\n"
        "    return [sorted(marks), hash('x'), id(marks), list(marks)]"
    )
    task = Evaluation("solve", [Case((i,)) for i in range(3)], score=lambda case, value: 1.0, seed=7)
    first, second, other_batch = engine.evaluate([source, source, source], task)
    assert first.test_results == second.test_results == other_batch.test_results
    assert first.fuel_used == second.fuel_used == engine.evaluate_one(source, task).fuel_used
    with evocell.Engine(Config.load(threads=1)) as again:
        assert again.evaluate_one(source, task).test_results == first.test_results


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1,
        2**200,
        1.5,
        float("nan"),
        "ü\0",
        b"\xff",
        [1, [2.0]],
        (1, (2,)),
        {1, 2},
        frozenset({"a"}),
        {"a": {1: (None,)}},
        1 + 2j,
        np.arange(6, dtype="float32").reshape(2, 3),
        np.array([1 + 1j]),
        np.array(["a", "bc"]),
        [0.5] * 100,
        list(range(100)),
    ],
    ids=repr,
)
def test_values_come_back_as_they_went_in(engine, value):
    task = Evaluation("echo", [Case((value,), expected=value)])
    result = engine.evaluate_one("def echo(value): return value", task)
    assert result.fitness_score == 1.0, result.test_results[0].error
    assert type(result.test_results[0].outcome.unwrap()) is type(value)


def test_numpy_in_and_out(engine):
    source = "import numpy as np\ndef solve(a): return np.asarray(a) @ a.T, a.dtype.str, float(a.sum())"
    matrix = np.random.default_rng(1).random((4, 3))
    with engine.create_sandbox(source=source) as sandbox:
        product, dtype, total = sandbox.run("solve", args=(matrix,)).unwrap()
    np.testing.assert_allclose(product, matrix @ matrix.T)
    assert (dtype, total) == (matrix.dtype.str, pytest.approx(matrix.sum()))


def test_close_scoring(engine):
    task = Evaluation("third", [Case(expected=[1 / 3])], score="close")
    assert engine.evaluate_one("def third(): return [0.33333333]", task).fitness_score == 1.0
    assert engine.evaluate_one("def third(): return [0.333]", task).fitness_score == 0.0


def test_a_harness_drives_the_candidate_inside_the_guest(engine):
    harness = {"drive.py": "import program\ndef total(n): return sum(program.solve(i) for i in range(n))"}
    task = Evaluation("drive:total", [Case((100,), expected=328350)], harness=harness, limits=LIMITS)
    good, broken = engine.evaluate([SQUARE, "def solve(n): raise ValueError(n)"], task)
    assert good.fitness_score == 1.0
    assert (broken.reason, "ValueError" in broken.error) == ("raised", True)


def test_one_fork_per_candidate_or_per_case(engine):
    source = "n = 0\ndef solve(i):\n    global n\n    n += 1\n    return n"
    cases = [Case((0,), expected=1), Case((0,), expected=2)]
    assert engine.evaluate_one(source, Evaluation("solve", cases)).fitness_score == 0.5
    shared = Evaluation("solve", cases, isolation="candidate")
    assert engine.evaluate_one(source, shared).fitness_score == 1.0


def test_total_limits_stop_a_candidate(engine):
    source = "def solve(n):\n    for _ in range(200_000): pass\n    return n * n"
    one = engine.evaluate_one(source, squares(1))
    total = Limits(fuel=int(one.fuel_used * 2.5))
    result = engine.evaluate_one(source, squares(5, total_limits=total))
    assert [case.outcome.kind for case in result.test_results] == ["completed", "completed", "fuel", "fuel"][
        : len(result.test_results)
    ]
    assert result.reason == "fuel"
    assert result.fuel_used <= total.fuel


def test_hidden_cases_stay_out_of_the_feedback(engine):
    cases = [Case((1,), expected=1, name="shown"), Case((2,), expected=4, name="secret", public=False)]
    result = engine.evaluate_one(
        "def solve(n):\n    print('n is', n)\n    return 0", Evaluation("solve", cases)
    )
    text = result.feedback()
    assert "shown" in text
    assert "secret" not in text
    assert "n is 2" not in text


def test_a_steady_state_loop(engine):
    queue = [SQUARE, "def solve(n): return n", SQUARE]
    found = dict(engine.as_completed(iter(queue), squares()))
    assert {index: result.fitness_score for index, result in found.items()} == {0: 1.0, 1: 2 / 3, 2: 1.0}


def test_guest_notes_name_the_interpreter_and_numpy(engine):
    text = engine.guest_notes()
    assert "CPython 3.15" in text
    assert "numpy 2" in text


@pytest.mark.trio
async def test_the_trio_twin():
    async with AsyncEngine(Config.load()) as engine:
        results = await engine.evaluate([SQUARE, "def solve("], squares(), population="p")
        assert [result.reason for result in results] == [None, "syntax"]
        async with await engine.create_sandbox(source=SQUARE) as sandbox:
            assert (await sandbox.run("solve", args=(3,))).unwrap() == 9
            (scored,) = await engine.batch_evaluate(
                [sandbox], lambda box: box.run("solve", args=(2,)).unwrap()
            )
            assert scored.fitness_score == 4.0
        assert len(await engine.list_sandboxes()) == 2
