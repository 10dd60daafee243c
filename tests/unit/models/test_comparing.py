import random

import pytest

from evocell.models.fitness import CaseResult, FitnessResult
from evocell.models.measurement import Comparison, Interval, Measurement
from evocell.models.outcome import Completed, Raised


def result(*walls, fuel=10, memory=0, valid=True, score=1.0):
    cases = tuple(
        CaseResult(
            "",
            index,
            Completed(value=1, fuel_used=fuel, wall_s=wall)
            if valid
            else Raised("ValueError", fuel_used=fuel),
            passed=valid,
        )
        for index, wall in enumerate(walls)
    )
    return FitnessResult(
        "x",
        0,
        score if valid else 0.0,
        test_results=cases,
        valid=valid,
        reason=None if valid else "raised",
        fuel_used=fuel * len(walls),
        peak_memory_bytes=memory,
    )


def measured(*walls, **options):
    return Measurement.of([result(wall, **options) for wall in walls])


@pytest.mark.parametrize(("n", "skipped"), [(6, 0), (8, 0), (9, 1), (12, 2), (20, 5)])
def test_the_interval_of_a_median_by_the_sign_test(n, skipped):
    """The bounds are those of the tables of the sign test for 95 %."""
    interval = Interval.of(list(range(n)))
    assert (interval.low, interval.high, interval.n) == (skipped, n - 1 - skipped, n)


def test_few_samples_bound_nothing():
    assert Interval.of([1.0] * 5).high == float("inf")
    assert not Interval.of([2.0] * 5).excludes_one
    assert Interval.of([2.0] * 6).excludes_one


def test_an_interval_holds_the_true_median_as_often_as_it_says():
    generator = random.Random(7)
    held = 0
    for _ in range(2_000):
        interval = Interval.of([generator.expovariate(1.0) for _ in range(9)])
        held += interval.low <= 0.6931 <= interval.high
    assert 0.95 <= held / 2_000 <= 0.98


def test_repeats_are_put_together():
    both = Measurement.of([result(0.1, 0.2), result(0.3, 0.4)])
    assert both.wall_s == pytest.approx((0.3, 0.7))
    assert both.case_wall_s == ((0.1, 0.3), (0.2, 0.4))
    assert both.repeatable
    assert (both.fuel, both.own_fuel) == (20, 20)


def test_own_fuel_is_what_the_call_itself_does_not_take():
    assert Measurement.of([result(0.1, fuel=30)], overhead_fuel=20).own_fuel == 10
    assert Measurement.of([result(0.1, fuel=10)], overhead_fuel=20).own_fuel == 0


@pytest.mark.parametrize("other", [{"fuel": 11}, {"memory": 1}, {"score": 2.0}, {"valid": False}])
def test_repeats_that_differ_are_not_repeatable(other):
    assert not Measurement.of([result(0.1), result(0.1, **other)]).repeatable


def test_the_cheaper_one_wins_by_fuel_and_memory_whatever_the_clock_says():
    compared = Comparison(measured(0.1, fuel=10, memory=5), measured(0.01, fuel=40, memory=2))
    assert (compared.by_fuel, compared.by_memory) == ("first", "second")
    assert (compared.fuel_ratio, compared.memory_ratio) == (4.0, 0.4)
    assert compared.by_time == "undecided"  # one repeat bounds nothing


def test_time_decides_only_beyond_noise():
    steady = Comparison(measured(*[1.0] * 9), measured(*[1.2] * 9))
    noisy = Comparison(measured(*[1.0] * 9), measured(1.2, 0.9, 1.1, 0.8, 1.3, 0.9, 1.0, 1.2, 0.9))
    assert steady.by_time == "first"
    assert noisy.by_time == "undecided"
    assert Comparison(measured(*[1.2] * 9), measured(*[1.0] * 9)).by_time == "second"


def test_one_that_failed_never_wins():
    good, bad = measured(1.0, fuel=99), measured(0.1, fuel=1, valid=False)
    for verdict in ("by_fuel", "by_memory", "by_time"):
        assert getattr(Comparison(good, bad), verdict) == "first"
        assert getattr(Comparison(bad, good), verdict) == "second"
        assert getattr(Comparison(bad, bad), verdict) == "undecided"


def test_equal_costs_are_equal_and_what_varies_is_undecided():
    assert Comparison(measured(0.1), measured(0.2)).by_fuel == "equal"
    varying = Measurement.of([result(0.1, fuel=1), result(0.1, fuel=2)])
    assert Comparison(varying, measured(0.1)).by_fuel == "undecided"


def test_nothing_that_ran_has_no_ratio():
    nothing = Measurement.of([result()])
    compared = Comparison(nothing, nothing)
    assert (compared.fuel_ratio, compared.memory_ratio, compared.wall_ratio) == (None, None, None)
