"""pymoo itself drives problems whose individuals run in sandboxes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import ElementwiseProblem
from pymoo.optimize import minimize

import evocell
from evocell.integrations.pymoo import SandboxProblem, SandboxRunner

EXAMPLE = "pymoo_sine"


def source(x) -> str:
    return f"def f():\n    a, b = {float(x[0])}, {float(x[1])}\n    return 1 / 0 if a < -0.5 else (a * a + b * b, a)"


TASK = evocell.Evaluation(
    "f",
    [evocell.Case()],
    lambda case, value: {"distance": value[0], "a": value[1]},
    directions=("minimize", "maximize"),
    failure=(1e9, -1e9),
)


def test_a_problem_minimises_negates_what_is_maximised_and_a_crash_is_worst(sandboxes):
    problem = SandboxProblem(sandboxes.evaluator(TASK, prepare=source), n_var=2, xl=-1.0, xu=1.0)
    found = problem.evaluate(np.array([[0.5, 0.0], [-1.0, 0.0], [-0.25, 0.5]]))
    assert found.tolist() == [[0.25, -0.5], [1e9, 1e9], [0.3125, 0.25]]


def test_a_run_never_keeps_a_crash(sandboxes):
    problem = SandboxProblem(sandboxes.evaluator(TASK, prepare=source), n_var=2, xl=-1.0, xu=1.0)
    result = minimize(problem, NSGA2(pop_size=8), ("n_gen", 4), seed=3)
    assert (result.X[:, 0] >= -0.5).all()
    assert copy.deepcopy(problem) is problem


def test_settings_that_contradict_the_evaluation_are_refused(sandboxes):
    ev = sandboxes.evaluator(TASK, prepare=source)
    with pytest.raises(evocell.ConfigurationError, match="n_obj is 3, but the evaluation has 2 directions"):
        SandboxProblem(ev, n_var=2, n_obj=3)
    with pytest.raises(evocell.ConfigurationError, match="leave elementwise out"):
        SandboxProblem(ev, n_var=2, elementwise=True)


def test_an_elementwise_problem_of_ones_own_runs_side_by_side(sandboxes):
    ev = sandboxes.evaluator(TASK, prepare=source)

    class Own(ElementwiseProblem):
        def __init__(self, runner):
            super().__init__(n_var=2, n_obj=1, xl=-0.5, xu=1.0, elementwise_runner=runner)

        def _evaluate(self, x, out, *args, **kwargs):
            out["F"] = ev(x)[0]

    points = np.array([[i / 10, 0.0] for i in range(6)])
    found = Own(SandboxRunner(sandboxes)).evaluate(points)
    assert found[:, 0] == pytest.approx(points[:, 0] ** 2)


def test_the_front_of_accuracy_and_fuel_is_the_same_on_repetition(sandboxes, example):
    first, again = (example.front(example.evolve(sandboxes, generations=3)) for _ in range(2))
    assert first == again
    assert example.digest(first) == example.digest(again)
    assert len(first) >= 3
    errors, fuels, programs = zip(*first, strict=True)
    assert sorted(errors, reverse=True) == list(errors)
    assert sorted(fuels) == list(fuels)
    assert len(set(programs)) == len(programs)


def test_the_front_is_drawn(sandboxes, example, tmp_path):
    example.plot(example.evolve(sandboxes, generations=2), tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


CONSTRAINED = evocell.Evaluation(
    "f",
    [evocell.Case()],
    lambda case, value: {
        "score": sum((v - 0.3) ** 2 for v in value),
        "over": sum(value) - 0.6,
        "off": value[0],
    },
    directions=("minimize",),
    failure=1e9,
)


def plain(x) -> str:
    return f"def f(): return {[float(part) for part in x]}"


def test_parts_of_the_score_are_constraints(sandboxes):
    ev = sandboxes.evaluator(
        CONSTRAINED, prepare=lambda x: plain(x) if x[0] < 0.9 else "def f(): return 1 / 0"
    )
    problem = SandboxProblem(ev, n_var=3, ieq_constr=("over",), eq_constr=("off",), xl=0.0, xu=1.0)
    assert (problem.n_ieq_constr, problem.n_eq_constr) == (1, 1)
    found = problem.evaluate(
        np.array([[0.0, 0.3, 0.3], [0.3, 0.3, 0.3], [1.0, 0.0, 0.0]]), return_as_dictionary=True
    )
    assert found["G"].ravel() == pytest.approx([0.0, 0.3, 1e30])
    assert found["H"].ravel() == pytest.approx([0.0, 0.3, 1e30])
    assert found["F"].ravel() == pytest.approx([0.09, 0.0, 1e9])
    result = minimize(
        SandboxProblem(sandboxes.evaluator(CONSTRAINED, prepare=plain), n_var=3, ieq_constr=("over",), xl=0.0, xu=1.0),
        NSGA2(pop_size=8), ("n_gen", 5), seed=1,
    )  # fmt: skip
    assert result.X.sum() <= 0.6


def test_constraints_that_nothing_gives_are_refused(sandboxes):
    ev = sandboxes.evaluator(CONSTRAINED, prepare=plain)
    with pytest.raises(evocell.ConfigurationError, match="ieq_constr names 0 parts of the score"):
        SandboxProblem(ev, n_var=3, n_ieq_constr=1, xl=0.0, xu=1.0)
    problem = SandboxProblem(ev, n_var=3, ieq_constr=("missing",), xl=0.0, xu=1.0)
    with pytest.raises(evocell.ConfigurationError, match="no part named 'missing'"):
        problem.evaluate(np.array([[0.1, 0.1, 0.1]]))
