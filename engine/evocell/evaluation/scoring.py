"""Scoring of outcomes on the host, with built-in or custom functions.

An exception or an unusable return value of the caller's functions is data: the individual becomes invalid
with the reason ``"score"``. This module does not use trio, so it may run in any thread.
"""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from evocell.errors import OutcomeError
from evocell.evaluation.difference import difference, shown
from evocell.models.evaluation import Case, Evaluation
from evocell.models.fitness import CaseResult, Direction, FitnessResult
from evocell.models.outcome import Outcome

__all__ = [
    "Judged",
    "Scored",
    "destroyed",
    "from_function",
    "in_order",
    "judge",
    "judge_given",
    "judge_raised",
    "named",
    "should_stop",
    "summarise",
    "unscored",
]

HEADLINE_NAMES = ("score", "combined_score")
"""Names of the part that is the fitness if one objective is given as a mapping of parts."""

REASON = "score"

DESTROYED = "destroyed"
"""Reason of an individual whose sandbox was destroyed meanwhile; not the individual's fault."""


@frozen
class Judged:
    """A case with its score.

    Attributes:
        case: The public result.
        raised: The exception of the scoring function, or None.
        unusable: Whether the call succeeded but there is no usable score.
    """

    case: CaseResult
    raised: Exception | None = None
    unusable: bool = False


@frozen
class Scored:
    """An individual with its fitness.

    Attributes:
        result: The public result.
        asked: Whether a function of the caller's was called at all.
        raised: The first exception of such a function, or None.
    """

    result: FitnessResult
    asked: bool = False
    raised: Exception | None = None


class _UnusableError(Exception):
    """The return value of a scoring function is not a score; the text says why."""


def judge(evaluation: Evaluation, index: int, outcome: Outcome) -> Judged:
    """Score the outcome of one case.

    Args:
        evaluation: The evaluation.
        index: The case's index, from 0.
        outcome: How its call ended.
    """
    case = evaluation.cases[index]
    name, public = case.name, case.public
    if not outcome.ok:
        return Judged(CaseResult(name, index, outcome, public=public, error=outcome.error))
    value = outcome.unwrap()
    if isinstance(evaluation.score, str):
        found = difference(case.expected, value, close=evaluation.score == "close")
        score = 1.0 if found is None else 0.0
        return Judged(CaseResult(name, index, outcome, score, found is None, public, found))
    try:
        returned: object = evaluation.score(case, value)
    except Exception as error:  # noqa: BLE001 - the caller's function may raise anything
        return judge_raised(case, index, outcome, error)
    return judge_given(case, index, outcome, returned)


def judge_given(case: Case, index: int, outcome: Outcome, returned: object) -> Judged:
    """Score a case by what the caller's function returned.

    Args:
        case: The case.
        index: Its place, from 0.
        outcome: How its call ended.
        returned: A number or named numbers, maybe with a text.
    """
    try:
        given, remark = _with_remark(returned)
        usable = _usable_score(given)
    except _UnusableError as error:
        sentence = f"score returned {error}"
        said = CaseResult(case.name, index, outcome, public=case.public, error=sentence)
        return Judged(said, unusable=True)
    passed = not _is_false(given)
    return Judged(CaseResult(case.name, index, outcome, usable, passed, case.public, remark=remark))


def judge_raised(case: Case, index: int, outcome: Outcome, error: Exception) -> Judged:
    """Say of a case that the caller's function raised."""
    text = named(error)
    said = CaseResult(
        case.name, index, outcome, public=case.public, error=f"score raised {text}", remark=text
    )
    return Judged(said, error, unusable=True)


def in_order(judged: Sequence[Judged]) -> list[Judged]:
    """Return cases in the caller's order, which may differ from the order of execution."""
    return sorted(judged, key=lambda one: one.case.index)


def should_stop(evaluation: Evaluation, judged: Sequence[Judged]) -> tuple[bool, Exception | None]:
    """Return whether to stop after the cases so far, and the exception of the predicate, if any."""
    if evaluation.stop is None:
        return False, None
    if evaluation.stop == "first_failure":
        return not judged[-1].case.passed, None
    try:
        return bool(evaluation.stop([one.case for one in judged])), None
    except Exception as error:  # noqa: BLE001 - the caller's function may raise anything
        return True, error


def summarise(
    evaluation: Evaluation,
    judged: Sequence[Judged],
    *,
    sandbox_id: str,
    generation: int,
    evaluation_time_ms: float,
    stop_raised: Exception | None = None,
) -> Scored:
    """Aggregate an individual's cases into its fitness.

    A failed call makes the individual invalid, regardless of the other cases. Cases left out after an
    early stop count as `Evaluation.failure_objectives` in a ``"mean"``, so that stopping early never helps.

    Args:
        evaluation: The evaluation.
        judged: The cases that ran, in order.
        sandbox_id: The individual.
        generation: The generation it belongs to.
        evaluation_time_ms: Wall time from the first call to here, in milliseconds.
        stop_raised: The exception of the stop predicate, or None.
    """
    cases = tuple(one.case for one in judged)
    outcomes = [case.outcome for case in cases]
    raised = next((one.raised for one in judged if one.raised is not None), stop_raised)
    asked = callable(evaluation.score) and any(outcome.ok for outcome in outcomes)
    components: Mapping[str, float] = {}
    objectives = evaluation.failure_objectives
    reason: str | None = None
    error: str | None = None

    failed = next((case for case in cases if not case.outcome.ok), None)
    unusable = next((one.case for one in judged if one.unusable), None)
    if failed is not None:
        reason, error = failed.outcome.kind, _of_case(failed, failed.outcome.error)
    elif unusable is not None:
        reason, error = REASON, _of_case(unusable, unusable.error)
    elif stop_raised is not None:
        reason, error = REASON, f"stop raised {named(stop_raised)}"
    else:
        asked = asked or callable(evaluation.aggregate)
        try:
            components, objectives = _aggregate(evaluation, cases)
        except _UnusableError as problem:
            reason, error = REASON, f"aggregate gave {problem}"
        except Exception as problem:  # noqa: BLE001 - the caller's function may raise anything
            reason, error, raised = REASON, f"aggregate raised {named(problem)}", problem
    result = FitnessResult(
        sandbox_id=sandbox_id,
        generation=generation,
        fitness_score=objectives[0],
        components=components,
        evaluation_time_ms=evaluation_time_ms,
        test_results=cases,
        error=error,
        valid=reason is None,
        objectives=objectives,
        reason=reason,
        fuel_used=sum(outcome.fuel_used for outcome in outcomes),
        peak_memory_bytes=max((outcome.peak_memory_bytes for outcome in outcomes), default=0),
        deterministic=all(outcome.deterministic for outcome in outcomes),
        all_public=_all_public(evaluation),
        directions=evaluation.directions,
    )
    return Scored(result, asked, raised)


def unscored(
    evaluation: Evaluation,
    why: Outcome,
    ran: Mapping[int, Outcome] | None = None,
    judged: Sequence[Judged] = (),
    *,
    sandbox_id: str,
    generation: int,
) -> FitnessResult:
    """Return the fitness of an individual that was never scored.

    Args:
        evaluation: The evaluation.
        why: The cause.
        ran: The outcomes of the cases run so far, by index.
        judged: Those of them that were scored.
        sandbox_id: The individual.
        generation: The generation it belongs to.
    """
    objectives = evaluation.failure_objectives
    cases = {one.case.index: one.case for one in judged}
    for index, outcome in (ran or {}).items():
        if index not in cases:
            case, error = evaluation.cases[index], outcome.error or "not scored"
            cases[index] = CaseResult(case.name, index, outcome, public=case.public, error=error)
    outcomes = [why, *(case.outcome for case in cases.values())]
    return FitnessResult(
        sandbox_id=sandbox_id,
        generation=generation,
        fitness_score=objectives[0],
        test_results=tuple(cases[index] for index in sorted(cases)),
        error=why.error,
        valid=False,
        objectives=objectives,
        reason=why.kind,
        fuel_used=sum(outcome.fuel_used for outcome in outcomes),
        peak_memory_bytes=max(outcome.peak_memory_bytes for outcome in outcomes),
        deterministic=all(outcome.deterministic for outcome in outcomes),
        all_public=_all_public(evaluation),
        directions=evaluation.directions,
    )


def _all_public(evaluation: Evaluation) -> bool:
    return all(case.public for case in evaluation.cases)


def destroyed(
    *,
    sandbox_id: str,
    generation: int,
    objectives: tuple[float, ...] = (0.0,),
    directions: tuple[Direction, ...] = ("maximize",),
) -> Scored:
    """Return the fitness of an individual whose sandbox was destroyed before it was scored.

    Args:
        sandbox_id: The individual.
        generation: The generation it belongs to.
        objectives: The objectives of a failure.
        directions: The direction of each objective.
    """
    return Scored(
        FitnessResult(
            sandbox_id,
            generation,
            objectives[0],
            error=f"sandbox {sandbox_id!r} was destroyed before its evaluation had ended",
            objectives=objectives,
            reason=DESTROYED,
            deterministic=False,
            directions=directions,
        )
    )


def from_function(
    value: object,
    raised: Exception | None,
    *,
    sandbox_id: str,
    generation: int,
    evaluation_time_ms: float,
    direction: Direction = "maximize",
) -> Scored:
    """Convert the return value or exception of a fitness function to a fitness.

    Args:
        value: A number, a mapping of parts, a tuple with one number, or a whole `FitnessResult`.
        raised: The function's exception, or None. An `OutcomeError` is the individual's failure.
        sandbox_id: The individual.
        generation: The generation it belongs to.
        evaluation_time_ms: Wall time of the function, in milliseconds.
        direction: The direction.
    """
    if isinstance(value, FitnessResult):
        # Its id may differ: a result of `evaluate_one`, for example, is accepted like a number.
        return Scored(evolve(value, sandbox_id=sandbox_id, generation=generation), asked=True)
    blank = FitnessResult(
        sandbox_id, generation, 0.0, evaluation_time_ms=evaluation_time_ms, directions=(direction,)
    )
    if isinstance(raised, OutcomeError):
        outcome = raised.outcome
        return Scored(evolve(blank, error=outcome.error, reason=outcome.kind), asked=True)
    if raised is not None:
        sentence = f"fitness raised {named(raised)}"
        return Scored(evolve(blank, error=sentence, reason=REASON), asked=True, raised=raised)
    try:
        components, objectives = _split(value, 1)
    except _UnusableError as problem:
        return Scored(evolve(blank, error=f"fitness returned {problem}", reason=REASON), asked=True)
    result = evolve(
        blank, fitness_score=objectives[0], objectives=objectives, components=components, valid=True
    )
    return Scored(result, asked=True)


def _aggregate(
    evaluation: Evaluation, cases: Sequence[CaseResult]
) -> tuple[Mapping[str, float], tuple[float, ...]]:
    n_objectives = len(evaluation.directions)
    if callable(evaluation.aggregate):
        return _split(evaluation.aggregate(list(cases)), n_objectives)
    components, objectives = _split(_mean(cases), n_objectives)
    n_all, n_ran = len(evaluation.cases), len(cases)
    if n_ran < n_all:
        objectives = tuple(
            (value * n_ran + failure * (n_all - n_ran)) / n_all
            for value, failure in zip(objectives, evaluation.failure_objectives, strict=True)
        )
    return components, objectives


def _mean(cases: Sequence[CaseResult]) -> float | dict[str, float]:
    scores = [case.score for case in cases]
    numbers = [score for score in scores if isinstance(score, int | float)]
    if len(numbers) == len(scores):
        return _finite_mean(numbers)
    parts = [score for score in scores if isinstance(score, Mapping)]
    if len(parts) != len(scores):
        raise _UnusableError("no mean: some cases have a number and some a mapping as their score")
    names = list(parts[0])
    for case, part in zip(cases, parts, strict=True):
        if part.keys() != parts[0].keys():
            raise _UnusableError(
                f"no mean: {_label(case)} has the parts {sorted(part)}, "
                f"{_label(cases[0])} has {sorted(names)}"
            )
    return {name: _finite_mean([part[name] for part in parts]) for name in names}


def _finite_mean(numbers: Sequence[float]) -> float:
    if len(numbers) == 1:
        return float(numbers[0])
    try:
        return statistics.fmean(numbers)
    except OverflowError:  # the sum of finite numbers need not be finite
        return math.fsum(number / len(numbers) for number in numbers)


def _split(value: object, n_objectives: int) -> tuple[Mapping[str, float], tuple[float, ...]]:
    if isinstance(value, tuple | list):
        numbers = tuple(_finite(item) for item in value)
        if len(numbers) != n_objectives:
            raise _UnusableError(f"{len(numbers)} objectives for {n_objectives} directions")
        return {}, numbers
    usable = _usable_score(value)
    if not isinstance(usable, Mapping):
        if n_objectives != 1:
            raise _UnusableError(f"one number for {n_objectives} directions")
        return {}, (usable,)
    if n_objectives > 1:
        if len(usable) != n_objectives:
            raise _UnusableError(f"{len(usable)} parts for {n_objectives} directions")
        return usable, tuple(usable.values())
    for name in HEADLINE_NAMES:
        if name in usable:
            return usable, (usable[name],)
    return usable, (_finite_mean(list(usable.values())),)


def _usable_score(value: object) -> float | Mapping[str, float]:
    if isinstance(value, Mapping):
        if not value:
            raise _UnusableError("an empty mapping; give at least one named number")
        parts: dict[str, float] = {}
        for name, part in value.items():
            if not isinstance(name, str):
                raise _UnusableError(f"a mapping whose key {shown(name)} is not a string")
            try:
                parts[name] = _finite(part)
            except _UnusableError as error:
                raise _UnusableError(f"{error} as the part {name!r}") from None
        return parts
    return _finite(value)


def _finite(value: object) -> float:
    if inspect.iscoroutine(value):
        value.close()
        raise _UnusableError("a coroutine; make score an async function, which is awaited")
    if isinstance(value, Outcome):
        raise _UnusableError("an Outcome, which is not a number; return what its unwrap() returns")
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise _UnusableError(f"{shown(value)}, which is not a number")
    try:
        number = float(value)
    except Exception:  # noqa: BLE001 - an array of several elements, a number too large for a float
        raise _UnusableError(f"{shown(value)}, which is not one number of a float's range") from None
    if not math.isfinite(number):
        raise _UnusableError(f"{number}, which is not finite")
    return number


def _with_remark(given: object) -> tuple[object, str | None]:
    """Separate a score from its optional remark."""
    # Asked first: a sequence pattern takes the length of numpy's arrays; without dimensions they have none.
    if isinstance(given, tuple):
        match given:
            case (score, str(remark)):
                return score, remark
    return given, None


def _is_false(value: object) -> bool:
    """Return whether a score is False, or numpy's False, rather than a number."""
    is_flag = isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b"
    return is_flag and not value


def _of_case(case: CaseResult, sentence: str | None) -> str:
    return f"{_label(case)}: {sentence}"


def _label(case: CaseResult) -> str:
    return f"case {case.name!r}" if case.name and case.public else f"case {case.index}"


def named(error: Exception) -> str:
    """Describe an exception of the caller's function in a sentence."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception's text may fail as well
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
