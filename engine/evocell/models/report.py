"""Text about a fitness result for whoever, or whatever, writes the next variant.

What leaves from here goes back to the author of untrusted code, so it is built from a positive
list: the candidate's own output, the host's readings, and what the caller's own scoring said, of public
cases. How a value differs from what was expected is not in it, because that quotes what was expected.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from evocell.errors import ConfigurationError
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
    text = _head(result)
    public = [case for case in result.test_results if case.public]
    failed = [case for case in public if not case.passed]
    ordered = failed + [case for case in public if case.passed]
    for place, case in enumerate(ordered):
        left = len(ordered) - place
        omission = f"\n({left} more public cases not shown)"
        space = max_chars - len(text) - 1 - (len(omission) if left > 1 else 0)
        share = max(space // max(1, len(failed) - place), _SMALLEST_BLOCK_CHARS)
        block = _case_block(case, min(share, space))
        if len(block) > space:
            text += omission
            break
        text += "\n" + block
    return text if len(text) <= max_chars else text[:max_chars]


def artifacts(result: FitnessResult) -> dict[str, str]:
    """Collect what is known of the first public case that failed; see `FitnessResult.artifacts`."""
    for case in result.test_results:
        if case.public and not case.passed:
            return _case_artifacts(case)
    if result.error and _tells_only_public(result):
        found = {"outcome": result.reason or "", "error": _tail(result.error, _ARTIFACT_CHARS)}
        return {name: text for name, text in found.items() if text}
    for case in result.test_results:
        if case.public and case.remark:
            return {"case": _label(case), "remark": _tail(case.remark, _ARTIFACT_CHARS)}
    return {}


def _case_artifacts(case: CaseResult) -> dict[str, str]:
    outcome = case.outcome
    found = {
        "case": _label(case),
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


def _tells_only_public(result: FitnessResult) -> bool:
    """Whether the result as a whole cannot speak of a case that must stay hidden."""
    return all(case.public for case in result.test_results)


def _head(result: FitnessResult) -> str:
    lines: list[str] = []
    cases = result.test_results
    public = [case for case in cases if case.public]
    open_to_all = len(public) == len(cases)
    if result.valid:
        lines.append(f"score: {result.fitness_score:g} (valid)")
    else:
        shown = open_to_all or any(case.outcome.kind == result.reason for case in public)
        why = f": {result.reason}" if result.reason and shown else ""
        lines.append(f"score: {result.fitness_score:g} (invalid{why})")
    if len(result.objectives) > 1:
        lines.append("objectives: " + ", ".join(f"{value:g}" for value in result.objectives))
    if result.components:
        parts = list(result.components.items())[:_COMPONENTS]
        lines.append("components: " + ", ".join(f"{_clean(str(name))}={part:g}" for name, part in parts))
    if result.error and not cases:
        lines.append("error: " + _tail(result.error, _ERROR_CHARS))
    lines.append(f"fuel: {result.fuel_used:,}; peak memory: {result.peak_memory_bytes:,} bytes")
    if public:
        passed = sum(case.passed for case in public)
        lines.append(f"public cases: {len(public)}, {len(public) - passed} failed")
    if not open_to_all:
        hidden = [case for case in cases if not case.public]
        failed = sum(not case.passed for case in hidden)
        lines.append(f"hidden cases: {len(hidden)}, {failed} failed")
    return "\n".join(lines)


def _case_block(case: CaseResult, max_chars: int) -> str:
    """One case: a line that is always whole, and what of the details fits."""
    outcome = case.outcome
    verdict = "passed" if case.passed else "failed"
    line = f"case {_label(case)}: {verdict}, {outcome.kind}{_score(case)}, fuel"
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
    if isinstance(score, Mapping):
        parts = list(score.items())[:_COMPONENTS]
        return ", score " + ", ".join(f"{_clean(str(name))}={part:g}" for name, part in parts)
    return f", score {score:g}"


def _label(case: CaseResult) -> str:
    return _clean(case.name)[:_NAME_CHARS] or f"#{case.index}"


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
        return _clean(text)
    return _CUT + _clean(text[len(text) - max_chars + len(_CUT) :])


def _clean(text: str) -> str:
    """Replace what is neither printable, nor a line end, nor a tab (terminal codes, surrogates)."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)
