"""What editors and type checkers see of the API: types that say what is taken, and no internals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import evocell
from evocell import Case, ConfigurationError, Evaluation, SandboxNotFound

TASK = Evaluation("f", [Case(())], lambda case, value: value)
PROGRAM = """
from collections.abc import Iterator
import evocell

def cases() -> Iterator[evocell.Case]:
    yield evocell.Case((3,), expected=9)

task = evocell.Evaluation("solve", cases())
task = evocell.Evaluation("solve", [evocell.Case((3,), expected=9)], directions=["minimize"], failure=1e9)
task = evocell.Evaluation(entry="solve", cases=(evocell.Case((3,), expected=9),))

def use(engine: evocell.Engine) -> None:
    plain = engine.evaluator(task)
    reveal_type(plain)
    reveal_type(plain(""))
    reveal_type(engine.evaluator(task, finish=lambda result: result.fitness_score)(""))
    engine.create_population("p", direction="minimize")
    reveal_type(engine.fitness.best()[0].score)
    reveal_type(evocell.best(engine.evaluate([""], task)))
    reveal_type(evocell.__version__)

async def use_async(engine: evocell.AsyncEngine) -> None:
    reveal_type(await engine.evaluator(task, finish=lambda result: result.valid)(""))
"""
REVEALED = [
    "evocell.api.evaluator.Evaluator[tuple[float, ...]]",
    "tuple[float, ...]",
    "float",
    "float | None",
    "evocell.models.tables.Results",
    "str",
    "bool",
]
WRONG = """
import evocell
evocell.Evaluation(3, [evocell.Case()])
evocell.Evaluation("f", 3)
evocell.Evaluation("f", [1])
evocell.Evaluation("f", [evocell.Case()], directions=("up",))
def use(engine: evocell.Engine) -> None:
    engine.create_population("p", direction="up")
    engine.fitness.best(direction="up")
"""


def check(tmp_path, program) -> list[str]:
    file = tmp_path / "program.py"
    file.write_text(program)
    root = Path(__file__).parents[3]
    run = subprocess.run(  # noqa: PLW1510 - it may find errors
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-pretty",
            "--config-file",
            str(root / "pyproject.toml"),
            file,
        ],
        capture_output=True,
        text=True,
        cwd=root,
    )
    return run.stdout.splitlines()


@pytest.mark.slow
def test_a_type_checker_knows_what_is_taken_and_returned(tmp_path):
    lines = check(tmp_path, PROGRAM)
    revealed = [line.partition('Revealed type is "')[2].rstrip('"') for line in lines if "Revealed" in line]
    assert [one.replace("builtins.", "") for one in revealed] == REVEALED
    assert not [line for line in lines if "error:" in line], lines
    wrong = [line for line in check(tmp_path, WRONG) if "error:" in line]
    assert len(wrong) == 6, wrong


def test_the_version_is_there():
    assert evocell.__version__ == "0.1.0"
    assert "__version__" in dir(evocell)


@pytest.mark.parametrize("kind", ["module", "engine", "sandbox", "evaluator"])
def test_completion_shows_no_internals(fake_engine, kind):
    things = {
        "module": evocell,
        "engine": fake_engine,
        "sandbox": fake_engine.create_sandbox(),
        "evaluator": fake_engine.evaluator(TASK),
    }
    shown = [name for name in dir(things[kind]) if not name.startswith("__")]
    assert shown
    assert not [name for name in shown if name.startswith("_")]
    if kind == "module":
        assert set(shown) == {one for one in evocell.__all__ if not one.startswith("__")}
    if kind == "engine":
        assert {"evaluate", "fitness", "close", "telemetry"} <= set(shown)


@pytest.mark.parametrize("population", [None, "p"])
@pytest.mark.parametrize("parents", [["ghost"], [("ghost", "seed")], [["seed", "ghost"]]])
def test_parents_that_never_were_are_refused_everywhere(fake_engine, parents, population):
    fake_engine.create_sandbox("seed")
    source = "def f(): return 1"
    before = len(fake_engine.list_sandboxes())
    for evaluate in (
        lambda: fake_engine.evaluate([source], TASK, population=population, parents=parents),
        lambda: fake_engine.evaluate_one(source, TASK, population=population, parents=parents[0]),
        lambda: fake_engine.evaluate_stages(
            [source], [evocell.Stage(TASK)], population=population, parents=parents
        ),
    ):
        with pytest.raises(SandboxNotFound, match="ghost"):
            evaluate()
    assert len(fake_engine.list_sandboxes()) == before
    assert fake_engine.evaluate([source], TASK, parents=["seed"])[0].valid


def test_cases_may_be_any_iterable():
    assert len(Evaluation("f", (Case((n,), expected=n) for n in range(3))).cases) == 3
    with pytest.raises(ConfigurationError, match="cases must be"):
        Evaluation("f", 3)
