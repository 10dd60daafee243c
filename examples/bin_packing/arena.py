"""Where programs are judged: evocell runs them in sandboxes, and the host checks every packing they claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import evocell

from .evolve import Individual, Verdict
from .problem import Instance, excess, or_instance, verify, weibull_instance

LIMITS = evocell.Limits(fuel=2_000_000_000, memory_bytes=64 << 20, timeout_s=20.0)
"""Of one call, which packs one instance: some fifty times the fuel that packing takes."""

TRAINING = tuple(weibull_instance(500, seed, label="train") for seed in range(2))
"""What evolution sees."""

HELD_OUT: Mapping[str, tuple[Instance, ...]] = {
    "Weibull": tuple(weibull_instance(2_000, seed, label="held-out") for seed in range(5)),
    "OR-Library": tuple(or_instance(1_000, seed, label="held-out") for seed in range(5)),
}
"""What the winner is measured on afterwards; no program is ever chosen by these."""

DEAD = 1e9
"""Score of a program that died: worse than any excess, so that failure can never win."""

_HARNESS = {"harness.py": Path(__file__).with_name("harness.py").read_text(encoding="utf-8")}


def packing_task(instances: Sequence[Instance], limits: evocell.Limits = LIMITS) -> evocell.Evaluation:
    """Return the evaluation that packs each instance and scores the mean excess; less is better.

    The host knows the instances by name and recounts each claimed packing; a forged one raises, and
    that is the end of its author.
    """
    by_name = {instance.name: instance for instance in instances}

    def score(case: evocell.Case, claim: Any) -> float:
        instance = by_name[case.name]
        return excess(instance, verify(instance, claim))

    return evocell.Evaluation(
        "harness:pack",
        [evocell.Case((list(one.items), one.capacity), name=one.name) for one in instances],
        score,
        harness=_HARNESS,
        limits=limits,
        stop="first_failure",
        directions=("minimize",),
        failure=DEAD,
    )


class Arena:
    """Judges programs on the training instances; call it with a generation and its newcomers."""

    def __init__(self, engine: evocell.Engine, instances: Sequence[Instance] = TRAINING) -> None:
        self._engine = engine
        self._instances = tuple(instances)
        self._task = packing_task(instances)

    def __call__(self, generation: int, newcomers: Sequence[Individual]) -> list[Verdict]:
        """Return one verdict for each newcomer, in order."""
        sources = [one.source for one in newcomers]
        results = self._engine.evaluate(sources, self._task, generation=generation)
        return [self._verdict(result) for result in results]

    def _verdict(self, result: evocell.FitnessResult) -> Verdict:
        if not result.valid:
            return Verdict(
                excess=None,
                fuel=result.fuel_used,
                death=result.reason or "unknown",
                detail=(result.error or "").splitlines()[0] if result.error else "",
            )
        return Verdict(
            excess=result.fitness_score,
            behaviour=bins_used(result, self._instances),
            fuel=result.fuel_used,
        )


def bins_used(result: evocell.FitnessResult, instances: Sequence[Instance]) -> tuple[int, ...]:
    """Return the verified number of bins for each instance of a valid result."""
    return tuple(
        verify(instance, case.outcome.unwrap())
        for instance, case in zip(instances, result.test_results, strict=True)
    )
