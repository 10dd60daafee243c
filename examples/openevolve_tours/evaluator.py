"""The same evaluation, scored on the host: the program sees towns and nothing else."""

from __future__ import annotations

from typing import Any

from towns import score, towns

import evocell
from evocell.integrations.openevolve import evaluators


def shortness(case: evocell.Case, order: Any) -> float:
    """Score one tour; what is no tour makes the program invalid."""
    return float(score(case.args[0], order))


def task(seeds: range, fuel: int) -> evocell.Evaluation:
    """Make an evaluation of tours through several sets of towns."""
    return evocell.Evaluation(
        "tour",
        [evocell.Case((towns(seed),), name=f"towns {seed}") for seed in seeds],
        shortness,
        isolation="candidate",
        stop="first_failure",
        limits=evocell.Limits(fuel=fuel),
    )


evaluate, evaluate_stage1, evaluate_stage2 = evaluators(
    task(range(8), fuel=2 * 10**9), stages=[task(range(1), fuel=10**9), task(range(8), fuel=2 * 10**9)]
)
