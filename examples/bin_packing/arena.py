"""Where programs are judged: evocell runs them in sandboxes, and the host checks every packing they claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import evocell

from .evolve import Individual, Verdict
from .problem import Instance, excess, or_instance, verify, weibull_instance

LIMITS = evocell.Limits(fuel=2_000_000_000, memory_bytes=64 << 20, timeout_s=60.0)
"""Of one call, which packs one instance: some twenty times the fuel that packing takes.

The time is a backstop that only a very slow machine could meet; what stops an endless loop is the fuel.
"""

TRAINING = tuple(weibull_instance(500, seed, label="train") for seed in range(2))
"""What evolution sees."""

HELD_OUT: Mapping[str, tuple[Instance, ...]] = {
    "Weibull": tuple(weibull_instance(2_000, seed, label="held-out") for seed in range(5)),
    "OR-Library style": tuple(or_instance(1_000, seed, label="held-out") for seed in range(5)),
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
    """Judges programs on the training instances; call it with a generation and its newcomers.

    Args:
        engine: Runs them.
        seen: Called with each newcomer and its verdict as soon as it is there, in no particular order.
        instances: What they pack.
    """

    def __init__(
        self,
        engine: evocell.Engine,
        seen: Callable[[Individual, Verdict], None],
        instances: Sequence[Instance] = TRAINING,
    ) -> None:
        self._engine = engine
        self._seen = seen
        self._instances = tuple(instances)
        self._task = packing_task(instances)

    def __call__(self, generation: int, newcomers: Sequence[Individual]) -> list[Verdict]:
        """Return one verdict for each newcomer, in order."""
        specs = [
            evocell.SandboxSpec(
                one.id,
                source=one.source,
                generation=generation,
                parent_ids=one.parents,
                mutation_type=one.operator,
            )
            for one in newcomers
        ]
        verdicts: dict[int, Verdict] = {}
        for place, result in self._engine.as_completed(specs, self._task):
            verdicts[place] = self._verdict(result)
            self._seen(newcomers[place], verdicts[place])
        return [verdicts[place] for place in range(len(newcomers))]

    def _verdict(self, result: evocell.FitnessResult) -> Verdict:
        if not result.valid:
            return Verdict(
                excess=None,
                fuel=result.fuel_used,
                death=result.reason or "unknown",
                detail=last_words(result),
            )
        return Verdict(
            excess=result.fitness_score,
            behaviour=bins_used(result, self._instances),
            fuel=result.fuel_used,
        )


def last_words(result: evocell.FitnessResult) -> str:
    """Return the first line of what the engine says about a failure, without the name of the instance."""
    case = result.test_results[-1] if result.test_results else None
    said = (case.error if case is not None else None) or result.error or ""
    return said.partition("\n")[0]


def bins_used(result: evocell.FitnessResult, instances: Sequence[Instance]) -> tuple[int, ...]:
    """Return the verified number of bins for each instance of a valid result."""
    return tuple(
        verify(instance, case.outcome.unwrap())
        for instance, case in zip(instances, result.test_results, strict=True)
    )
