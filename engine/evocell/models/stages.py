"""Staged evaluation: cheap stages first, expensive ones for the fittest individuals only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from attrs import field, frozen

from evocell.errors import ConfigurationError
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.limits import Limits

__all__ = ["KeepPredicate", "Stage", "StagedResult", "check_stages"]

KeepPredicate: TypeAlias = Callable[[FitnessResult], bool]


@frozen
class Stage:
    """One stage of an evaluation.

    Attributes:
        evaluation: The evaluation of each individual that enters it.
        keep: Which individuals advance. A number above 0 and up to 1: that fraction of those that
            entered, rounded up, the best by the first objective, the earlier one of two equals. A
            function: those for which it returns true, called in a thread of the host. An invalid
            individual never advances.
        name: Its name; empty for its number.

    Raises:
        ConfigurationError: A field is invalid.
    """

    evaluation: Evaluation
    keep: float | KeepPredicate = 1.0
    name: str = field(default="", kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.evaluation, Evaluation):
            raise ConfigurationError(
                f"a stage needs an Evaluation, not {type(self.evaluation).__name__}", "evaluation"
            )
        if not isinstance(self.name, str):
            raise ConfigurationError(f"stage name must be a string, not {self.name!r}", "name")
        keep = self.keep
        part = isinstance(keep, int | float) and not isinstance(keep, bool) and 0 < keep <= 1
        if not part and not callable(keep):
            raise ConfigurationError(
                f"keep must be a part above 0 and up to 1, or a function of a FitnessResult, not {keep!r}",
                "keep",
            )


@frozen
class StagedResult:
    """Results of one individual in the stages that it entered.

    Scores of different stages are not comparable: compare individuals by ``(stage, fitness_score)``, and
    never an invalid one with a valid one.

    Attributes:
        results: Its result in each stage it entered, in order; at least one.
        kept: Whether it passed all stages, including the selection after the last one.
        error: The exception of ``keep`` for it, in a sentence, or None. Such an individual is not kept.
    """

    results: tuple[FitnessResult, ...]
    kept: bool
    error: str | None = None

    @property
    def stage(self) -> int:
        """The last stage it entered, from 0."""
        return len(self.results) - 1

    @property
    def result(self) -> FitnessResult:
        """Its result in the last stage it entered."""
        return self.results[-1]

    @property
    def sandbox_id(self) -> str:
        """The individual."""
        return self.result.sandbox_id

    @property
    def fuel_used(self) -> int:
        """Total fuel of all stages."""
        return sum(result.fuel_used for result in self.results)


def check_stages(stages: object, total_limits: object) -> tuple[Stage, ...]:
    """Return stages, refusing invalid ones.

    Raises:
        ConfigurationError: They are not stages, or their limits contradict the total.
    """
    if isinstance(stages, str) or not isinstance(stages, Sequence) or not stages:
        raise ConfigurationError(
            f"stages must be a list of at least one Stage, not {type(stages).__name__}", "stages"
        )
    for index, stage in enumerate(stages):
        if not isinstance(stage, Stage):
            raise ConfigurationError(
                f"stages[{index}] must be a Stage, not {type(stage).__name__}", f"stages[{index}]"
            )
        if total_limits is not None and stage.evaluation.total_limits is not None:
            raise ConfigurationError(
                f"stages[{index}] has total_limits of its own; give them to evaluate_stages, for all stages "
                "together, or to each evaluation, not both",
                f"stages[{index}]",
            )
    if total_limits is not None and not isinstance(total_limits, Limits):
        raise ConfigurationError(f"total_limits must be a Limits, not {total_limits!r}", "total_limits")
    return tuple(stages)
