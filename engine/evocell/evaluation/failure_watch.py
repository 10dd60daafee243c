"""A failure that counts more than a real score wins silently; whoever set it up so is told, once."""

from __future__ import annotations

import logging

from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult

__all__ = ["FailureWatch"]

MOST_TOLD = 10_000
"""Evaluations that are remembered as told about."""

_log = logging.getLogger("evocell")


class FailureWatch:
    """Compares valid scores with what a failure counts, and warns once per evaluation, in the log."""

    def __init__(self) -> None:
        self._told: set[object] = set()

    def look(self, evaluation: Evaluation, about: int, result: FitnessResult) -> None:
        """Look at a result, and warn if a failure would have been better.

        Args:
            evaluation: Whose result it is.
            about: Tells the evaluation's cases from those of others.
            result: The result.
        """
        failure = evaluation.failure_objectives
        self._look(result, failure, evaluation.entry, (about, evaluation.score, evaluation.aggregate))

    def look_at(self, function: str, result: FitnessResult) -> None:
        """Do the same for a result of a fitness function of the caller's, whose failures count 0.0."""
        self._look(result, (0.0,), function, ())

    def _look(
        self, result: FitnessResult, failure: tuple[float, ...], entry: str, about: tuple[object, ...]
    ) -> None:
        if not result.valid:
            return
        for score, counted, direction in zip(result.objectives, failure, result.directions, strict=False):
            if score < counted if direction == "maximize" else score > counted:
                break
        else:
            return
        key = (entry, failure, result.directions, *map(_name, about))
        if key in self._told:
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told.add(key)
        _log.warning(
            "%s: the valid score %r of %r is worse than failure=%r, which an individual that fails gets: "
            "where direction is %r it would win. Give a failure that is worse than any real score, and rank "
            "by valid first, as evocell.best and engine.best do",
            entry,
            score,
            result.sandbox_id,
            failure[0] if len(failure) == 1 else failure,
            direction,
        )


def _name(part: object) -> object:
    return getattr(part, "__qualname__", type(part).__qualname__) if callable(part) else part
