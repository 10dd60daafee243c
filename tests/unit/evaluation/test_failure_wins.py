"""What fails must not win: a warning where a failure would count more, and rankings that heed validity and direction."""

from __future__ import annotations

import logging

import pytest

import evocell
from evocell import Case, ConfigurationError, Evaluation, FitnessResult, Offspring

CASE = [Case(())]
CRASH = "def f(): raise KeyError"


def constant(score):
    return f"def f(): return {score}"


def negated(**settings):
    return Evaluation("f", CASE, lambda case, value: -value, **settings)


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if "failure" in record.getMessage()]


@pytest.mark.parametrize(
    ("settings", "score", "worse"),
    [
        ({}, lambda case, value: -value, "-3"),
        ({"failure": 2.5}, lambda case, value: 1.5, "1.5"),
        ({"failure": 10.0, "directions": ("minimize",)}, lambda case, value: 12.5, "12.5"),
        ({"failure": (0.0, 9.0), "directions": ("maximize", "minimize"), "aggregate": lambda cases: (1.0, 9.5)},
         lambda case, value: 1.0, "9.5"),
    ],
    ids=["negated errors", "above zero", "minimised", "the second objective"],
)  # fmt: skip
def test_a_failure_that_would_win_is_named_once(fake_engine, caplog, settings, score, worse):
    task = Evaluation("f", CASE, score, **settings)
    with caplog.at_level(logging.WARNING, "evocell"):
        for _ in range(3):
            fake_engine.evaluate([constant(3), constant(3), CRASH], task)
        fake_engine.evaluate_one(constant(3), task)
    (warning,) = warnings_in(caplog)
    assert worse in warning
    assert f"failure={task.failure if task.failure is not None else 0.0!r}" in warning
    assert "valid" in warning


def test_each_evaluation_warns_for_itself(fake_engine, caplog):
    fake_engine.evaluate([constant(3)], negated())
    fake_engine.evaluate([constant(3)], negated(failure=-1.0))
    fake_engine.evaluate([constant(3)], negated(failure=-1e9))
    assert len(warnings_in(caplog)) == 2


def test_a_fitness_function_is_warned_about_as_well(fake_engine, caplog):
    with fake_engine.create_sandbox(source=constant(3)) as sandbox:
        for _ in range(2):
            fake_engine.batch_evaluate([sandbox], lambda one: -one.run("f").unwrap())
    assert len(warnings_in(caplog)) == 1


def test_a_score_that_is_better_or_as_good_warns_of_nothing(fake_engine, caplog):
    fake_engine.evaluate([constant(0), constant(2), CRASH], Evaluation("f", CASE, lambda case, value: value))
    task = Evaluation("f", CASE, lambda case, value: value, directions=("minimize",), failure=5.0)
    fake_engine.evaluate([constant(5), constant(2), CRASH], task)
    assert warnings_in(caplog) == []


def test_best_of_results_heeds_validity_and_direction(fake_engine):
    sources = [constant(3), CRASH, constant(1), constant(2)]
    results = fake_engine.evaluate(sources, negated())
    assert evocell.best(results) == [results[2]]
    assert evocell.best(results, 9) == [results[2], results[3], results[0]]
    small = Evaluation("f", CASE, lambda case, value: value, directions=("minimize",), failure=0.0)
    results = fake_engine.evaluate(sources, small)
    assert results[0].directions == ("minimize",)
    assert evocell.best(results) == [results[2]]
    assert evocell.best(results, direction="maximize") == [results[0]]
    assert evocell.best(fake_engine.evaluate([CRASH], negated())) == []


def test_best_refuses_what_it_cannot_rank(fake_engine):
    up = FitnessResult("a", 0, 1.0, valid=True)
    down = FitnessResult("b", 0, 1.0, valid=True, directions=("minimize",))
    with pytest.raises(ConfigurationError, match="different directions; give direction="):
        evocell.best([up, down])
    assert evocell.best([up, down], direction="minimize") == [up]
    with pytest.raises(ConfigurationError, match='direction must be "maximize" or "minimize"'):
        evocell.best([up], direction="up")
    with pytest.raises(ConfigurationError, match="most must be a whole number from 1"):
        evocell.best([up], 0)
    with pytest.raises(ConfigurationError, match="results must be FitnessResults, not 'a'"):
        evocell.best(["a"])


def test_a_population_is_ranked_as_its_evaluation_says(fake_engine):
    small = Evaluation("f", CASE, lambda case, value: value, directions=("minimize",), failure=0.0)
    fake_engine.evaluate([constant(3), CRASH, constant(1)], small, population="implied")
    assert fake_engine.best("implied")[0].get_info().fitness == 1
    fake_engine.create_population("entered")
    fake_engine.next_generation("entered", [Offspring(constant(n)) for n in (3, 1, 2)])
    fake_engine.evaluate_generation("entered", small)
    assert fake_engine.best("entered")[0].get_info().fitness == 1
    assert fake_engine.fitness.best(population="entered")[0].score == 1
    assert fake_engine.fitness.best()[0].score == 1
    assert fake_engine.fitness.best(direction="maximize")[0].score == 3


def test_a_direction_that_was_given_stays_and_a_contradiction_is_told(fake_engine, caplog):
    fake_engine.create_population("p", direction="maximize")
    fake_engine.next_generation("p", [Offspring(constant(n)) for n in (3, 1)])
    small = Evaluation("f", CASE, lambda case, value: value, directions=("minimize",), failure=9.0)
    fake_engine.evaluate_generation("p", small)
    fake_engine.evaluate_generation("p", small)
    assert fake_engine.best("p")[0].get_info().fitness == 3
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "'p'" in warning
    assert "minimize" in warning


def test_a_fitness_function_in_a_minimised_population_gives_results_that_say_so(fake_engine):
    fake_engine.create_population("p", direction="minimize")
    fake_engine.next_generation("p", [Offspring(constant(n)) for n in (3, 1)])
    results = fake_engine.evaluate_generation("p", lambda one: one.run("f").unwrap())
    assert evocell.best(results)[0].fitness_score == 1
    assert fake_engine.fitness.best()[0].score == 1
