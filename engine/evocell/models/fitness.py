"""Fitness results, and the feedback text derived from them for the author of the next variant.

The feedback goes to the author of untrusted code, so it is built from a positive list: the candidate's own
output, the host's readings, and the remarks of the caller's scoring, of public cases. Differences from the
expected value are excluded, because they quote the expected value.

A candidate controls its fuel, its memory, its failures and so its score to the last digit, case by case. So
if some cases are hidden, no number computed from them is included, not even how many there are: results that
differ only in hidden cases have the same text.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from attrs import Factory, field, frozen

from evocell.errors import ConfigurationError
from evocell.models.foreign import clean, clean_line
from evocell.models.html import facts
from evocell.models.outcome import Completed, LimitExceeded, Outcome, Raised, Rejected
from evocell.models.state import utc_now

_NAME_CHARS = 80
_ERROR_CHARS = 500
_ARTIFACT_CHARS = 16_384
_COMPONENTS = 32
_SMALLEST_BLOCK_CHARS = 240
_CUT = "[...] "

_value_repr = reprlib.Repr()
_value_repr.maxstring = _value_repr.maxother = 120
_value_repr.maxlevel = 3


@frozen
class CaseResult:
    """The result of one case.

    Attributes:
        name: The case's name; empty if it has none.
        index: Its index among the evaluation's cases, from 0.
        outcome: The outcome of the call.
        score: The score; None if the scoring function was not called or failed.
        passed: Whether the case passed: the value is as expected, or, if ``score`` is a function, it
            returned a usable score other than False. A score of 0.0 passes, since its meaning is yours.
        public: Whether the case may be shown to the author of the next variant.
        error: Why there is no score, in a sentence; may contain secrets of the host.
        remark: The scoring function's remark or the text of its exception; `feedback` and `artifacts`
            show it for public cases. None if there is none.
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
"""Direction of an objective."""


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
    "image",
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
    """The result of one evaluation: the score of an individual and the cases behind it.

    Two results of the same deterministic evaluation compare equal: equality ignores the time and
    duration of the evaluation.

    Attributes:
        sandbox_id: The individual.
        generation: The generation it belongs to.
        fitness_score: The score; for an invalid individual, the evaluation's ``failure``. Any
            finite number; 0 to 1 is a convention.
        components: Parts of the score by name.
        evaluated_at: Time of the evaluation, in UTC.
        evaluation_time_ms: Wall time from the first call to the score, in milliseconds.
        test_results: Each case that ran.
        error: Why the individual is invalid, in a sentence; None if it is valid. It may reveal hidden cases.
        valid: Whether the score is valid. Selection must never prefer an invalid individual.
        objectives: All objectives in order; by default the score alone.
        reason: The kind of failure, as `Outcome.kind` names it; ``"score"`` if the scoring failed, and
            ``"destroyed"`` if its sandbox was destroyed before it was scored; None if it is valid.
        fuel_used: Total fuel of all cases.
        peak_memory_bytes: Peak memory of any case above the image.
        deterministic: Whether a repeated evaluation must give the same result.
        n_memoised: Number of cases with a memoised outcome.
        all_public: Whether every case of the evaluation may be shown to the author of the next variant. If
            not, values computed over all cases (score, validity, error, fuel, memory) may not either.
        directions: The direction of each objective.
        image: The image its calls started from: the name or id that was asked for, ``"base"`` for the
            engine's own, or the name of one with the packages that the code imports; see docs/images.md.
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
    image: str = "base"

    def feedback(self, max_chars: int = 4000) -> str:
        """Describe the result for a language model that writes the next variant.

        Contains the score, the validity and the public cases, failed ones first, each with its
        outcome, error, the remark of ``score``, the tails of traceback and output, and fuel. Never contains
        expected values, nor anything about hidden cases. If there are hidden cases, it has the mean of the
        public ones in place of the score, and fuel and memory of the public ones: results that differ only in
        hidden cases have the same text. A case without a name is numbered among the public ones.

        Args:
            max_chars: Most characters of the text, from 1.

        Raises:
            ConfigurationError: ``max_chars`` is below 1.
        """
        return _feedback(self, max_chars)

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
                ("image", self.image),
                ("peak memory, bytes", self.peak_memory_bytes),
                ("time, ms", self.evaluation_time_ms),
            ],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-compatible plain data: numbers, strings, lists and dicts.

        It has all fields by name; each case in ``test_results`` lacks only the returned value.
        ``evaluated_at`` is ISO 8601. For the author of the next variant use `feedback` or `artifacts`: this
        includes hidden cases.
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
        """Return details of the first failed public case, by name.

        Keys, each present only if not empty: ``case``, ``outcome``, ``remark``, ``error``, ``traceback``,
        ``stdout``, ``stderr``, ``limit``, ``fuel``. If no public case failed and the individual was not
        refused as a whole, only the remark of ``score`` on the first public case, or nothing.
        """
        return _artifacts(self)


def check_direction(direction: object) -> None:
    """Refuse an invalid direction.

    Raises:
        ConfigurationError: It is neither ``"maximize"`` nor ``"minimize"``.
    """
    if direction not in ("maximize", "minimize"):
        raise ConfigurationError(
            f'direction must be "maximize" or "minimize", not {direction!r}', "direction"
        )


def _feedback(result: FitnessResult, max_chars: int) -> str:
    if max_chars < 1:
        raise ConfigurationError(f"max_chars must be 1 or more, not {max_chars}", "max_chars")
    public = public_cases(result)
    text = _head(result, public)
    labelled = list(enumerate(public))
    failed = [one for one in labelled if not one[1].passed]
    ordered = failed + [one for one in labelled if one[1].passed]
    for place, (number, case) in enumerate(ordered):
        left = len(ordered) - place
        omission = f"\n({left} more public cases not shown)"
        space = max_chars - len(text) - 1 - (len(omission) if left > 1 else 0)
        share = max(space // max(1, len(failed) - place), _SMALLEST_BLOCK_CHARS)
        block = _case_block(_label(case, number), case, min(share, space))
        if len(block) > space:
            text += omission
            break
        text += "\n" + block
    return text if len(text) <= max_chars else text[:max_chars]


def _artifacts(result: FitnessResult) -> dict[str, str]:
    for number, case in enumerate(public_cases(result)):
        if not case.passed:
            return _case_artifacts(_label(case, number), case)
    if result.error and _refused_as_a_whole(result):
        found = {"outcome": result.reason or "", "error": _tail(result.error, _ARTIFACT_CHARS)}
        return {name: text for name, text in found.items() if text}
    for number, case in enumerate(public_cases(result)):
        if case.remark:
            return {"case": _label(case, number), "remark": _tail(case.remark, _ARTIFACT_CHARS)}
    return {}


def public_cases(result: FitnessResult) -> list[CaseResult]:
    """Return the cases that may be shown, in order."""
    return [case for case in result.test_results if case.public]


def tells_all(result: FitnessResult) -> bool:
    """Return whether a result contains nothing from hidden cases."""
    return result.all_public and all(case.public for case in result.test_results)


def public_error(result: FitnessResult) -> str | None:
    """Return the error of an individual as far as it may be shown; None if there is none."""
    if tells_all(result) and result.reason == "score":
        return "the scoring did not take what it returned"
    if tells_all(result) or _refused_as_a_whole(result):
        return result.error
    for number, case in enumerate(public_cases(result)):
        if not case.passed:
            return f"case {_label(case, number)}: {case.outcome.error or 'did not pass'}"
    return None


def public_fuel(result: FitnessResult) -> int:
    """Return the fuel of the public cases, or of all if all are public."""
    if tells_all(result):
        return result.fuel_used
    return sum(case.outcome.fuel_used for case in public_cases(result))


def public_parts(result: FitnessResult) -> dict[str, float]:
    """Return the parts of the score; if some cases are hidden, plain means over the public ones.

    A score without parts is then reported as ``score``.
    """
    if tells_all(result):
        return dict(result.components)
    scores = [case.score for case in public_cases(result)]
    if not scores:
        return {}
    if all(isinstance(score, int | float) for score in scores):
        return {"score": _mean([score for score in scores if isinstance(score, int | float)])}
    parts = [score for score in scores if isinstance(score, Mapping)]
    if len(parts) != len(scores) or any(part.keys() != parts[0].keys() for part in parts):
        return {}
    return {name: _mean([part[name] for part in parts]) for name in parts[0]}


def _mean(numbers: list[float]) -> float:
    return math.fsum(number / len(numbers) for number in numbers)


def _refused_as_a_whole(result: FitnessResult) -> bool:
    """Return whether an individual failed before any case was run, so that its error concerns none.

    An exception of the caller's function may quote expected values.
    """
    return not result.test_results and result.reason != "score"


def _case_artifacts(label: str, case: CaseResult) -> dict[str, str]:
    outcome = case.outcome
    found = {
        "case": label,
        "outcome": outcome.kind,
        "remark": _tail(case.remark or "", _ARTIFACT_CHARS),
        "error": _tail(outcome.error or "", _ARTIFACT_CHARS),
        "traceback": _tail(_traceback(outcome), _ARTIFACT_CHARS),
        "stdout": _tail(outcome.stdout, _ARTIFACT_CHARS),
        "stderr": _tail(outcome.stderr, _ARTIFACT_CHARS),
        "limit": _limit(outcome),
        "fuel": str(outcome.fuel_used),
    }
    return {name: text for name, text in found.items() if text}


def _head(result: FitnessResult, public: list[CaseResult]) -> str:
    lines = _score_of_all(result) if tells_all(result) else _score_of_public(result, public)
    if result.error and _refused_as_a_whole(result):
        lines.append("error: " + _tail(result.error, _ERROR_CHARS))
    peak = max((case.outcome.peak_memory_bytes for case in public), default=0)
    if tells_all(result):
        peak = result.peak_memory_bytes
    lines.append(f"fuel: {public_fuel(result):,}; peak memory: {peak:,} bytes")
    noted = next((case for case in public if case.outcome.imports_note), None)
    if noted is not None:
        lines.append(f"in case {_label(noted, public.index(noted))} {noted.outcome.imports_note}")
    if public:
        passed = sum(case.passed for case in public)
        lines.append(f"public cases: {len(public)}, {len(public) - passed} failed")
    return "\n".join(lines)


def _score_of_all(result: FitnessResult) -> list[str]:
    lines: list[str] = []
    if result.valid:
        lines.append(f"score: {result.fitness_score:g} (valid)")
    else:
        why = f": {result.reason}" if result.reason else ""
        lines.append(f"score: {result.fitness_score:g} (invalid{why})")
    if len(result.objectives) > 1:
        lines.append("objectives: " + ", ".join(f"{value:g}" for value in result.objectives))
    if result.components:
        lines.append("components: " + _parts(result.components))
    return lines


def _score_of_public(result: FitnessResult, public: list[CaseResult]) -> list[str]:
    if not result.test_results:
        return [f"invalid: {result.reason}"]
    if not public:
        return ["no case of this evaluation is shown"]
    parts = public_parts(result)
    return ["mean of the public cases: " + _parts(parts)] if parts else []


def _case_block(label: str, case: CaseResult, max_chars: int) -> str:
    """Format a case: a complete first line, and as many details as fit."""
    outcome = case.outcome
    verdict = "passed" if case.passed else "failed"
    line = f"case {label}: {verdict}, {outcome.kind}{_score(case)}, fuel"
    line += f" {outcome.fuel_used:,}"
    remark = ("score says", case.remark or "", _ERROR_CHARS)
    if case.passed:
        return line + (_section(*remark[:2], min(max_chars - len(line), _ERROR_CHARS)) if case.remark else "")
    details = [remark, ("error", outcome.error or "", _ERROR_CHARS)]
    if isinstance(outcome, Completed):
        details.append(("returned", _short_repr(outcome.value), _ERROR_CHARS))
    details.append(("traceback", _traceback(outcome), max_chars))
    details.append(("stderr", outcome.stderr, max_chars))
    details.append(("stdout", outcome.stdout, max_chars))
    present = [(title, text, most) for title, text, most in details if text.strip()]
    for place, (title, text, most) in enumerate(present):
        space = max_chars - len(line)
        share = min(space // (len(present) - place), most)
        line += _section(title, text, share)
    return line


def _section(title: str, text: str, max_chars: int) -> str:
    """Format the tail of a text under a title, indented so that it cannot imitate a line of the report."""
    opening = f"\n  {title}: "
    kept = max_chars - len(opening)
    if kept <= len(_CUT):
        return ""
    indent = "\n    "
    cleaned = _tail(text.strip("\n"), kept)
    if "\n" in cleaned:
        cleaned = indent + cleaned.replace("\n", indent)
    if len(cleaned) > kept:
        cleaned = indent + _CUT + cleaned[len(cleaned) - kept + len(indent) + len(_CUT) :]
    return opening + cleaned if len(cleaned) <= kept else ""


def _score(case: CaseResult) -> str:
    score = case.score
    if score is None:
        return ""
    return ", score " + (_parts(score) if isinstance(score, Mapping) else f"{score:g}")


def _parts(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{clean_line(str(name))}={part:g}" for name, part in list(parts.items())[:_COMPONENTS])


def _label(case: CaseResult, number: int) -> str:
    """Name a case, or number it among the public ones: its index among all would reveal hidden ones."""
    return clean_line(case.name)[:_NAME_CHARS] or f"#{number}"


def _traceback(outcome: Outcome) -> str:
    if isinstance(outcome, Raised):
        return outcome.traceback
    if isinstance(outcome, Rejected):
        return outcome.text or ""
    return ""


def _limit(outcome: Outcome) -> str:
    return (outcome.error or "") if isinstance(outcome, LimitExceeded) else ""


def _short_repr(value: object) -> str:
    try:
        return _value_repr.repr(value)
    except ValueError:  # an integer with more digits than Python converts to text
        return f"<{type(value).__name__}>"


def _tail(text: str, max_chars: int) -> str:
    """Return the tail of a text without control characters, marked if truncated."""
    if len(text) <= max_chars:
        return clean(text)
    return _CUT + clean(text[len(text) - max_chars + len(_CUT) :])
