"""`evocell top`: what it reads from a store, and what it shows."""

import sqlite3
from contextlib import closing

import pytest
from rich.console import Console

from evocell import Case, Config, ConfigurationError, Engine, Evaluation
from evocell.cli.main import main
from evocell.cli.top import Picture, RunWatcher, draw
from evocell.store.database import open_reader

SQUARE = "def solve(n): return n * n"
RAISES = "def solve(n): raise ValueError(n)"
TASK = Evaluation("solve", [Case((2,), expected=4)])


def shown(picture, **more):
    console = Console(width=100, force_terminal=False)
    with console.capture() as captured:
        console.print(draw(picture, "/state", **more))
    return captured.get()


@pytest.fixture
def engine(fake_workers, tmp_path):
    config = Config(state_dir=tmp_path, enforcement_poll_interval_ms=10)
    with Engine(config, open_worker=fake_workers) as made:
        yield made


def test_it_follows_a_run_reading_only_what_is_new(engine, tmp_path):
    with closing(open_reader(tmp_path)) as connection:
        watcher = RunWatcher(connection, tmp_path / "evocell.db")
        assert watcher.look().n_evaluations == 0
        engine.evaluate([SQUARE, RAISES, RAISES], TASK, generation=4)
        picture = watcher.look()
        assert (picture.n_evaluations, picture.n_valid, picture.generation) == (3, 1, 4)
        assert picture.deaths == {"raised": 2}
        assert picture.state == "running"
        assert picture.per_s > 0
        assert sum(picture.history) == 3
        engine.evaluate([SQUARE], TASK)
        assert watcher.look().n_evaluations == 4
        assert watcher.look().n_evaluations == 4
        assert picture.best[1] == 1.0


def test_less_is_better_where_the_evaluation_says_so(engine, tmp_path):
    task = Evaluation("solve", [Case((2,))], lambda _, value: value, directions=("minimize",), failure=(9.0,))
    engine.evaluate([SQUARE, "def solve(n): return n"], task)
    with closing(open_reader(tmp_path)) as connection:
        assert RunWatcher(connection, tmp_path / "evocell.db").look().best[1] == 2.0


def test_a_newer_run_takes_its_place_unless_one_was_named(fake_workers, tmp_path):
    config = Config(state_dir=tmp_path)
    with Engine(config, open_worker=fake_workers) as first:
        first.evaluate([SQUARE], TASK)
    with closing(open_reader(tmp_path)) as connection:
        latest = RunWatcher(connection, tmp_path / "evocell.db")
        named = RunWatcher(connection, tmp_path / "evocell.db", 1)
        assert latest.look().state == "closed"
        with Engine(config, open_worker=fake_workers):
            assert (latest.look().run, latest.look().n_evaluations) == (2, 0)
            assert (named.look().run, named.look().n_evaluations) == (1, 1)
        with pytest.raises(ConfigurationError, match="there is no run 9"):
            RunWatcher(connection, tmp_path / "evocell.db", 9)


def test_a_run_that_evaluated_nothing_is_shown_only_while_it_runs(fake_workers, tmp_path):
    config = Config(state_dir=tmp_path)
    with Engine(config, open_worker=fake_workers) as first:
        first.evaluate([SQUARE], TASK)
    with Engine(config, open_worker=fake_workers):
        pass
    with closing(open_reader(tmp_path)) as connection:
        picture = RunWatcher(connection, tmp_path / "evocell.db").look()
        assert (picture.run, picture.n_evaluations) == (1, 1)


def test_a_killed_engine_is_seen_to_be_dead(fake_workers, tmp_path):
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers):
        pass
    with closing(sqlite3.connect(tmp_path / "evocell.db")) as raw:
        raw.execute("UPDATE runs SET outcome = 'open'")
        raw.commit()
    with closing(open_reader(tmp_path)) as connection:
        assert RunWatcher(connection, tmp_path / "evocell.db").look().state == "killed"


def test_what_is_shown():
    reading = {
        "status": "up",
        "pid": 12,
        "memory_bytes": 5e7,
        "cpu_s": 3.2,
        "sessions": 1,
        "calls": 2,
        "finished": 3,
    }
    picture = Picture(
        7,
        "running",
        3700.0,
        {"running": 12},
        [("worker-0", reading)],
        1234,
        1200,
        45.6,
        [0] * 59 + [9],
        best=("g1-02", 0.123456789, 1),
        fuel=3_000_000_000,
        batches=[("evaluate", 10, 5)],
    )
    picture.deaths.update({"fuel": 30, "raised": 4})
    text = shown(picture)
    for words in (
        "run 7 running  1 h 01 min  /state",
        "12 live (running 12)",
        "1,234, 1,200 valid",
        "45.6/s",
        "0.123457  g1-02, generation 1",
        "3 G",
        "5 of 10",
        "50 MB",
        "3.2 s",
        "fuel     30",
    ):
        assert words in text, words
    assert shown(picture, plain=True).replace("│", "|").replace("─", "-").strip("╭╮╰╯- \n").count("█") == 0


def test_the_command_shows_it_once_where_there_is_no_terminal(engine, tmp_path, capsys):
    engine.evaluate([SQUARE], TASK)
    assert main(["top", str(tmp_path)]) == 0
    assert "run 1 running" in capsys.readouterr().out


def test_an_interval_that_is_none_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["top", str(tmp_path), "--interval", "0"])
    assert "not a number of seconds" in capsys.readouterr().err


def test_workers_can_be_told_apart_at_80_by_24():
    reading = {
        "memory_bytes": 1.23e9,
        "cpu_s": 123456.7,
        "sessions": 4321,
        "calls": 2,
        "finished": 1234567,
        "restarts": 12,
    }
    workers = [
        (f"worker-of-this-machine-{n}", {"status": "draining", "pid": 1234567 + n, **reading})
        for n in range(6)
    ]
    picture = Picture(3, "running", age_s=4000, workers=workers, n_evaluations=9, history=list(range(60)))
    picture.batches = [("evaluate_generation", 10_000, 77)]
    picture.deaths.update(dict.fromkeys(("fuel", "timeout", "memory", "raised", "syntax", "score"), 1000))
    console = Console(width=80, height=24, force_terminal=False)
    with console.capture() as captured:
        console.print(draw(picture, "/home/somebody/experiments/packing/state", height=24))
    lines = captured.get().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if "draining" in line]
    assert len({row.split()[1] for row in rows}) == len(rows) >= 4
    assert all(f"12345{n}" in row for n, row in zip(range(67, 73), rows, strict=False))
    assert "1.23 GB" in rows[0]
    assert "died of" in captured.get()
