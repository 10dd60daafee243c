"""Text about a fitness result for whoever, or whatever, writes the next variant.

What leaves from here goes back to the author of untrusted code, so it is built from a positive
list: the candidate's own output, the host's readings, and what the caller's own scoring said, of public
cases. How a value differs from what was expected is not in it, because that quotes what was expected.

A candidate chooses its fuel, its memory, how it fails and so its score to the last digit, case by
case. So where some cases are hidden, no number that was computed from them is in it either, not
even how many there are: results that differ in hidden cases alone have the same text.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from evocell.errors import ConfigurationError
from evocell.models.foreign import clean, clean_line
from evocell.models.outcome import Completed, LimitExceeded, Outcome, Raised, Rejected

if TYPE_CHECKING:
    from evocell.models.fitness import CaseResult, FitnessResult

_NAME_CHARS = 80
_ERROR_CHARS = 500
_ARTIFACT_CHARS = 16_384
_COMPONENTS = 32
_SMALLEST_BLOCK_CHARS = 240
_CUT = "[...] "

_value_repr = reprlib.Repr()
_value_repr.maxstring = _value_repr.maxother = 120
_value_repr.maxlevel = 3


def feedback(result: FitnessResult, max_chars: int) -> str:
    """Describe a result in at most ``max_chars`` characters; see `FitnessResult.feedback`.

    Raises:
        ConfigurationError: ``max_chars`` is below 1.
    """
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


def artifacts(result: FitnessResult) -> dict[str, str]:
    """Collect what is known of the first public case that failed; see `FitnessResult.artifacts`."""
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
    """Whether nothing in a result comes from a case that must stay hidden."""
    return result.all_public and all(case.public for case in result.test_results)


def public_error(result: FitnessResult) -> str | None:
    """Say what an individual did wrong, as far as that may be shown; None for nothing."""
    if tells_all(result) and result.reason == "score":
        return "the scoring did not take what it returned"
    if tells_all(result) or _refused_as_a_whole(result):
        return result.error
    for number, case in enumerate(public_cases(result)):
        if not case.passed:
            return f"case {_label(case, number)}: {case.outcome.error or 'did not pass'}"
    return None


def public_fuel(result: FitnessResult) -> int:
    """Return the fuel of the cases that may be shown, or of all if all may be."""
    if tells_all(result):
        return result.fuel_used
    return sum(case.outcome.fuel_used for case in public_cases(result))


def public_parts(result: FitnessResult) -> dict[str, float]:
    """Return the parts of the score, of the cases that may be shown; if others are hidden, plain means.

    A score without parts is then ``score``.
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
    """Whether an individual failed before any case was run, so that its error speaks of none.

    What a function of the caller's raised may quote what it expected.
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
    """One case: a line that is always whole, and what of the details fits."""
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
    """The end of a text under its title, indented so that it cannot pass for a line of ours."""
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
    """Name a case, or number it among the public ones: its place among all would tell of hidden ones."""
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
    except ValueError:  # an integer of more digits than Python converts to text
        return f"<{type(value).__name__}>"


def _tail(text: str, max_chars: int) -> str:
    """The end of a text without control characters, marked if something was cut off."""
    if len(text) <= max_chars:
        return clean(text)
    return _CUT + clean(text[len(text) - max_chars + len(_CUT) :])
