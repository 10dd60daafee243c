"""`evocell store`: what it finds wrong, and what it writes."""

import csv
import io
import json
import sqlite3

import msgpack
import pytest

from evocell import Case, Config, Engine, Evaluation
from evocell.cli.main import main
from evocell.store.export import EXPORTS

SQUARE = "def solve(n): return n * n"
FORMULA = "def solve(n): raise Exception('=HYPERLINK(1)')"
TASK = Evaluation("solve", [Case((2,), expected=4, name="two")])


@pytest.fixture
def state(fake_workers, tmp_path):
    place = tmp_path / "state"
    with Engine(Config(state_dir=place), open_worker=fake_workers) as engine:
        (seed,) = engine.evaluate([SQUARE], TASK, population="p")
        engine.evaluate([SQUARE, FORMULA], TASK, generation=1, parents=[seed.sandbox_id, None])
        engine.lineage.annotate("sandbox-2", {"operator": "copy"})
        engine.fitness.adjust("sandbox-2", 0.5, "first")
    return place


@pytest.fixture
def spoil(state):
    def change(sql, *parameters):
        connection = sqlite3.connect(state / "evocell.db")
        connection.execute(sql, parameters)
        connection.commit()
        connection.close()

    return change


def exported(capsysbinary, state, table, file_format):
    assert main(["store", "export", str(state), "--table", table, "--format", file_format]) == 0
    return capsysbinary.readouterr().out


def test_a_sound_store_is_said_to_be_so(state, capsys):
    assert main(["store", "check", str(state)]) == 0
    told = capsys.readouterr().out
    assert "is sound: 1 run, 3 sandboxes, 3 evaluations, 2 sources" in told


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("UPDATE evaluations SET test_results = x'c1'", "the cases of evaluation"),
        ("UPDATE sources SET files = x'00'", "the text of version"),
        ("DELETE FROM sources", "is missing"),
        ("DELETE FROM sandboxes WHERE id = 'sandbox-1'", "is not among the sandboxes"),
        ("DELETE FROM evaluations WHERE sandbox_id = 'sandbox-3'", "has not as many evaluations as members"),
        ("UPDATE runs SET outcome = 'open'", "the engine of run 1 was killed"),
        ("UPDATE lineage SET parent = child", "is older than its parent"),
        ("UPDATE runs SET started_at = x'00'", "runs.started_at of '1' is blob, not a time"),
        (
            "UPDATE evaluations SET fitness_score = 9e999",
            "fitness_score of '4294967297' is real, not a finite",
        ),
        ("UPDATE evaluations SET objectives = '{'", "the objectives of evaluation"),
        ("UPDATE evaluations SET run = 7", "there are rows of run 7, which is not among the runs"),
        ("CREATE VIEW more AS SELECT 1", "there is a view 'more', which evocell does not make"),
        ("DROP TABLE memo", "the table memo is missing"),
        ("ALTER TABLE memo ADD COLUMN more", "the table memo has other columns than evocell makes"),
    ],
)
def test_what_is_wrong_is_named(state, spoil, capsys, sql, sentence):
    spoil(sql)
    assert main(["store", "check", str(state)]) == 1
    assert sentence in capsys.readouterr().out


@pytest.mark.parametrize("command", ["report", "top", "audit"])
def test_readers_name_what_they_cannot_read(state, spoil, capsys, command, tmp_path):
    spoil("UPDATE runs SET started_at = x'00', ended_at = x'00'")
    spoil("INSERT INTO audit VALUES (1000, 1, x'00', 'killed', 'a', '', '', 'fuel')")
    more = {"report": ["--out", str(tmp_path / "report.html")], "top": ["--once"], "audit": []}
    assert main([command, str(state), *more[command]]) == 2
    said = capsys.readouterr().err
    assert "cannot be read: audit.at of '1000' is blob, not a time" in said
    assert f"evocell store check {state}" in said.replace("\n", " ")


def test_a_damaged_file_is_named(state, capsys):
    path = state / "evocell.db"
    data = bytearray(path.read_bytes())
    data[5000:30_000] = b"\xff" * 25_000
    path.write_bytes(data)
    assert main(["store", "check", str(state)]) == 1
    assert "the database is damaged" in capsys.readouterr().out


def test_where_there_is_none_one_sentence_says_so(tmp_path, capsys):
    assert main(["store", "check", str(tmp_path)]) == 2
    assert "there is no store at" in capsys.readouterr().err


def test_without_a_directory_the_configured_one_is_meant(state, capsys, monkeypatch):
    monkeypatch.delenv("EVOCELL_STATE_DIR", raising=False)
    assert main(["store", "check"]) == 2
    assert "name a state directory" in capsys.readouterr().err
    monkeypatch.setenv("EVOCELL_STATE_DIR", str(state))
    assert main(["store", "check"]) == 0


def test_evaluations_as_json_lines(state, capsysbinary):
    rows = [json.loads(line) for line in exported(capsysbinary, state, "evaluations", "jsonl").splitlines()]
    assert [row["sandbox_id"] for row in sorted(rows, key=lambda row: row["sandbox_id"])] == [
        "sandbox-1",
        "sandbox-2",
        "sandbox-3",
    ]
    good = next(row for row in rows if row["sandbox_id"] == "sandbox-1")
    assert good["valid"] is True
    assert good["objectives"] == [1.0]
    assert good["evaluated_at"].endswith("+00:00")
    assert good["test_results"][0]["name"] == "two"
    assert good["test_results"][0]["fuel_used"] == 7


def test_sandboxes_as_msgpack_have_all_fields_of_their_state(state, capsysbinary):
    unpacker = msgpack.Unpacker(io.BytesIO(exported(capsysbinary, state, "sandboxes", "msgpack")))
    rows = {row["id"]: row for row in unpacker}
    wanted = (
        "id status config supervisor monitor created_at restart_count error generation parent_id"
        " mutation_type fitness evaluated_at lineage_depth population version"
    )
    assert set(wanted.split()) <= rows["sandbox-1"].keys()
    assert rows["sandbox-2"]["fitness"] == 1.5
    assert rows["sandbox-2"]["lineage_depth"] == 1
    assert rows["sandbox-2"]["parent_id"] == "sandbox-1"
    assert rows["sandbox-1"]["transitions"][0][1] == "creating"


def test_csv_holds_no_formulas(state, capsysbinary):
    rows = list(csv.DictReader(io.StringIO(exported(capsysbinary, state, "evaluations", "csv").decode())))
    errors = {row["sandbox_id"]: row["error"] for row in rows}
    assert errors["sandbox-1"] == ""
    assert "HYPERLINK" in errors["sandbox-3"]
    assert not any(cell.startswith("=") for row in rows for cell in row.values())


@pytest.mark.parametrize("table", EXPORTS)
@pytest.mark.parametrize("file_format", ["csv", "jsonl", "msgpack"])
def test_every_table_can_be_had_in_every_format(state, tmp_path, capsys, table, file_format):
    place = tmp_path / "out"
    args = ["store", "export", str(state), "--table", table, "--format", file_format, "--out", str(place)]
    assert main(args) == 0
    assert place.stat().st_size > 0
    assert f"{table} written to" in capsys.readouterr().out


def test_lineage_has_what_is_known_of_the_mutation(state, capsysbinary):
    (row,) = [json.loads(line) for line in exported(capsysbinary, state, "lineage", "jsonl").splitlines()]
    assert (row["child_id"], row["parent_id"]) == ("sandbox-2", "sandbox-1")
    assert row["metadata"] == {"operator": "copy"}


def test_an_export_that_cannot_be_written_is_one_sentence(state, tmp_path, capsys):
    assert main(["store", "export", str(state), "--out", str(tmp_path / "no" / "file")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_exporting_what_is_damaged_says_where_to_look(state, spoil, capsys):
    spoil("UPDATE evaluations SET test_results = x'c1'")
    assert main(["store", "export", str(state), "--format", "jsonl"]) == 2
    assert "evocell store check" in capsys.readouterr().err


def test_a_csv_file_has_numbers_in_columns_of_their_own(fake_workers, tmp_path, capsysbinary):
    plain = Evaluation("f", [Case(())], lambda case, value: -1.5)
    parts = Evaluation("f", [Case(())], lambda case, value: {"score": 2.0, "=cmd": 3.0})
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine:
        for task in (plain, parts):
            engine.evaluate(["def f(): return 1"], task)
    assert main(["store", "export", str(tmp_path)]) == 0
    first, second = csv.DictReader(io.StringIO(capsysbinary.readouterr().out.decode()))
    assert (float(first["objective_1"]), first["component_score"]) == (-1.5, "")
    assert (float(second["component_score"]), float(second["component_=cmd"])) == (2.0, 3.0)
    assert main(["store", "export", str(tmp_path), "--format", "jsonl"]) == 0
    assert json.loads(capsysbinary.readouterr().out.splitlines()[1])["components"] == {
        "score": 2.0,
        "=cmd": 3.0,
    }
