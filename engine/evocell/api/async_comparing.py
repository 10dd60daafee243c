"""The engine as trio programs use it: measuring programs, alone and against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from attrs import evolve

from evocell.api.lifecycle import EngineLifecycle
from evocell.api.options import check_evaluation, individuals
from evocell.errors import ConfigurationError
from evocell.models.evaluation import Case, Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.measurement import Comparison, Measurement
from evocell.models.references import Source

__all__ = ["REPEATS", "AsyncComparing", "RepeatDone"]

REPEATS = 9
"""Repeats of a measurement by default; an interval of the time needs at least six."""

RepeatDone: TypeAlias = Callable[[int, int], None]
"""Called with how many evaluations are done and how many there will be."""


class AsyncComparing(EngineLifecycle):
    """The part of `AsyncEngine` that measures and compares programs; see there."""

    async def measure(
        self,
        source: Source,
        evaluation: Evaluation,
        *,
        repeats: int = REPEATS,
        progress: RepeatDone | None = None,
    ) -> Measurement:
        """Measure what a program costs, in fuel, memory and time.

        Args:
            source: The program.
            evaluation: Its cases.
            repeats: How often to evaluate it, from 1. Fuel needs one; time is noisy and wants nine.
            progress: Called after each of them.

        Raises:
            ConfigurationError: The evaluation or the number of repeats cannot be used.
        """
        (measured,) = await self._repeated([source], evaluation, repeats, progress)
        return measured

    async def compare(
        self,
        first: Source,
        second: Source,
        evaluation: Evaluation,
        *,
        repeats: int = REPEATS,
        progress: RepeatDone | None = None,
    ) -> Comparison:
        """Compare what two programs cost on the same cases.

        They run in turns, one call at a time, and change places from repeat to repeat, so that whatever else
        the machine does meets both alike. Fuel decides without noise, time only where noise cannot explain
        the difference.

        Args:
            first: One program.
            second: The other.
            evaluation: The cases.
            repeats: As in `measure`.
            progress: As in `measure`.

        Raises:
            ConfigurationError: The evaluation or the number of repeats cannot be used.
        """
        return Comparison(*await self._repeated([first, second], evaluation, repeats, progress))

    async def _repeated(
        self, sources: Sequence[Source], evaluation: Evaluation, repeats: int, progress: RepeatDone | None
    ) -> list[Measurement]:
        _check_repeats(repeats)
        new = individuals(list(sources), population=None, generation=0, parents=None)
        found: list[list[FitnessResult]] = [[] for _ in new]
        # Each repeat is made: a remembered call has no time of its own.
        evaluation = evolve(check_evaluation(evaluation), memoise=False)
        with self._request():
            plan = await self._batches.plan(evaluation, deadline_s=None, calls=1)
            overhead_fuel = await self._overhead_fuel(evaluation)
            for repeat in range(repeats):
                places = range(len(new)) if repeat % 2 == 0 else reversed(range(len(new)))
                for place in places:
                    found[place].append(await self._batches.one(plan, new[place]))
                    if progress is not None:
                        progress(sum(map(len, found)), repeats * len(new))
        return [Measurement.of(results, overhead_fuel=overhead_fuel) for results in found]

    async def _overhead_fuel(self, evaluation: Evaluation) -> int:
        """Fuel of an evaluation's calls to a function that only returns; 0 if a harness is what is called."""
        if evaluation.harness is not None:
            return 0
        bare = evolve(
            evaluation,
            score=_any_value,
            aggregate="mean",
            stop=None,
            directions=("maximize",),
            failure=None,
        )
        plan = await self._batches.plan(bare, deadline_s=None, calls=1)
        (new,) = individuals([_empty_program(evaluation.entry)], population=None, generation=0, parents=None)
        result = await self._batches.one(plan, new)
        return result.fuel_used if result.valid else 0


def _check_repeats(repeats: object) -> None:
    if not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 1:
        raise ConfigurationError(f"repeats must be a whole number from 1, not {repeats!r}", "repeats")


def _any_value(_case: Case, _value: object) -> float:
    return 1.0


def _empty_program(entry: str) -> dict[str, str]:
    """Write a program whose entry takes anything and returns at once."""
    module, _, qualname = entry.partition(":")
    *classes, function = qualname.split(".")
    lines = [f"{'    ' * depth}class {name}:" for depth, name in enumerate(classes)]
    indent = "    " * len(classes)
    lines += [f"{indent}@staticmethod"] if classes else []
    lines += [f"{indent}def {function}(*args, **kwargs):", f"{indent}    return None", ""]
    *packages, last = module.split(".")
    files = {"/".join([*packages[: depth + 1], "__init__.py"]): "" for depth in range(len(packages))}
    return {**files, "/".join([*packages, f"{last}.py"]): "\n".join(lines)}
