"""Blocking methods made from async ones: what help, signatures and type checkers show of them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import evocell
from evocell import AsyncEngine, AsyncSandbox, Engine, Sandbox

ASYNC_ONLY = {"aclose", "open_stream", "shows_batches"}
WRITTEN_OUT = {"as_completed", "evaluator"}


def methods(kind, other):
    """Names of the public methods that two classes have in common."""
    return [
        name
        for name in dir(kind)
        if not name.startswith("_") and inspect.isfunction(getattr(kind, name)) and hasattr(other, name)
    ]


ENGINE = [(Engine, AsyncEngine, name) for name in methods(Engine, AsyncEngine) if name not in WRITTEN_OUT]
SANDBOX = [(Sandbox, AsyncSandbox, name) for name in methods(Sandbox, AsyncSandbox)]


def test_the_blocking_classes_have_every_method_of_the_async_ones():
    for kind, other in ((Engine, AsyncEngine), (Sandbox, AsyncSandbox)):
        assert {name for name in dir(other) if not name.startswith("_")} - set(dir(kind)) <= ASYNC_ONLY
    assert len(ENGINE) > 50
    assert len(SANDBOX) == 13


@pytest.mark.parametrize(
    ("kind", "other", "name"),
    ENGINE + SANDBOX,
    ids=[f"{one[0].__name__}.{one[2]}" for one in ENGINE + SANDBOX],
)
def test_each_is_the_async_one_but_for_waiting(kind, other, name):
    blocking, waited = getattr(kind, name), getattr(other, name)
    signature, expected = inspect.signature(blocking), inspect.signature(waited)
    assert inspect.iscoroutinefunction(waited)
    assert not inspect.iscoroutinefunction(blocking)
    assert signature.parameters == expected.parameters
    assert signature.return_annotation == expected.return_annotation.replace("AsyncSandbox", "Sandbox")
    assert blocking.__annotations__["return"] == signature.return_annotation
    assert blocking.__doc__ == waited.__doc__
    assert (blocking.__name__, blocking.__qualname__) == (name, f"{kind.__name__}.{name}")
    assert blocking.__module__ == kind.__module__


@pytest.mark.parametrize("kind", [Engine, Sandbox, AsyncEngine, AsyncSandbox])
def test_no_text_refers_the_reader_to_another_method_for_all_it_says(kind):
    texts = {
        name: inspect.getdoc(getattr(kind, name)) or ""
        for name in dir(kind)
        if name[0] != "_" and name != "id"
    }
    assert not [name for name, text in texts.items() if not text]
    assert not [name for name, text in texts.items() if "see `Async" in text or "see `Engine" in text]


def test_a_sandboxs_method_is_its_engines_without_the_sandbox():
    assert list(inspect.signature(Sandbox.run).parameters)[:3] == ["self", "entry", "args"]
    assert "sandbox:" not in Sandbox.run.__doc__
    assert "entry: The function" in Sandbox.run.__doc__
    assert "sandbox: " in Engine.run.__doc__
    assert "Args:" not in Sandbox.destroy.__doc__


def test_the_module_function_is_the_engines_method():
    assert inspect.signature(evocell.evaluate).parameters == {
        name: one for name, one in inspect.signature(Engine.evaluate).parameters.items() if name != "self"
    }
    assert evocell.evaluate.__doc__.startswith("Evaluate many sources with the default engine.\n")


def test_help_names_what_is_asked_about():
    text = subprocess.run(
        [sys.executable, "-c", "import evocell; help(evocell.Engine.create_sandbox)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "create_sandbox in module evocell.api.engine" in text
    assert "source: 'Source | None' = None" in text
    assert "-> 'Sandbox'\n" in text
    assert "Rejected code (for example a syntax error)" in text
    assert "Async" not in text


def test_arguments_that_do_not_fit_are_refused_by_the_name_of_the_method(fake_engine):
    sandbox = fake_engine.create_sandbox(source="def f(): return 1")
    with pytest.raises(TypeError, match=r"^Engine\.run\(\) got an unexpected keyword argument 'sed'$"):
        fake_engine.run(sandbox, "f", sed=1)
    with pytest.raises(TypeError, match=r"^Sandbox\.run\(\) missing a required argument: 'entry'$"):
        sandbox.run()


def test_a_type_error_of_the_callers_own_function_is_raised_as_it_is(fake_engine):
    def progress(*_):
        return "a" + 1

    with pytest.raises(TypeError, match="can only concatenate"):
        fake_engine.batch_create([evocell.SandboxSpec(source="def f(): return 1")], progress=progress)


PROGRAM = """
import evocell
def use(engine: evocell.Engine, task: evocell.Evaluation) -> None:
    box = engine.create_sandbox(source="")
    reveal_type(box)
    reveal_type(engine.best("p"))
    reveal_type(box.fork())
    reveal_type(box.run("f", args=(1,)))
    reveal_type(engine.evaluate([""], task))
    reveal_type(evocell.evaluate([""], task))
    engine.run(box, "f", sed=1)
    engine.run(3, "f")
    engine.batch_fork(box)
    box.run(5)
    box.hot_reload_source(5)
async def use_async(engine: evocell.AsyncEngine) -> None:
    box = await engine.create_sandbox()
    reveal_type(await box.run("f"))
    await box.run("f", sed=1)
"""
REVEALED = [
    "evocell.api.sandbox.Sandbox",
    "list[evocell.api.sandbox.Sandbox]",
    "evocell.api.sandbox.Sandbox",
    "evocell.models.outcome.Outcome",
    "list[evocell.models.fitness.FitnessResult]",
    "list[evocell.models.fitness.FitnessResult]",
    "evocell.models.outcome.Outcome",
]


@pytest.mark.slow
def test_a_type_checker_sees_the_signatures_and_the_blocking_results(tmp_path):
    root = Path(__file__).parents[3]
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    options = ["--strict", "--no-pretty", "--config-file", str(root / "pyproject.toml")]
    lines = subprocess.run(  # noqa: PLW1510 - it is to find errors
        [sys.executable, "-m", "mypy", *options, file], capture_output=True, text=True, cwd=root
    ).stdout.splitlines()
    revealed = [line.partition('Revealed type is "')[2].rstrip('"') for line in lines if "Revealed" in line]
    assert [one.replace("builtins.", "") for one in revealed] == REVEALED
    wrong = [line.split(":")[1] for line in lines if "error:" in line]
    assert wrong == ["11", "12", "13", "14", "15", "19"], lines
