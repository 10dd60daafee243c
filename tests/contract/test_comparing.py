"""Programs measured and compared in real sandboxes."""

import pytest

from evocell import Case, Config, ConfigurationError, Engine, Evaluation, Limits

LOOP = "def total(n):\n    result = 0\n    for i in range(n):\n        result += i\n    return result"
FORMULA = "def total(n): return n * (n - 1) // 2"
TASK = Evaluation("total", [Case((n,), expected=n * (n - 1) // 2) for n in (10, 2_000)])


def test_a_program_is_measured(engine):
    seen = []
    measured = engine.measure(LOOP, TASK, repeats=3, progress=lambda done, total: seen.append((done, total)))
    assert measured.repeatable
    assert measured.result.valid
    assert len(measured.wall_s) == 3
    assert [len(walls) for walls in measured.case_wall_s] == [3, 3]
    assert 0 < measured.own_fuel < measured.fuel
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_verdict_by_fuel_is_the_same_every_time(engine):
    verdicts = {engine.compare(LOOP, FORMULA, TASK, repeats=2).fuel_ratio for _ in range(3)}
    assert len(verdicts) == 1
    assert engine.compare(LOOP, FORMULA, TASK, repeats=2).by_fuel == "second"
    assert engine.compare(FORMULA, LOOP, TASK, repeats=2).by_fuel == "first"
    assert engine.compare(LOOP, LOOP, TASK, repeats=2).by_fuel == "equal"


def test_a_program_that_fails_loses(engine):
    compared = engine.compare("def total(n): return", "def total(n:", TASK, repeats=1)
    assert compared.by_fuel == "first"
    endless = "def total(n):\n    while True: pass"
    bounded = Evaluation("total", TASK.cases, limits=Limits(fuel=10**7))
    assert engine.compare(endless, LOOP, bounded, repeats=1).by_fuel == "second"


def test_methods_in_packages_are_measured_too(engine):
    source = {
        "tools/__init__.py": "",
        "tools/sums.py": "class Sums:\n    class Inner:\n        total = staticmethod(lambda n: n)",
    }
    measured = engine.measure(
        source, Evaluation("tools.sums:Sums.Inner.total", [Case((1,), expected=0)]), repeats=1
    )
    assert measured.overhead_fuel > 0


@pytest.mark.parametrize("repeats", [0, True, 1.5])
def test_repeats_are_a_number_of_times(engine, repeats):
    with pytest.raises(ConfigurationError, match="whole number from 1"):
        engine.measure(LOOP, TASK, repeats=repeats)


def test_a_measurement_is_never_answered_from_memory():
    config = Config.load(memoise=True, workers=1)
    remembered = Evaluation("total", TASK.cases, memoise=True)
    with Engine(config) as engine:
        assert engine.evaluate_one(LOOP, remembered).valid
        assert engine.evaluate_one(LOOP, remembered).n_memoised == 2
        measured = engine.measure(LOOP, remembered, repeats=3)
    assert measured.result.n_memoised == 0
    assert len(set(measured.wall_s)) == 3
