"""Staged evaluation: each stage prunes the candidates of the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from attrs import evolve, frozen

from evocell.errors import ScoringError, StoreError
from evocell.evaluation.evaluator import evaluate_each, refuse_broken_scoring
from evocell.evaluation.individuals import Candidate, LoadCode
from evocell.evaluation.plan import Budget, Plan, on_host
from evocell.evaluation.scoring import named
from evocell.execution.interface import Worker
from evocell.models.fitness import FitnessResult
from evocell.models.limits import Limits
from evocell.models.stages import Stage, StagedResult
from evocell.sandboxes.calls import deadline_outcome

__all__ = ["PlannedStage", "evaluate_in_stages"]

_ROUNDING = 1e-9


@frozen
class PlannedStage:
    """A prepared stage.

    Attributes:
        stage: The stage.
        plan: Its prepared evaluation.
    """

    stage: Stage
    plan: Plan


async def evaluate_in_stages(
    worker: Worker,
    stages: Sequence[PlannedStage],
    candidates: Sequence[Candidate],
    *,
    load_again: Sequence[LoadCode],
    total_limits: Limits | None,
    evaluated: Callable[[], None],
    done: Callable[[int, FitnessResult], None],
) -> list[StagedResult]:
    """Evaluate candidates stage by stage; a stage begins when the one before has ended.

    Args:
        worker: The worker.
        stages: The stages.
        candidates: The candidates.
        load_again: For each, the function that loads its code in the second and later stages.
        total_limits: Limits of all calls of one candidate together, in all stages; None for none.
        evaluated: Called with each result of a stage.
        done: Called with the index of each dropped candidate, and its last result.

    Returns:
        The last stage and the results of each, in order.

    Raises:
        ScoringError: In a stage, the caller's own functions raised for every candidate.
        StoreError: The code of one cannot be stored; the error has the results.

    Cancellation: Every call is stopped, and there is no result.
    """
    budgets = (
        None if total_limits is None else [Budget(stages[0].plan.limits, total_limits) for _ in candidates]
    )
    results: list[list[FitnessResult]] = [[] for _ in candidates]
    errors: dict[int, str] = {}
    going = list(range(len(candidates)))
    for number, planned in enumerate(stages):
        entered, last = going, planned is stages[-1]

        def over(place: int, result: FitnessResult, entered: list[int] = entered, last: bool = last) -> None:  # noqa: FBT001
            index = entered[place]
            results[index].append(result)
            evaluated()
            if last or not result.valid:
                done(index, result)

        try:
            scored = await evaluate_each(
                worker,
                planned.plan,
                [
                    evolve(candidates[index], load=load_again[index]) if number else candidates[index]
                    for index in entered
                ],
                budgets=None if budgets is None else [budgets[index] for index in entered],
                done=over,
            )
        except StoreError as error:
            found = [StagedResult(tuple(ran), kept=False) if ran else None for ran in results]
            raise error.with_results(found) from error
        refuse_broken_scoring(scored, n_all=len(candidates))
        valid = {index: results[index][-1] for index in entered if results[index][-1].valid}
        going, raised = await _kept(planned, valid, n_entered=len(entered), alone=len(candidates) == 1)
        errors |= raised
        if not last:
            for index in valid.keys() - set(going):
                done(index, results[index][-1])
    kept = set(going)
    return [
        StagedResult(tuple(ran), kept=index in kept, error=errors.get(index))
        for index, ran in enumerate(results)
    ]


async def _kept(
    planned: PlannedStage, valid: Mapping[int, FitnessResult], *, n_entered: int, alone: bool
) -> tuple[list[int], dict[int, str]]:
    """Return the candidates that advance, in order, and those for which the caller's function raised."""
    keep = planned.stage.keep
    if not callable(keep):
        n_kept = math.ceil(keep * n_entered - _ROUNDING)
        maximizes = planned.plan.evaluation.directions[0] == "maximize"
        best = sorted(valid, key=lambda index: valid[index].objectives[0], reverse=maximizes)
        return sorted(best[:n_kept]), {}
    raised: dict[int, Exception] = {}

    def ask() -> list[int]:
        going = []
        for index, result in valid.items():
            try:
                if keep(result):
                    going.append(index)
            except Exception as error:  # noqa: BLE001 - the caller's function may raise anything
                raised[index] = error
        return going

    going = await on_host(planned.plan, ask, asks=True)
    if going is None:
        late = deadline_outcome(planned.plan.deadline.seconds).error
        return [], dict.fromkeys(valid, f"keep had not answered: {late}")
    sentences = {index: f"keep raised {named(error)}" for index, error in raised.items()}
    if raised and len(raised) == len(valid) and (len(raised) > 1 or alone):
        first = next(iter(raised))
        raise ScoringError(
            f"keep failed for every one of {len(raised)} candidates: {sentences[first]}",
            tuple(dict.fromkeys(sentences.values())),
        ) from raised[first]
    return going, sentences
