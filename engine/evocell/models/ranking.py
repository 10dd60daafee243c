"""Ranking of results, and statistics of their scores."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from evocell.errors import ConfigurationError
from evocell.models.fitness import Direction, FitnessResult, check_direction
from evocell.models.tables import Results

__all__ = ["best", "fitness_statistics", "score_statistics"]


def best(results: Iterable[FitnessResult], most: int = 1, *, direction: Direction | None = None) -> Results:
    """Return the fittest valid results, by their first objective.

    >>> results = [FitnessResult("a", 0, -2.0, valid=True), FitnessResult("b", 0, 0.0, valid=False)]
    >>> [result.sandbox_id for result in best(results)]
    ['a']

    Args:
        results: Any results.
        most: Most results returned.
        direction: ``"maximize"`` or ``"minimize"``; None for the results' own direction.

    Returns:
        The best first; ties in input order. Empty if none is valid.

    Raises:
        ConfigurationError: An argument is invalid, or the results have different directions.
    """
    if type(most) is not int or most < 1:
        raise ConfigurationError(f"most must be a whole number from 1, not {most!r}", "most")
    found = list(results)
    for one in found:
        if not isinstance(one, FitnessResult):
            raise ConfigurationError(f"results must be FitnessResults, not {one!r:.60}", "results")
    valid = [one for one in found if one.valid]
    if direction is None:
        directions = {one.directions[0] for one in valid}
        if len(directions) > 1:
            raise ConfigurationError(
                "the results are of evaluations with different directions; give direction=", "direction"
            )
        direction = directions.pop() if directions else "maximize"
    check_direction(direction)
    sign = 1 if direction == "minimize" else -1
    return Results(sorted(valid, key=lambda one: sign * one.objectives[0])[:most])


def fitness_statistics(results: Iterable[FitnessResult]) -> dict[str, float]:
    """Summarise a population's scores; invalid members are only counted.

    Args:
        results: Latest result of each member.

    Returns:
        ``n_valid`` and ``n_invalid``; and, if any member is valid, ``min``, ``max``, ``mean``,
        ``median`` and ``std`` (of the population, 0 for one member) of the fitness scores.
    """
    rows = [(result.fitness_score, result.valid) for result in results]
    return score_statistics(rows)


def score_statistics(rows: Iterable[tuple[float | None, bool]]) -> dict[str, float]:
    """Summarise scores as `fitness_statistics` does.

    Args:
        rows: The score of each, and whether it is valid.
    """
    scores: list[float] = []
    n_invalid = 0
    for score, valid in rows:
        if valid and score is not None:
            scores.append(score)
        else:
            n_invalid += 1
    stats: dict[str, float] = {"n_valid": len(scores), "n_invalid": n_invalid}
    if scores:
        stats["min"] = min(scores)
        stats["max"] = max(scores)
        stats["mean"] = statistics.fmean(scores)
        stats["median"] = statistics.median(scores)
        stats["std"] = statistics.pstdev(scores)
    return stats
