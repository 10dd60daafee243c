"""Rescoring of existing results with a changed evaluation."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve
from trio.lowlevel import in_trio_run

from evocell.api.arguments import check_evaluation
from evocell.errors import ConfigurationError
from evocell.evaluation.evaluator import refuse_broken_scoring
from evocell.evaluation.own_functions import run_scores
from evocell.evaluation.scoring import Judged, Scored, judge, summarise
from evocell.models.evaluation import Evaluation, is_async
from evocell.models.fitness import FitnessResult
from evocell.models.tables import Results

__all__ = ["rescore"]


def rescore(results: Iterable[FitnessResult], evaluation: Evaluation) -> Results:
    """Score the outcomes of results again with a changed evaluation, without running any program.

    Entry, cases, limits and seed must be those that the results were made with; what may differ is ``score``,
    ``aggregate``, ``directions`` and ``failure``, and what the cases expect. The functions run in the calling
    thread, an async ``score`` in a trio loop of its own there. Nothing is written into the store, and the
    results given stay as they are.

    Args:
        results: Results with their outcomes, as `Engine.evaluate` returned them.
        evaluation: The changed evaluation.

    Returns:
        One result for each, in order. One that failed before it was scored fails in the same way, and counts
        the new ``failure``.

    Raises:
        ConfigurationError: A result has more cases than the evaluation, something is no result, or ``score``
            is async and the calling thread runs a trio loop.
        ScoringError: A function of the evaluation raised for every result.
    """
    check_evaluation(evaluation)
    if is_async(evaluation.score) and in_trio_run():
        raise ConfigurationError(
            "an async score cannot be run from within a trio loop by rescore, which blocks; "
            "await trio.to_thread.run_sync(evocell.rescore, results, evaluation)",
            "score",
        )
    scored = [_again(result, evaluation) for result in results]
    refuse_broken_scoring(scored)
    return Results(one.result for one in scored)


def _again(result: FitnessResult, evaluation: Evaluation) -> Scored:
    if not isinstance(result, FitnessResult):
        raise ConfigurationError(f"rescore takes FitnessResults, not {type(result).__name__}", "results")
    n_cases = len(result.test_results)
    if n_cases > len(evaluation.cases):
        raise ConfigurationError(
            f"the result of {result.sandbox_id!r} has {n_cases} cases and the evaluation has "
            f"{len(evaluation.cases)}; give the one it was made with, its score changed",
            "evaluation",
        )
    if not n_cases or (
        not result.valid and all(case.outcome.ok for case in result.test_results) and result.reason != "score"
    ):
        failure = evaluation.failure_objectives
        failed = evolve(
            result,
            fitness_score=failure[0],
            objectives=failure,
            components={},
            directions=evaluation.directions,
        )
        return Scored(failed)
    scored = summarise(
        evaluation,
        _judged(result, evaluation),
        sandbox_id=result.sandbox_id,
        generation=result.generation,
        evaluation_time_ms=result.evaluation_time_ms,
    )
    kept = evolve(scored.result, evaluated_at=result.evaluated_at, n_memoised=result.n_memoised)
    return evolve(scored, result=kept)


def _judged(result: FitnessResult, evaluation: Evaluation) -> list[Judged]:
    outcomes = [(case.index, case.outcome) for case in result.test_results]
    if is_async(evaluation.score):
        return run_scores(evaluation, outcomes)
    return [judge(evaluation, index, outcome) for index, outcome in outcomes]
