"""From outcomes to fitness: failure never wins, and the caller's own mistakes are told apart."""

import math

import numpy as np
import pytest
from attrs import evolve

from evocell.errors import OutcomeError
from evocell.evaluation.scoring import from_function, judge, should_stop, summarise, unscored
from evocell.models import Case, Completed, Evaluation, LimitExceeded, Raised
from evocell.models.fitness import FitnessResult


def scored(evaluation, outcomes, **more):
    judged = [judge(evaluation, index, outcome) for index, outcome in enumerate(outcomes)]
    return summarise(evaluation, judged, sandbox_id="s", generation=2, evaluation_time_ms=1.0, **more)


def evaluation(n=2, **more):
    return Evaluation("f", [Case((i,), expected=i) for i in range(n)], **more)


def done(value, **more):
    return Completed(value=value, fuel_used=10, peak_memory_bytes=5, **more)


def test_the_mean_of_equal_cases_is_the_fitness():
    result = scored(evaluation(), [done(0), done(7)]).result
    assert (result.fitness_score, result.valid, result.reason, result.objectives) == (0.5, True, None, (0.5,))
    assert [case.passed for case in result.test_results] == [True, False]
    assert result.test_results[1].error == "expected 1, got 7"
    assert (result.fuel_used, result.peak_memory_bytes, result.generation) == (20, 5, 2)


def test_a_failed_call_makes_the_individual_invalid_whatever_the_rest():
    result = scored(evaluation(), [done(0), Raised("ValueError", "no")]).result
    assert (result.valid, result.fitness_score, result.reason) == (False, 0.0, "raised")
    assert result.error == "case 1: ValueError: no"
    assert len(result.test_results) == 2


def test_an_invalid_individual_gets_the_given_failure():
    task = evaluation(directions=("minimize", "maximize"), failure=(9.0, -9.0), aggregate=lambda _: (1, 2))
    assert scored(task, [done(0), done(1)]).result.objectives == (1.0, 2.0)
    listed = evolve(task, aggregate=lambda cases: list(task.aggregate(cases)), failure=[9.0, -9.0])
    assert scored(listed, [done(0), done(1)]).result.objectives == (1.0, 2.0)
    assert listed.failure_objectives == (9.0, -9.0)
    failed = scored(task, [done(0), LimitExceeded("fuel", deterministic=False)]).result
    assert (failed.objectives, failed.fitness_score, failed.deterministic) == ((9.0, -9.0), 9.0, False)


def test_a_mapping_gives_components_and_its_headline():
    task = evaluation(score=lambda _, value: {"score": value, "speed": 2})
    result = scored(task, [done(1), done(3)]).result
    assert result.components == {"score": 2.0, "speed": 2.0}
    assert result.fitness_score == 2.0
    plain = scored(evaluation(score=lambda *_: {"a": 1, "b": 3}), [done(0), done(0)]).result
    assert plain.fitness_score == 2.0


@pytest.mark.parametrize(
    ("given", "phrase"),
    [
        (math.nan, "score returned nan, which is not finite"),
        (math.inf, "score returned inf, which is not finite"),
        (None, "score returned None, which is not a number"),
        ("1", "score returned '1', which is not a number"),
        (np.zeros(2), "which is not one number"),
        (10**400, "which is not one number"),
        ({}, "an empty mapping"),
        ({1: 2}, "whose key 1 is not a string"),
        ({"a": math.nan}, "nan, which is not finite as the part 'a'"),
    ],
)
def test_an_unusable_score_is_data(given, phrase):
    one = scored(evaluation(1, score=lambda *_: given), [done(0)])
    assert (one.result.valid, one.result.reason, one.raised) == (False, "score", None)
    assert phrase in one.result.error


def test_a_score_that_raises_is_data_and_remembered():
    def score(case, value):
        raise KeyError("x")

    one = scored(evaluation(1, score=score), [done(0)])
    assert (one.result.reason, one.result.error) == ("score", "case 0: score raised KeyError: 'x'")
    assert isinstance(one.raised, KeyError)
    assert one.asked


def test_a_score_is_not_asked_about_a_failed_call():
    one = scored(evaluation(1, score=lambda *_: 1 / 0), [Raised("E")])
    assert not one.asked
    assert one.result.reason == "raised"


@pytest.mark.parametrize(
    ("aggregate", "phrase"),
    [
        (lambda _: math.nan, "aggregate gave nan"),
        (lambda _: (1, 2), "2 objectives for 1 directions"),
        (lambda _: 1 / 0, "aggregate raised ZeroDivisionError"),
    ],
)
def test_a_broken_aggregate_is_data(aggregate, phrase):
    result = scored(evaluation(1, aggregate=aggregate), [done(0)]).result
    assert result.reason == "score"
    assert phrase in result.error


def test_cases_with_different_parts_have_no_mean():
    task = evaluation(score=lambda case, _: {"a": 1} if case.expected else {"b": 1})
    assert "no mean" in scored(task, [done(0), done(1)]).result.error


def test_the_mean_of_the_largest_floats_is_finite():
    big = 1.7e308
    assert scored(evaluation(score=lambda *_: big), [done(0), done(0)]).result.fitness_score == big


def test_stopping_early_never_helps():
    task = evaluation(4, stop="first_failure")
    judged = [judge(task, 0, done(0)), judge(task, 1, done(5))]
    assert should_stop(task, judged[:1]) == (False, None)
    assert should_stop(task, judged) == (True, None)
    assert scored(task, [done(0), done(5)]).result.fitness_score == 0.25


def test_a_minimised_objective_stopped_early_is_filled_with_failure():
    task = evaluation(4, score=lambda *_: 2.0, directions=("minimize",), failure=100.0, stop=lambda _: True)
    assert scored(task, [done(0)]).result.fitness_score == 75.5


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (False, False),
        (np.False_, False),
        (np.array(False), False),
        (True, True),
        (np.True_, True),
        (0.0, True),
    ],
)
def test_a_score_of_false_does_not_pass_whoever_made_it(given, passed):
    case = judge(evaluation(score=lambda _case, _value: given), 0, done(0)).case
    assert (case.passed, case.score) == (passed, float(given))


def test_a_stop_predicate_that_raises_is_data():
    task = evaluation(2, stop=lambda _: 1 / 0)
    stop, raised = should_stop(task, [judge(task, 0, done(0))])
    assert stop
    one = scored(task, [done(0)], stop_raised=raised)
    assert (one.result.reason, one.raised) == ("score", raised)


def test_a_hidden_cases_name_is_not_in_the_error():
    task = Evaluation("f", [Case(expected=1, name="secret", public=False)])
    assert scored(task, [Raised("E", "x")]).result.error == "case 0: E: x"


def test_unscored_keeps_what_ran():
    result = unscored(evaluation(), LimitExceeded("timeout"), {0: done(0)}, sandbox_id="s", generation=0)
    assert (result.reason, result.fuel_used, len(result.test_results)) == ("timeout", 10, 1)


def test_what_a_fitness_function_may_return():
    def result(value=None, raised=None):
        return from_function(value, raised, sandbox_id="s", generation=1, evaluation_time_ms=2.0)

    assert result(3).result.fitness_score == 3.0
    assert result({"a": 1, "b": 2}).result.components == {"a": 1.0, "b": 2.0}
    own = FitnessResult("other", 0, 1.0, valid=True, error="said")
    assert result(own).result == evolve(own, sandbox_id="s", generation=1)
    assert result("x").result.reason == "score"
    assert "return what its unwrap() returns" in result(done(1)).result.error
    assert result(raised=ValueError("v")).raised is not None
    failed = result(raised=OutcomeError(LimitExceeded("memory")))
    assert (failed.result.reason, failed.raised) == ("memory", None)
