"""Whole batches: 100 and 1,000 candidates, with nothing, some numpy and 50 ms of Python to do for each."""

from __future__ import annotations

from itertools import count
from typing import Literal

import evocell
from measures.baseline import Baseline
from measures.report import Report, timed
from measures.tasks import NUMPY, TRIVIAL, WORK, Task

_texts = count()
"""A number for each candidate: no two may be equal, so that each of them is compiled."""

_SIZES: tuple[tuple[Task, int, int, Literal["case", "batch"]], ...] = (
    (TRIVIAL, 100, 12, "case"),
    (TRIVIAL, 1_000, 3, "case"),
    (TRIVIAL, 1_000, 3, "batch"),
    (NUMPY, 100, 6, "case"),
    (NUMPY, 1_000, 2, "case"),
    (WORK, 100, 2, "case"),
)


def measure(report: Report, baseline: Baseline, engine: evocell.Engine) -> None:
    """Time `Engine.evaluate` over candidates that all differ.

    Args:
        report: Where the rows go.
        baseline: What they are compared with, one for each candidate.
        engine: An engine that has nothing else to do.
    """
    for task, size, readings, isolation in _SIZES:
        case = evocell.Case((task.argument,), expected=task.expected)
        evaluation = evocell.Evaluation("solve", [case], isolation=isolation)
        taken_s: list[float] = []
        for _ in range(1 if report.quick else max(1, round(readings / report.n_rounds))):
            candidates = [f"{task.source}\n# {next(_texts)}\n" for _ in range(size)]
            results = timed(taken_s, engine.evaluate, candidates, evaluation)
            assert all(result.valid and result.fitness_score == 1.0 for result in results), results[0]
        report.times(
            f"engine: evaluate {size:,} candidates, {task.name}{', sharing forks' * (isolation == 'batch')}",
            taken_s,
            baseline_s=None if task is WORK else baseline.call_s,
            each=size,
        )
