"""Outcomes that are kept are scored again by a changed scorer, and nobody runs again."""

from __future__ import annotations

import pytest

import evocell
from evocell import Case, ConfigurationError, Evaluation

CASES = [Case((1,), expected=1, name="one"), Case((3,), expected=9)]
SOURCES = ["def f(n): return n * n", "def f(n): return n", "def f(n): return n / 0", "def f(n: return"]
OLD = Evaluation("f", CASES)


def changed(**settings):
    return Evaluation("f", CASES, lambda case, value: (-abs(value - case.expected), "off"), **settings)


def test_a_changed_scorer_scores_what_was_kept(fake_engine, fake_workers):
    results = fake_engine.evaluate(SOURCES, OLD)
    n_calls = fake_workers.last.count["call"]
    again = evocell.rescore(results, changed(failure=-1e9))
    assert fake_workers.last.count["call"] == n_calls
    assert [one.fitness_score for one in again] == [0.0, -3.0, -1e9, -1e9]
    assert [one.valid for one in again] == [True, True, False, False]
    assert [one.reason for one in again] == [one.reason for one in results]
    assert [one.sandbox_id for one in again] == [one.sandbox_id for one in results]
    assert [one.fuel_used for one in again] == [one.fuel_used for one in results]
    assert again[0].test_results[0].remark == "off"
    assert [one.fitness_score for one in results] == [1.0, 0.5, 0.0, 0.0]  # as they were
    assert again == list(fake_engine_results(fake_engine, again))
    assert evocell.rescore(again, OLD)[1].fitness_score == 0.5


def fake_engine_results(engine, again):
    """What the engine finds with the new scorer, under the names of the old results."""
    from attrs import evolve

    found = engine.evaluate(SOURCES, changed(failure=-1e9))
    return [evolve(one, sandbox_id=other.sandbox_id) for one, other in zip(found, again, strict=True)]


def test_directions_and_objectives_are_those_of_the_new_evaluation(fake_engine):
    results = fake_engine.evaluate(SOURCES[:2], OLD)
    two = Evaluation(
        "f", CASES, lambda case, value: float(value), aggregate=lambda cases: (1.0, 2.0),
        directions=("minimize", "maximize"), failure=(9.0, 0.0),
    )  # fmt: skip
    (first, _) = evocell.rescore(results, two)
    assert (first.objectives, first.directions) == ((1.0, 2.0), ("minimize", "maximize"))


def test_what_cannot_be_scored_again_is_refused(fake_engine):
    results = fake_engine.evaluate(SOURCES, OLD)
    with pytest.raises(ConfigurationError, match="has 2 cases and the evaluation has 1"):
        evocell.rescore(results, Evaluation("f", CASES[:1]))
    with pytest.raises(ConfigurationError, match="rescore takes FitnessResults"):
        evocell.rescore(["a"], OLD)
    with pytest.raises(ConfigurationError, match=r"must be an evocell\.Evaluation"):
        evocell.rescore(results, "equal")


def test_a_broken_scorer_is_said_to_be_so(fake_engine):
    results = fake_engine.evaluate(SOURCES[:2], OLD)

    def broken(case, value):
        raise KeyError(value)

    with pytest.raises(evocell.ScoringError, match="KeyError"):
        evocell.rescore(results, Evaluation("f", CASES, broken))
