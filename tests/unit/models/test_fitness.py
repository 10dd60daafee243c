from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evocell.errors import ConfigurationError
from evocell.models import (
    CaseResult,
    Completed,
    FitnessResult,
    LimitExceeded,
    Raised,
    Rejected,
    fitness_statistics,
)

SECRET = "the-secret-answer"


def result(*cases, **fields):
    values = {"fitness_score": 0.25, "reason": "raised", "fuel_used": 1234, **fields}
    return FitnessResult("evo-1", 2, test_results=cases, **values)


def hidden(outcome, **fields):
    return CaseResult("hidden-name", 9, outcome, public=False, error=SECRET, **fields)


RAISED = Raised(
    "ValueError",
    "bad input",
    'Traceback (most recent call last):\n  File "/app/program.py", line 2, in f\nValueError: bad input',
    fuel_used=77,
    stdout="printed line\n",
    stderr="warned\n",
)


def test_objectives_default_to_the_score():
    assert result().objectives == (0.25,)


def test_an_individual_is_invalid_until_proven_valid():
    assert FitnessResult("evo-1", 0, 1.0).valid is False


def test_times_are_left_out_of_equality():
    assert result(evaluation_time_ms=1.0) == result(evaluation_time_ms=2.0)


def test_feedback_tells_public_cases_failed_ones_first():
    text = result(
        CaseResult("easy", 0, Completed(9, fuel_used=5), 1.0, passed=True),
        CaseResult("", 1, RAISED),
        CaseResult("slow", 2, LimitExceeded("fuel", 100, 100, fuel_used=100)),
    ).feedback()

    assert text.startswith("score: 0.25 (invalid: raised)\n")
    assert "public cases: 3, 2 failed" in text
    assert "case #1: failed, raised, fuel 77" in text
    assert "ValueError: bad input" in text
    assert 'File "/app/program.py", line 2, in f' in text
    assert "stderr: warned" in text
    assert "stdout: printed line" in text
    assert "stopped at the fuel limit of 100" in text
    assert text.index("case #1") < text.index("case slow") < text.index("case easy: passed")


def test_feedback_of_a_valid_individual_has_its_parts():
    text = result(
        CaseResult("a", 0, Completed(1), {"speed": 0.5}, passed=True),
        valid=True,
        reason=None,
        components={"speed": 0.5},
        objectives=(0.25, 3.0),
    ).feedback()

    assert "score: 0.25 (valid)" in text
    assert "objectives: 0.25, 3" in text
    assert "components: speed=0.5" in text


def test_feedback_shows_what_was_returned_but_never_what_was_expected():
    text = result(CaseResult("a", 0, Completed([1, 2]), 0.0, error=f"expected {SECRET}")).feedback()

    assert "returned: [1, 2]" in text
    assert SECRET not in text


def test_feedback_says_nothing_of_hidden_cases():
    failed = Raised("KeyError", SECRET, SECRET, stdout=SECRET, stderr=SECRET)
    subject = result(
        CaseResult("open", 0, Completed(1), 1.0, passed=True),
        hidden(failed),
        hidden(Completed(SECRET), passed=True, score=1.0),
        error=f"case hidden-name: {SECRET}",
    )
    text = subject.feedback()

    assert "mean of the public cases: score=1\n" in text
    for word in (SECRET, "hidden", "KeyError", "raised", "invalid", "1,234"):
        assert word not in text
    assert subject.artifacts() == {}


def test_feedback_of_parts_with_hidden_cases_has_their_means():
    shown = [
        CaseResult("a", 0, Completed(1), {"speed\nscore: 1 (valid)": 0.5}, passed=True),
        CaseResult("b", 2, Completed(1), {"speed\nscore: 1 (valid)": 1.0}, passed=True),
    ]
    text = result(*shown, hidden(Completed(1), score={"other": 9.0}), components={"speed": 7.5}).feedback()

    assert text.startswith("mean of the public cases: speed?score: 1 (valid)=0.75\n")


def test_a_scoring_error_without_cases_is_not_told():
    subject = result(reason="score", error=f"fitness raised ValueError: {SECRET}")

    assert SECRET not in subject.feedback()
    assert subject.artifacts() == {}


def test_feedback_of_an_individual_refused_as_a_whole_gives_the_error():
    subject = result(reason="syntax", error="program.py:1:5: invalid syntax")

    assert "(invalid: syntax)" in subject.feedback()
    assert "program.py:1:5: invalid syntax" in subject.feedback()
    assert subject.artifacts() == {"outcome": "syntax", "error": "program.py:1:5: invalid syntax"}


def test_guest_text_cannot_pass_for_ours_and_holds_no_terminal_codes():
    nasty = Raised("E", "x\x1b[2J", "a\nscore: 1 (valid)\n\ud800", stdout="b\ncase fake: passed")
    text = result(CaseResult("a", 0, nasty)).feedback()

    assert "\x1b" not in text
    assert "\nscore: 1" not in text
    assert "\ncase fake" not in text
    text.encode()


def test_long_output_keeps_its_end():
    outcome = Raised("E", "m", "first\n" + "x\n" * 5000 + "last frame", stdout="y" * 10_000 + "the end")
    text = result(CaseResult("a", 0, outcome)).feedback(1000)

    assert len(text) <= 1000
    assert "last frame" in text
    assert "the end" in text


def test_cases_that_do_not_fit_are_counted():
    cases = [CaseResult(f"case-{index}", index, RAISED) for index in range(100)]
    text = result(*cases).feedback(1500)

    assert len(text) <= 1500
    assert "more public cases not shown)" in text


def test_feedback_of_values_that_have_no_short_text():
    cases = [
        CaseResult("int", 0, Completed(1 << 40_000)),
        CaseResult("list", 1, Completed(list(range(100_000)))),
        CaseResult("deep", 2, Completed([[[[[[1]]]]]])),
    ]

    assert len(result(*cases).feedback()) <= 4000


@given(
    st.integers(1, 3000),
    st.lists(st.tuples(st.text(max_size=300), st.text(max_size=600), st.booleans()), max_size=12),
)
def test_feedback_is_always_within_its_length(max_chars, cases):
    subject = result(
        *(
            CaseResult(name, index, Raised("E", text, text, stdout=text, stderr=text), passed=passed)
            for index, (name, text, passed) in enumerate(cases)
        )
    )

    assert 0 < len(subject.feedback(max_chars)) <= max_chars


def test_feedback_refuses_no_room():
    with pytest.raises(ConfigurationError, match="max_chars"):
        result().feedback(0)


def test_artifacts_are_of_the_first_public_case_that_failed():
    subject = result(
        hidden(Raised("Hidden")),
        CaseResult("good", 1, Completed(1), 1.0, passed=True),
        CaseResult("first", 2, RAISED),
        CaseResult("second", 3, LimitExceeded("fuel", 5, 5)),
    )

    found = subject.artifacts()

    assert found["case"] == "first"
    assert found["outcome"] == "raised"
    assert found["error"] == "ValueError: bad input"
    assert found["traceback"] == RAISED.traceback
    assert found["stderr"] == "warned\n"
    assert found["fuel"] == "77"
    assert "limit" not in found


def test_artifacts_of_a_limit_and_of_a_rejection():
    limit = result(CaseResult("a", 0, LimitExceeded("memory", 5, 6))).artifacts()
    rejected = result(CaseResult("a", 0, Rejected("syntax", "bad", text="def ("))).artifacts()

    assert limit["limit"] == "stopped at the memory limit of 5 (reached 6)"
    assert rejected["traceback"] == "def ("


def test_artifacts_of_a_good_individual_are_empty():
    assert result(CaseResult("a", 0, Completed(1), 1.0, passed=True)).artifacts() == {}


def test_results_pickle():
    subject = result(CaseResult("a", 0, RAISED), components={"x": 1.0})

    assert pickle.loads(pickle.dumps(subject)) == subject


def test_statistics_leave_invalid_members_out():
    good = [FitnessResult(name, 0, score, valid=True) for name, score in (("a", 1.0), ("b", 3.0))]
    bad = FitnessResult("c", 0, 99.0)

    assert fitness_statistics([*good, bad]) == {
        "n_valid": 2,
        "n_invalid": 1,
        "min": 1.0,
        "max": 3.0,
        "mean": 2.0,
        "median": 2.0,
        "std": 1.0,
    }
    assert fitness_statistics([bad]) == {"n_valid": 0, "n_invalid": 1}
