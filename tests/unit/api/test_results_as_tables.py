"""Results as plain data and as data frames: numbers stay numbers, and JSON works."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import textwrap

import pytest

import evocell
from evocell import Case, ConfigurationError, Evaluation, Stage

SOURCES = ["def f(n): return n", "def f(n): return n / 0", "def f(n: return"]


def score(case, value):
    return {"score": float(value), "area": 2.5}, "fine"


TASK = Evaluation("f", [Case((1,), name="one"), Case((3,), name="three", public=False)], score)


@pytest.fixture
def results(fake_engine):
    return fake_engine.evaluate(SOURCES, TASK, population="p", generation=4)


def test_a_result_is_plain_data(results):
    for result in results:
        plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert plain["sandbox_id"] == result.sandbox_id
        assert plain["fitness_score"] == result.fitness_score
        assert plain["valid"] is result.valid
        assert plain["fuel_used"] == result.fuel_used
    plain = results[0].to_dict()
    assert plain["components"] == {"score": 2.0, "area": 2.5}
    assert plain["objectives"] == [2.0]
    assert [case["name"] for case in plain["test_results"]] == ["one", "three"]
    assert plain["test_results"][0]["remark"] == "fine"
    assert plain["test_results"][0]["outcome"] == "completed"
    assert results[1].to_dict()["test_results"][0]["error"].startswith("ZeroDivisionError")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_results_are_a_data_frame_whose_numbers_are_columns(results, library):
    pytest.importorskip(library)
    frame = evocell.to_dataframe(results, library=library)
    assert type(frame).__module__.startswith(library)
    assert list(frame["sandbox_id"]) == [result.sandbox_id for result in results]
    assert list(frame["valid"]) == [True, False, False]
    assert list(frame["fuel_used"]) == [result.fuel_used for result in results]
    assert next(iter(frame["component_area"])) == 2.5
    missing = list(frame["component_area"])[1]
    assert missing is None or math.isnan(missing)
    kinds = {name: str(kind) for name, kind in zip(frame.columns, frame.dtypes, strict=True)}
    assert kinds["fitness_score"].lower() == kinds["component_score"].lower() == "float64"
    assert kinds["fuel_used"].lower() == "int64"
    assert "datetime" in kinds["evaluated_at"].lower()
    assert len(evocell.to_dataframe([], library=library)) == 0


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_what_the_engine_evaluated_is_a_data_frame(fake_engine, results, library):
    pytest.importorskip(library)
    parent = results[0].sandbox_id
    fake_engine.evaluate([SOURCES[0]], TASK, population="p", generation=5, parents=[parent])
    frame = fake_engine.fitness.to_dataframe(library=library)
    assert len(frame) == 4
    assert list(frame["generation"]) == [4, 4, 4, 5]
    assert list(frame["population"]) == ["p"] * 4
    assert list(frame["parents"])[3] == parent
    assert list(frame["component_score"])[-1] == 2.0
    assert len(fake_engine.fitness.to_dataframe(generation=5, library=library)) == 1
    assert len(fake_engine.fitness.to_dataframe(population="q", library=library)) == 0


def test_staged_results_and_entries_are_rows_as_well(fake_engine, results):
    pytest.importorskip("pandas")
    staged = fake_engine.evaluate_stages(SOURCES, [Stage(TASK)])
    assert list(evocell.to_dataframe(staged)["valid"]) == [True, False, False]
    assert list(evocell.to_dataframe(fake_engine.fitness.best())["score"]) == [2.0]


def test_several_objectives_are_a_column_each():
    pytest.importorskip("pandas")
    one = evocell.FitnessResult(
        "a", 0, 1.0, valid=True, objectives=(1.0, 2.0), directions=("maximize", "minimize")
    )
    frame = evocell.to_dataframe([one])
    assert (frame["objective_1"][0], frame["objective_2"][0]) == (1.0, 2.0)


def test_what_is_no_result_is_refused():
    with pytest.raises(ConfigurationError, match="results must be FitnessResults"):
        evocell.to_dataframe(["a"])
    with pytest.raises(ConfigurationError, match='library must be "pandas" or "polars"'):
        evocell.to_dataframe([], library="numpy")


def test_without_a_library_for_frames_a_sentence_says_what_to_install():
    program = """
    import sys
    sys.modules["pandas"] = sys.modules["polars"] = None
    import evocell
    try:
        evocell.to_dataframe([])
    except evocell.ConfigurationError as error:
        print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], check=True, capture_output=True, text=True
    )
    assert "pip install evocell[tables]" in done.stdout
