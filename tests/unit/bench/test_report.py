"""Rows over rounds, runs as files, and what is said to have moved between two of them."""

import json

import pytest

from compare import compare
from measures.render import BEGIN, END, docs_table, put_between, readme_table
from measures.report import Report, Row, three_figures
from measures.saved import load, save

MACHINE = {"date": "2026-01-02 03:04 UTC", "processor": "2 cores, A", "took": "9 s, 6 rounds", "evocell": "x"}


def run_with(rounds, *, name="a", ratios=None, tmp_path, unit="ms", target=None):
    report = Report(n_rounds=len(rounds))
    report.section = "part"
    for index, samples in enumerate(rounds):
        ratio = None if ratios is None else ratios[index]
        report.add(Row(name=name, samples=samples, ratio=ratio, unit=unit, target=target))
    path = tmp_path / "run.json"
    save(report, MACHINE, path)
    return load(path)


def test_rounds_of_a_row_come_together(tmp_path):
    run = run_with([(1.0, 3.0), (2.0, 4.0)], ratios=[2.0, 4.0], tmp_path=tmp_path, target=2.4)
    series = run.series["a"]
    assert series.samples == [1.0, 2.0, 3.0, 4.0]
    assert (series.median, series.medians) == (2.5, [2.0, 3.0])
    assert series.ratio.median == 3.0
    assert series.met is False
    assert series.section == "part"


@pytest.mark.parametrize(
    ("unit", "target", "met"),
    [("ms", 2.0, True), ("ms", 0.5, False), ("1/s", 0.5, True), ("1/s", 2.0, False)],
)
def test_a_target_is_the_most_or_the_least(tmp_path, unit, target, met):
    assert run_with([(1.0,)], unit=unit, target=target, tmp_path=tmp_path).series["a"].met is met


def test_a_round_takes_its_share():
    assert Report(n_rounds=6).share(300) == 50
    assert Report(n_rounds=6).share(3) == 2
    assert Report(n_rounds=6, quick=True).share(300) == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.001234, "0.00123"), (12.34, "12.3"), (1234.5, "1,234"), (0, "0"), (999.9, "1,000")],
)
def test_three_figures(value, shown):
    assert three_figures(value) == shown


def test_a_change_beyond_noise_has_moved(tmp_path):
    before = run_with([(1.0,), (1.1,), (1.0,), (1.05,), (1.0,), (1.02,)], tmp_path=tmp_path)
    after = run_with([(1.5,), (1.6,), (1.5,), (1.55,), (1.5,), (1.52,)], tmp_path=tmp_path)
    (move,) = compare(before, after)
    assert move.moved is True
    assert move.factor == pytest.approx(1.01 / 1.51)


def test_noise_has_not(tmp_path):
    before = run_with([(1.0,), (1.4,), (0.9,), (1.2,), (1.0,), (1.1,)], tmp_path=tmp_path)
    after = run_with([(1.2,), (1.3,), (1.1,), (1.4,), (1.2,), (1.0,)], tmp_path=tmp_path)
    assert [move.moved for move in compare(before, after)] == [False]
    same = run_with([(1.0,)] * 6, tmp_path=tmp_path)
    barely = run_with([(1.01,)] * 6, tmp_path=tmp_path)
    assert [move.moved for move in compare(same, barely)] == [False]


def test_a_faster_machine_moves_nothing_that_has_a_baseline(tmp_path):
    before = run_with([(1.0,)] * 6, ratios=[10.0, 10.1, 9.9, 10.0, 10.2, 9.8], tmp_path=tmp_path)
    after = run_with([(0.5,)] * 6, ratios=[10.1, 10.0, 9.9, 10.0, 10.1, 9.9], tmp_path=tmp_path)
    (move,) = compare(before, after)
    assert (move.moved, move.by_ratio) == (False, True)


def test_few_rounds_tell_nothing(tmp_path):
    before = run_with([(1.0,)] * 2, tmp_path=tmp_path)
    after = run_with([(9.0,)] * 6, tmp_path=tmp_path)
    assert [move.moved for move in compare(before, after)] == [None]


def test_tables_of_a_run(tmp_path):
    run = run_with([(0.149,), (0.15,)], name="engine: create | call", tmp_path=tmp_path, target=0.1)
    table = docs_table(run)
    assert "### Part" in table
    assert "- Target missed: engine: create | call: 150 against ≤ 100 ms." in table
    assert "Medians of 6 rounds on 2 cores, A, 2026-01-02." in readme_table(run)


def test_what_is_generated_stands_between_its_marks():
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert put_between(text, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(ValueError, match="has no <!--"):
        put_between("nothing", "new")


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"format": 2}), "[1]"])
def test_a_file_that_holds_no_run_is_said_so(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(SystemExit, match="does not hold a run"):
        load(path)
    with pytest.raises(SystemExit, match="just bench"):
        load(tmp_path / "none.json")


def test_a_run_of_another_format_is_said_so(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"format": 1}')
    with pytest.raises(SystemExit, match="another version"):
        load(path)
