"""Stores whose cells were changed by another program: every reader answers, or says in a sentence what is wrong."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import evocell
from evocell import Case, Config, Evaluation
from evocell.cli.main import main
from evocell.errors import EvocellError
from evocell.page.following import Following

CELLS = st.sampled_from(
    [
        None,
        -1,
        2**63 - 1,
        1e308,
        float("inf"),
        "",
        "x" * 100_000,
        "\x1b]0;title\x07",
        "\u202e</script><script>alert(1)</script>",
        "sandbox-1",
        "=1+1",
        "[" * 100_000,
        "[NaN]",
        '{"a": {}}',
        b"",
        b"\xff" * 100,
        b"\x91" * 5_000 + b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        b"\xc7\x05\x01abcde",
        b"\x80",
        b"\x81\xa1a\x01",
    ]
)
TASK = Evaluation("solve", [Case((2,), expected=4), Case((3,), expected=9)], score="equal", memoise=True)


@pytest.fixture
def sound(fake_workers, tmp_path):
    """A state directory with rows in every table."""
    place = tmp_path / "sound"
    with evocell.Engine(Config(state_dir=place), open_worker=fake_workers) as engine:
        (seed,) = engine.evaluate(["def solve(n): return n * n"], TASK, population="p")
        engine.evaluate(
            ["def solve(n): return n", "def solve(:"], TASK, generation=1, parents=[seed.sandbox_id, None]
        )
        engine.lineage.annotate("sandbox-2", {"operator": "copy"})
        engine.fitness.adjust("sandbox-2", 0.5, "first")
        engine.create_sandbox("box", source="def solve(n): return n")
    return place


@st.composite
def changes(draw):
    return draw(
        st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), CELLS), min_size=1, max_size=3)
    )


def change(place, wanted):
    with closing(sqlite3.connect(place / "evocell.db", isolation_level=None)) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        tables = [name for (name,) in names if not name.startswith("sqlite_")]
        for table_no, column_no, value in wanted:
            table = tables[table_no % len(tables)]
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            try:
                connection.execute(f"UPDATE {table} SET {columns[column_no % len(columns)]} = ?", (value,))
            except sqlite3.Error:
                continue  # the schema itself refuses it


def ask(answer, wanted):
    """Have the dashboard answer: with JSON of a bounded size, or with a sentence."""
    try:
        told = answer(wanted)
    except EvocellError:
        return
    assert len(told) < 1 << 20
    assert isinstance(json.loads(told), dict)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(wanted=changes())
@example(wanted=[(22339, 28709, "[NaN]")])
@example(wanted=[(22339, 28710, "[NaN]")])
@example(wanted=[(140, 2, b"")])
def test_every_reader_answers_or_names_the_fault(wanted, sound, fake_workers, tmp_path, capfd):
    place = tmp_path / "state"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, place)
    change(place, wanted)
    commands = [
        ["store", "check", str(place)],
        ["report", str(place), "--all-runs", "--out", str(tmp_path / "report.html")],
        ["top", "--once", str(place)],
        ["audit", str(place)],
        *(
            [
                "store",
                "export",
                str(place),
                "--table",
                table,
                "--format",
                form,
                "--out",
                str(tmp_path / "out"),
            ]
            for table, form in (("evaluations", "csv"), ("sandboxes", "jsonl"), ("sources", "msgpack"))
        ),
    ]
    for command in commands:
        assert main(command) in {0, 1, 2}, command
    with closing(Following(place / "evocell.db")) as following:
        for view in ("search", "all", "population:p"):
            ask(following.data, {"view": view, "points": "1"})
            ask(following.member, {"view": view, "number": str((1 << 32) + 2)})
        ask(lambda _: following.views(), {})
    try:
        with evocell.Engine(Config(state_dir=place), open_worker=fake_workers) as engine:
            engine.report()
            engine.list_populations()
            engine.fitness.best(3)
            engine.fitness.to_dataframe()
            engine.lineage.ancestors("sandbox-2")
            engine.lineage.source("sandbox-1")
            engine.audit_log()
            engine.evaluate(["def solve(n): return n * n"], TASK)
    except EvocellError:
        pass
    shown = capfd.readouterr()
    for text in (shown.out, shown.err):
        assert "Traceback" not in text
        assert "\x1b]0" not in text
        assert "\u202e" not in text
