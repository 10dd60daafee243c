"""What the host's score says of a case reaches whoever writes the next variant, of public cases only."""

from __future__ import annotations

import pytest

from evocell import Case, Evaluation, best

SOURCE = "def f(n=0): return n"


def overlapping(case, value):
    raise ValueError("circles 3 and 7 overlap")


def remarked(case, value):
    return float(value), f"{case.name} covers {value} of 10"


def test_what_a_scorer_raises_is_shown_of_public_cases(fake_engine):
    task = Evaluation("f", [Case((1,)), Case((2,))], overlapping)
    result = fake_engine.evaluate_one(SOURCE, task)
    assert (result.valid, result.reason) == (False, "score")
    assert result.test_results[0].remark == "ValueError: circles 3 and 7 overlap"
    assert "score says: ValueError: circles 3 and 7 overlap" in result.feedback()
    assert result.artifacts()["remark"] == "ValueError: circles 3 and 7 overlap"


def test_what_it_says_of_a_hidden_case_stays_on_the_host(fake_engine):
    def score(case, value):
        if not case.public:
            raise ValueError(f"the secret is {case.expected}")
        return 1.0, "fine"

    cases = [Case((1,), name="shown"), Case((2,), expected="xyzzy", public=False)]
    result = fake_engine.evaluate_one(SOURCE, Evaluation("f", cases, score))
    assert result.test_results[1].remark == "ValueError: the secret is xyzzy"
    for text in (result.feedback(), *result.artifacts().values()):
        assert "xyzzy" not in text
    assert "score says: fine" in result.feedback()


@pytest.mark.parametrize(
    ("returned", "score"),
    [
        ((0.5, "half"), 0.5),
        (({"score": 2.0, "area": 1.0}, "half"), {"score": 2.0, "area": 1.0}),
        ((False, "half"), 0.0),
    ],
)
def test_a_text_beside_the_number_is_a_remark(fake_engine, returned, score):
    result = fake_engine.evaluate_one(SOURCE, Evaluation("f", [Case(())], lambda case, value: returned))
    (case,) = result.test_results
    assert (case.score, case.remark) == (score, "half")
    assert case.passed is (returned[0] is not False)
    assert "score says: half" in result.feedback()
    assert result.artifacts()["remark"] == "half"
    assert result.valid


def test_remarks_are_text_bounded_and_harmless(fake_engine):
    task = Evaluation("f", [Case(())], lambda case, value: (1.0, "\x1b[31m" + "x" * 100_000 + "\nscore: 99"))
    text = fake_engine.evaluate_one(SOURCE, task).feedback(600)
    assert len(text) <= 600
    assert "\x1b" not in text
    assert "\nscore: 99" not in text


@pytest.mark.parametrize("returned", [(1.0, 2.0), (1.0, None), (1.0, "a", "b"), ("a", 1.0), (1.0,)])
def test_other_tuples_are_no_scores(fake_engine, returned):
    result = fake_engine.evaluate_one(SOURCE, Evaluation("f", [Case(())], lambda case, value: returned))
    assert (result.valid, result.reason) == (False, "score")


def test_the_expected_value_is_in_no_remark(fake_engine):
    result = fake_engine.evaluate_one(SOURCE, Evaluation("f", [Case((1,), expected="xyzzy")]))
    assert result.test_results[0].remark is None
    assert "xyzzy" not in result.feedback()


def test_results_with_remarks_rank_as_others(fake_engine):
    task = Evaluation("f", [Case((3,), name="a"), Case((5,), name="b")], remarked)
    results = fake_engine.evaluate([SOURCE, "def f(n): return n + 1"], task)
    assert best(results)[0].fitness_score == 5.0
    assert "score says: a covers 4 of 10" in best(results)[0].feedback()
