"""`evocell report`: what it says of a run, and that what candidates wrote stays data."""

import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from evocell import Case, Config, Engine, Evaluation
from evocell.cli.main import main
from evocell.cli.top import RunWatcher
from evocell.page.html import render
from evocell.page.search import read_run
from evocell.store.database import open_reader

SQUARE = "def solve(n): return n * n"
BETTER = "def solve(n): return n * n + 1"
HOSTILE = "def solve(n): return n  # </script><script>alert(1)</script><!-- {{data}} &amp; {{title}}"
RAISES = "def solve(n): raise ValueError('<img src=x onerror=alert(1)>')"


def task(direction="maximize"):
    failure = None if direction == "maximize" else (1e9,)
    return Evaluation(
        "solve", [Case((2,))], lambda case, value: float(value), directions=(direction,), failure=failure
    )


@pytest.fixture
def state(fake_workers, tmp_path):
    place = tmp_path / "state"
    with Engine(Config(state_dir=place), open_worker=fake_workers) as engine:
        (seed,) = engine.evaluate([SQUARE], task())
        children = engine.evaluate(
            [BETTER, HOSTILE, RAISES], task(), generation=1, parents=[seed.sandbox_id] * 3
        )
        engine.lineage.annotate(children[0].sandbox_id, {"operator": "plus <one>"})
        engine.evaluate_one("def other(): return 99", Evaluation("other", [Case(())], lambda _, value: value))
    return place


def read(state, **more):
    connection = open_reader(state)
    try:
        return read_run(connection, **more)
    finally:
        connection.close()


def test_a_run_is_summed_up(state):
    data = read(state)
    assert (data["n_individuals"], data["n_valid"], data["n_left_out"]) == (4, 3, 1)
    assert data["direction"] == "maximize"
    assert data["deaths"] == [("raised", 1)]
    first, second = data["columns"]
    assert (first["label"], first["n"], first["best"], first["quartiles"]) == (0, 1, 4.0, [4.0] * 3)
    assert (second["n_valid"], second["low"], second["high"], second["best"]) == (2, 2.0, 5.0, 5.0)
    assert second["deaths"] == {"raised": 1}
    assert data["leaders"][0]["score"] == 5.0
    assert data["fuel"] == 28


def test_the_best_is_shown_with_its_ancestors_sources_and_differences(state):
    data = read(state)
    tree = {one["id"]: one for one in data["tree"]}
    best = next(one for one in data["tree"] if one["number"] == data["best"])
    assert best["source"] == BETTER
    assert best["notes"] == {"operator": "plus <one>"}
    (parent,) = best["parents"]
    assert tree[parent["id"]]["source"] == SQUARE
    assert "-def solve(n): return n * n\n" in parent["diff"]
    assert "+def solve(n): return n * n + 1\n" in parent["diff"]
    assert [one["id"] for one in data["tree"] if one["in_line"]] == [parent["id"], best["id"]]
    assert data["n_family"] == 2


def test_less_may_be_better(fake_workers, tmp_path):
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine:
        engine.evaluate([SQUARE, BETTER, HOSTILE], task("minimize"))
    data = read(tmp_path)
    assert data["direction"] == "minimize"
    assert [one["score"] for one in data["leaders"]] == [2.0, 4.0, 5.0]
    assert read(tmp_path, direction="maximize")["leaders"][0]["score"] == 5.0


def test_adjusted_fitness_counts(fake_workers, tmp_path):
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine:
        results = engine.evaluate([SQUARE, BETTER], task())
        engine.fitness.adjust(results[0].sandbox_id, 10.0, "elegant")
    assert read(tmp_path)["leaders"][0]["id"] == results[0].sandbox_id


def test_a_run_without_generations_is_shown_in_windows(fake_workers, tmp_path):
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine:
        engine.evaluate([SQUARE] * 100, task())
    data = read(tmp_path)
    assert data["column_name"] == "evaluations"
    assert sum(column["n"] for column in data["columns"]) == 100
    assert data["columns"][1]["label"] == 3


def test_what_candidates_wrote_stays_data(state):
    data = read(state)
    data["title"] = "<b>{{data}}"
    page = render(data)
    assert page.count("<script") == 2
    assert "alert(1)<" not in page
    assert "<img" not in page
    packed = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    assert not set(packed) & set("<>&")
    again = json.loads(packed)
    assert again["title"] == "<b>{{data}}"
    assert any(one["source"] == HOSTILE for one in again["tree"])
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_the_command_writes_the_page(state, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["report", str(state), "--out", str(out), "--title", "My run"]) == 0
    assert f"report written to {out}" in capsys.readouterr().out
    assert (
        "My run"
        in json.loads(re.search(r'id="data">(.*?)</script>', out.read_text(encoding="utf-8"), re.DOTALL)[1])[
            "title"
        ]
    )


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--run", "7"], "there is no run 7; there are 1"),
        (["--out", "/nowhere/at/all.html"], "cannot be written"),
    ],
)
def test_what_cannot_be_reported_is_one_sentence(state, capsys, more, sentence):
    assert main(["report", str(state), *more]) == 2
    assert sentence in capsys.readouterr().err


def test_a_run_that_evaluated_nothing_is_one_sentence(fake_workers, tmp_path, capsys):
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers):
        pass
    assert main(["report", str(tmp_path)]) == 2
    assert "nothing has been evaluated" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--run", "1"]) == 2
    assert "run 1 evaluated nothing" in capsys.readouterr().err


def test_nobody_valid_is_a_page_all_the_same(fake_workers, tmp_path):
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine:
        engine.evaluate([RAISES, RAISES + " "], task())
    data = read(tmp_path)
    assert data["best"] is None
    assert data["tree"] == []
    assert render(data)


KILLED_ENGINE = """
import os, sys
sys.path[:0] = {paths!r}
from conftest import FakeWorkers
from evocell import Case, Config, Engine, Evaluation
engine = Engine(Config(state_dir=sys.argv[1]), open_worker=FakeWorkers())
engine.evaluate(["def solve(n): return n"], Evaluation("solve", [Case((2,))], lambda case, value: value))
os.kill(os.getpid(), 9)
"""


def kill_an_engine(state_dir):
    paths = [str(Path(__file__).parents[2]), *sys.path]
    program = KILLED_ENGINE.format(paths=paths)
    done = subprocess.run([sys.executable, "-c", program, str(state_dir)], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr


def test_a_run_that_was_killed_is_said_to_be_so_at_once(tmp_path):
    kill_an_engine(tmp_path)
    data = read(tmp_path)
    assert data["outcome"] == "killed"
    assert data["ended_at"] is not None
    assert data["ended_at"] - data["started_at"] < 60


def test_a_run_that_goes_on_is_said_to_do_so(fake_workers, tmp_path):
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine:
        engine.evaluate([SQUARE], task())
        assert read(tmp_path)["outcome"] == "open"
    assert read(tmp_path)["outcome"] == "closed"


def test_top_does_not_count_on_for_a_run_that_was_killed(tmp_path):
    kill_an_engine(tmp_path)
    with closing(open_reader(tmp_path)) as connection:
        started = connection.execute("SELECT started_at FROM runs").fetchone()[0]
        watcher = RunWatcher(connection, tmp_path / "evocell.db")
        ages = [watcher.look(started + later).age_s for later in (1000, 2000, 300_000)]
        assert watcher.look().state == "killed"
        assert len(set(ages)) == 1
        assert ages[0] < 60
