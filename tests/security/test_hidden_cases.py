"""What a candidate did in hidden cases changes no byte of what the author of the next variant is shown."""

from __future__ import annotations

import json
from threading import Event

import pytest

from evocell import Case, Evaluation, Limits, Stage
from evocell.integrations import shinka
from evocell.integrations.futures import SandboxExecutor
from evocell.integrations.openevolve import evaluators
from evocell.pipe.blocking import Client

LIMITS = Limits(fuel=150_000_000, memory_bytes=32 << 20, output_bytes=10_000, timeout_s=60)

LEAKY = """
import sys
seen = []

def public(x):
    print("saw", seen)
    return x * 2

def hidden(x):
    kind, secret = x
    seen.append(x)
    if kind == "burn":
        for _ in range(secret * 1000): pass
    if kind == "allocate":
        kept = bytearray(secret * 100_000); kept[::4096] = b"x" * len(kept[::4096])
    if kind == "raise":
        raise ValueError(secret)
    if kind == "endless":
        while True: pass
    if kind == "exhaust":
        kept = [bytearray(1 << 20) for _ in range(1000)]
    if kind == "recurse":
        return hidden(x) + 1
    if kind == "die":
        import os; os._exit(secret)
    if kind == "flood":
        print("z" * secret * 1000, flush=True)
    if kind == "patch":
        global public
        public = lambda x: x / 0
        import builtins; builtins.print = None
    if kind == "huge":
        return [0] * 10_000_000
    return secret

def f(x):
    return hidden(x) if isinstance(x, tuple) else public(x)
"""
FAILING = LEAKY.replace("return x * 2", "raise ValueError(x, seen)")
WRONG = LEAKY.replace("return x * 2", "return [x, seen]")
PROGRAMS = {"passes": LEAKY, "raises": FAILING, "is wrong": WRONG}

SECRETS = [
    *[(kind, 1) for kind in ("good", "raise", "endless", "exhaust", "recurse", "die", "patch", "huge")],
    *[("burn", n) for n in (10, 1000)],
    *[("allocate", n) for n in (10, 100)],
    *[("flood", n) for n in (1, 9, 90)],
]


def variants():
    """Lists of cases that differ in the hidden ones only: what is in them, how many, where, and their names."""
    shown = [Case((1,), expected=2), Case((2,), expected=4, name="named"), Case((3,), expected=6)]
    for secret in SECRETS:
        one = Case((secret,), expected=1, public=False)
        yield [one, *shown]
        yield [shown[0], one, *shown[1:], one]
    several = [
        Case((secret,), expected=7, name=f"h{n}", public=False) for n, secret in enumerate(SECRETS[:4])
    ]
    yield [*several, *shown]


def coarse(case, value):
    if not case.public and value == 1000:
        raise ValueError(f"not {case.expected}")
    return {"right": float(value == case.expected), "size": float(isinstance(value, int) and value)}


def worst(cases):
    if any(case.outcome.unwrap() == 10 for case in cases):
        raise ValueError(cases)
    return min(float(case.passed) for case in cases)


SETUPS = {
    "forks": {},
    "one fork": {"isolation": "candidate"},
    "first failure": {"stop": "first_failure"},
    "a stop of one's own": {"stop": lambda cases: not cases[-1].outcome.ok},
    "total fuel": {"total_limits": LIMITS.evolve(fuel=200_000_000)},
    "total output": {"total_limits": LIMITS, "isolation": "candidate"},
    "parts": {"score": coarse},
    "parts of one fork": {"score": coarse, "isolation": "candidate", "stop": "first_failure"},
    "an aggregate of one's own": {"aggregate": worst},
}


def told(result):
    lengths = (4000, 700, 200, 60, 10)
    return json.dumps([[result.feedback(length) for length in lengths], result.artifacts()])


def everything_in_process_and_each_over_processes():
    """Feedback is written in this process: with workers, each setup once, and each program three times."""
    for number, setup in enumerate(SETUPS):
        for place, program in enumerate(PROGRAMS):
            yield pytest.param(0, program, setup, id=f"in-process-{program}-{setup}")
            if number % len(PROGRAMS) == place:
                yield pytest.param(2, program, setup, id=f"processes-{program}-{setup}")


@pytest.mark.parametrize(
    ("engine", "program", "setup"),
    [*everything_in_process_and_each_over_processes()],
    indirect=["engine"],
    scope="session",
)
def test_feedback_and_artifacts(engine, program, setup):
    texts = set()
    for cases in variants():
        task = Evaluation("f", cases, **{"limits": LIMITS, "memoise": False, **SETUPS[setup]})
        result = engine.evaluate_one(PROGRAMS[program], task)
        indices = [case.index for case in result.test_results]
        assert indices == sorted(indices)
        texts.add(told(result))
    assert len(texts) == 1, texts
    assert "named" in texts.pop() or setup in {"first failure", "a stop of one's own", "parts of one fork"}


def test_results_stay_in_the_callers_order(engine):
    cases = [Case((n,), expected=n, public=n % 2 == 0) for n in range(5)]
    for isolation in ("case", "candidate"):
        task = Evaluation("f", cases, isolation=isolation)
        result = engine.evaluate_one("seen = []\ndef f(n):\n  seen.append(n)\n  return n, seen", task)
        assert [case.index for case in result.test_results] == [0, 1, 2, 3, 4]
        assert [case.outcome.unwrap()[0] for case in result.test_results] == [0, 1, 2, 3, 4]
    # In one fork, the public ones were run before all others.
    assert [case.outcome.unwrap()[1] for case in result.test_results][:3] == [[0], [0, 2, 4, 1], [0, 2]]


def test_stages_that_share_a_budget(engine):
    texts = set()
    total = LIMITS.evolve(fuel=200_000_000)
    for n in (1, 100, 300):
        first = Evaluation("f", [Case((("burn", n),), expected=n, public=False)], limits=LIMITS)
        second = Evaluation("f", [Case((n,), expected=0) for n in range(4)], limits=LIMITS)
        program = LEAKY.replace("return x * 2", "\n    for _ in range(400_000): pass")
        (found,) = engine.evaluate_stages([program], [Stage(first), Stage(second)], total_limits=total)
        assert found.stage == 1
        texts.add(told(found.result))
    assert len(texts) == 1, texts
    assert "fuel of all cases together" in texts.pop()


@pytest.mark.parametrize("isolation", ["case", "candidate"])
def test_head_to_head(engine, isolation):
    texts = set()
    for cases in variants():
        task = Evaluation("f", cases, limits=LIMITS, isolation=isolation)
        found = engine.head_to_head(WRONG, FAILING, task)
        assert [duel.first.index for duel in found.duels] == list(range(len(cases)))
        texts.add(told(found.first) + told(found.second))
    assert len(texts) == 1, texts


def test_a_deadline_that_passes_in_a_hidden_case(engine):
    texts = set()
    for secret, deadline_s in (("good", None), ("endless", 1.2)):
        cases = [Case(((secret, 1),), expected=1, public=False), Case((1,), expected=2)]
        task = Evaluation("f", cases, isolation="candidate", limits=LIMITS.evolve(fuel=10**12))
        result = engine.evaluate_one(LEAKY, task, deadline_s=deadline_s)
        assert result.valid is (secret == "good")
        texts.add(told(result))
    assert len(texts) == 1, texts


def test_a_deadline_that_passes_while_a_hidden_case_is_scored(engine):
    texts = set()
    for waits, deadline_s in ((False, None), (True, 1.2)):
        release = Event()

        def score(case, value, waits=waits, release=release):
            if waits and not case.public:
                release.wait(60)
            return float(value == case.expected)

        cases = [Case((("good", 1),), expected=1, public=False), Case((1,), expected=2)]
        result = engine.evaluate_one(
            LEAKY, Evaluation("f", cases, score, limits=LIMITS), deadline_s=deadline_s
        )
        release.set()
        assert result.valid is not waits
        texts.add(told(result))
    assert len(texts) == 1, texts
    assert "1, 0 failed" in texts.pop()


@pytest.mark.parametrize("program", PROGRAMS)
def test_openevolve(engine, tmp_path, program):
    path = tmp_path / "program.py"
    path.write_text(PROGRAMS[program])
    texts = set()
    for cases in variants():
        (evaluate,) = evaluators(Evaluation("f", cases, limits=LIMITS), engine=lambda: engine)
        found = evaluate(str(path))
        texts.add(json.dumps([found.artifacts, found.metrics["fuel_used"]]))
    assert len(texts) == 1, texts


@pytest.mark.parametrize("program", PROGRAMS)
def test_shinka(engine, tmp_path, capsys, program):
    path = tmp_path / "program.py"
    path.write_text(PROGRAMS[program])
    texts = set()
    for cases in variants():
        task = Evaluation("f", cases, coarse, limits=LIMITS)
        words = ["--program_path", str(path), "--results_dir", str(tmp_path)]
        shinka.main(task, words, engine=lambda: engine)
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        error = json.loads((tmp_path / "correct.json").read_text())["error"]
        shown = [metrics["text_feedback"], metrics["public"], error, capsys.readouterr().out]
        texts.add(json.dumps(shown))
    assert len(texts) == 1, texts


def test_a_scoring_function_that_quotes_what_it_expected(engine, tmp_path, capsys):
    """What it says of public cases is shown, as what it says beside a score; of hidden ones nothing is."""
    path = tmp_path / "program.py"
    path.write_text("def f(x): return 1")

    def quoting(case, value):
        raise KeyError(case.expected)

    for first_public in (True, False):
        cases = [
            Case((1,), expected="SHOWN" if first_public else "SECRET", public=first_public),
            Case((2,), expected="SECRET", public=False),
        ]
        task = Evaluation("f", cases, quoting)
        (evaluate,) = evaluators(task, engine=lambda: engine)
        shinka.main(
            task, ["--program_path", str(path), "--results_dir", str(tmp_path)], engine=lambda: engine
        )
        metrics, correct = (tmp_path / f"{name}.json" for name in ("metrics", "correct"))
        shown = told(engine.evaluate_one("def f(x): return 1", task))
        shown += json.dumps(evaluate(str(path)).artifacts) + capsys.readouterr().out
        shown += metrics.read_text() + correct.read_text()
        assert "SECRET" not in shown
        assert ("SHOWN" in shown) == first_public
        assert ("KeyError" in shown) == first_public


@pytest.mark.parametrize("program", PROGRAMS)
def test_futures_and_maps(engine, program):
    texts = set()
    with SandboxExecutor() as executor:
        for cases in variants():
            evaluator = engine.evaluator(Evaluation("f", cases, limits=LIMITS), finish=told)
            texts.add(executor.submit(evaluator, PROGRAMS[program]).result())
            texts.add(evaluator.map(evaluator, [PROGRAMS[program]])[0])
    assert len(texts) == 1, texts


def test_through_a_pipe():
    texts = set()
    with Client.spawn("--workers", "1") as client:
        for cases in variants():
            task = Evaluation("f", cases, limits=LIMITS, stop="first_failure")
            result = client.evaluate_one(FAILING, task)
            assert not result.all_public
            texts.add(told(result))
    assert len(texts) == 1, texts


def test_refused_as_a_whole(engine):
    texts = set()
    for cases in variants():
        result = engine.evaluate_one("def f(", Evaluation("f", cases))
        texts.add(told(result))
    assert len(texts) == 1, texts
    assert "syntax" in texts.pop()
