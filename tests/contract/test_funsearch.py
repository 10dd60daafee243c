"""The contract of FunSearch's sandbox, as its published code and its forks call it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import evocell
from evocell.integrations.funsearch import Sandbox

# What DeepMind's code makes of a specification: the decorator of the first function stays, the others go.
PROGRAM = '''"""A specification."""
import numpy as np
import funsearch


@funsearch.run

def evaluate(n: int) -> float:
  """Score."""
  return float(sum(priority(i, n) for i in range(n)))


def priority(i: int, n: int) -> float:
  {body}
'''


@pytest.fixture
def sandbox(sandboxes):
    return Sandbox(limits=evocell.Limits(fuel=10**9), engine=lambda: sandboxes)


def program(body: str) -> str:
    return PROGRAM.replace("{body}", body)


def test_a_program_returns_its_value(sandbox):
    value, runs_ok = sandbox.run(program("return i * 2"), "evaluate", 4, 30)
    assert (value, runs_ok) == (12.0, True)
    assert isinstance(value, float)


def test_a_number_of_numpys_is_a_number(sandbox):
    value, runs_ok = sandbox.run("import numpy\ndef f(x): return x.sum()", "f", np.arange(4), 30)
    assert (value, runs_ok) == (6, True)
    assert isinstance(value, int)


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "return 1 / 0",
        "import os; os._exit(0)",
        "return [0] * 10**9",
        "return i +",
        "import socket",
    ],
)
def test_a_program_that_fails_runs_not_ok(sandbox, body):
    assert sandbox.run(program(body), "evaluate", 3, 30) == (None, False)
    assert sandbox.run(program("return 1"), "evaluate", 3, 30) == (3.0, True)


def test_the_timeout_is_kept(sandboxes):
    results = []
    sandbox = Sandbox(engine=lambda: sandboxes, on_result=results.append)
    assert sandbox.run(program("while True: pass"), "evaluate", 3, 0.2) == (None, False)
    assert results[0].reason == "timeout"
    assert "limit" in results[0].artifacts()


def test_a_function_that_is_not_there_runs_not_ok(sandbox):
    assert sandbox.run(program("return 1"), "solve", 3, 30) == (None, False)


def test_an_input_that_cannot_be_sent_is_the_callers_mistake(sandbox):
    with pytest.raises(evocell.ConfigurationError, match=r"cases\[0\]"):
        sandbox.run(program("return 1"), "evaluate", object(), 30)


def test_nothing_is_left_from_one_run_to_the_next(sandbox):
    counting = "state = []\ndef f(n):\n    state.append(n)\n    return len(state)"
    assert [sandbox.run(counting, "f", 1, 30) for _ in range(2)] == [(1, True), (1, True)]


def test_the_seed_decides_what_is_random(sandboxes):
    source = "import random\ndef f(n): return random.random()"
    one, other = (Sandbox(seed=seed, engine=lambda: sandboxes).run(source, "f", 1, 30) for seed in (1, 2))
    assert one != other
    assert one == Sandbox(seed=1, engine=lambda: sandboxes).run(source, "f", 1, 30)


def test_what_forks_give_their_own_sandboxes_is_taken_and_ignored():
    assert isinstance(pickle.loads(pickle.dumps(Sandbox("/tmp/logs", 30, python_path="python"))), Sandbox)
