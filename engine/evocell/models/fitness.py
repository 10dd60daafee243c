"""The result of scoring one individual."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from attrs import Factory, field, frozen

from evocell.errors import ConfigurationError
from evocell.models import report
from evocell.models.html import facts
from evocell.models.outcome import Outcome
from evocell.models.state import utc_now


@frozen
class CaseResult:
    """How one case went.

    Attributes:
        name: The case's name; empty if it has none.
        index: Its place among the evaluation's cases, from 0.
        outcome: How the call ended.
        score: What the scoring function gave; None if it was not asked or failed.
        passed: Whether the case counts as passed: it is as expected, or, where ``score`` is a function, that
            gave a usable score other than False. A score of 0.0 passes: whether that is bad only you know.
        public: Whether the case may be shown to whoever writes the next variant.
        error: Why there is no score, in a sentence; may hold what only the host may know.
        remark: What the scoring function said of it, beside the number or by raising; `feedback` and
            `artifacts` show it of public cases. None if it said nothing.
    """

    name: str
    index: int
    outcome: Outcome
    score: float | Mapping[str, float] | None = None
    passed: bool = False
    public: bool = True
    error: str | None = None
    remark: str | None = None


Direction = Literal["maximize", "minimize"]
"""Whether more of an objective is better, or less."""


_PLAIN = (
    "sandbox_id",
    "generation",
    "fitness_score",
    "valid",
    "reason",
    "error",
    "evaluation_time_ms",
    "fuel_used",
    "peak_memory_bytes",
    "deterministic",
    "n_memoised",
)


def _plain_case(case: CaseResult) -> dict[str, Any]:
    outcome, score = case.outcome, case.score
    return {
        "name": case.name,
        "index": case.index,
        "outcome": outcome.kind,
        "score": dict(score) if isinstance(score, Mapping) else score,
        "passed": case.passed,
        "public": case.public,
        "error": case.error,
        "remark": case.remark,
        "fuel_used": outcome.fuel_used,
        "wall_s": outcome.wall_s,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "stdout": outcome.stdout,
        "stderr": outcome.stderr,
    }


def _only_score(result: FitnessResult) -> tuple[float, ...]:
    return (result.fitness_score,)


@frozen
class FitnessResult:
    """How good one individual is, and how that was found out.

    Two results of the same deterministic evaluation compare equal: when it ran and how long it
    took are left out of equality.

    Attributes:
        sandbox_id: The individual.
        generation: The generation it belongs to.
        fitness_score: The score; of an invalid individual, the evaluation's ``failure``. Any
            finite number; 0 to 1 is convention.
        components: Parts of the score by name.
        evaluated_at: When, in UTC.
        evaluation_time_ms: Wall time from the first call to the score, in milliseconds.
        test_results: Each case that ran.
        error: Why the individual is invalid, in a sentence; None if it is valid. It may tell of hidden cases.
        valid: Whether the score is a real one. Selection must never prefer an invalid one.
        objectives: All objectives in order; by default the score alone.
        reason: The kind of failure, as `Outcome.kind` names it; ``"score"`` if the scoring failed, and
            ``"destroyed"`` if its sandbox was destroyed before there was a score; None if it is valid.
        fuel_used: Units of work, all cases together.
        peak_memory_bytes: The most memory any case had above the image.
        deterministic: Whether evaluating again must give the same.
        n_memoised: Cases whose call was made before and not again.
        all_public: Whether every case of the evaluation may be shown to whoever writes the next variant. If
            not, what was computed over all cases (score, validity, error, fuel, memory) may not either.
        directions: Whether more is better, for each objective, as the evaluation says.
    """

    sandbox_id: str
    generation: int
    fitness_score: float
    components: Mapping[str, float] = field(factory=dict)
    evaluated_at: datetime = field(factory=utc_now, eq=False)
    evaluation_time_ms: float = field(default=0.0, eq=False)
    test_results: tuple[CaseResult, ...] = ()
    error: str | None = None
    valid: bool = False
    objectives: tuple[float, ...] = Factory(_only_score, takes_self=True)
    reason: str | None = None
    fuel_used: int = 0
    peak_memory_bytes: int = 0
    deterministic: bool = True
    n_memoised: int = field(default=0, eq=False)
    all_public: bool = True
    directions: tuple[Direction, ...] = ("maximize",)

    def feedback(self, max_chars: int = 4000) -> str:
        """Describe the result for a language model that writes the next variant.

        Holds the score, the validity and the public cases, failed ones first, each with its
        outcome, error, what ``score`` said of it, ends of traceback and output, and fuel. Never holds
        expected values, nor anything of cases that are not public. If there are such cases, it has the
        mean of the public ones in place of the score, and fuel and memory of the public ones: results that
        differ in hidden cases only have the same text. A case without a name is numbered among the public
        ones.

        Args:
            max_chars: Characters the text may have at most, from 1.

        Raises:
            ConfigurationError: ``max_chars`` is below 1.
        """
        return report.feedback(self, max_chars)

    def _repr_html_(self) -> str:
        return facts(
            f"result of {self.sandbox_id}",
            [
                ("fitness", self.fitness_score),
                ("valid", self.valid),
                ("reason", self.reason),
                ("error", self.error),
                *((f"objective {n}", value) for n, value in enumerate(self.objectives[1:], 2)),
                *self.components.items(),
                ("generation", self.generation),
                (
                    "cases passed",
                    f"{sum(case.passed for case in self.test_results)} of {len(self.test_results)}",
                ),
                ("fuel", self.fuel_used),
                ("peak memory, bytes", self.peak_memory_bytes),
                ("time, ms", self.evaluation_time_ms),
            ],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data that ``json.dumps`` takes: numbers, strings, lists and dicts.

        All fields are there under their names; of each case in ``test_results`` what is known but the value
        that the call returned. ``evaluated_at`` is ISO 8601. What is given to the author of the next variant
        is `feedback` or `artifacts`: this holds what is known of cases that are not public, too.
        """
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {
            **plain,
            "components": dict(self.components),
            "objectives": list(self.objectives),
            "directions": list(self.directions),
            "evaluated_at": self.evaluated_at.isoformat(),
            "test_results": [_plain_case(case) for case in self.test_results],
        }

    def artifacts(self) -> dict[str, str]:
        """Return what is known of the first public case that failed, by name.

        Keys, each there only if it has something to say: ``case``, ``outcome``, ``remark``, ``error``,
        ``traceback``, ``stdout``, ``stderr``, ``limit``, ``fuel``. If no public case failed and the
        individual was not refused as a whole, only what ``score`` remarked on the first public case, or
        nothing.
        """
        return report.artifacts(self)


def best(
    results: Iterable[FitnessResult], most: int = 1, *, direction: Direction | None = None
) -> list[FitnessResult]:
    """Return the fittest of some results, by their first objective; invalid ones are never among them.

    >>> results = [FitnessResult("a", 0, -2.0, valid=True), FitnessResult("b", 0, 0.0, valid=False)]
    >>> [result.sandbox_id for result in best(results)]
    ['a']

    Args:
        results: Any results.
        most: How many at most.
        direction: ``"maximize"`` or ``"minimize"``; None for what the results themselves say.

    Returns:
        The best first; of equal ones, the one that came first. Empty if none is valid.

    Raises:
        ConfigurationError: An argument cannot be used, or the results have different directions.
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
    return sorted(valid, key=lambda one: sign * one.objectives[0])[:most]


def check_direction(direction: object) -> None:
    """Refuse what is no direction.

    Raises:
        ConfigurationError: It is neither ``"maximize"`` nor ``"minimize"``.
    """
    if direction not in ("maximize", "minimize"):
        raise ConfigurationError(
            f'direction must be "maximize" or "minimize", not {direction!r}', "direction"
        )


def fitness_statistics(results: Iterable[FitnessResult]) -> dict[str, float]:
    """Summarise a population's scores; invalid members are counted and otherwise left out.

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
        rows: The score of each, and whether it is a real one.
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
