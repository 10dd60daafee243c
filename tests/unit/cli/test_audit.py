import json

import pytest

import evocell
from evocell.cli.main import main
from evocell.store.audit import AuditLog
from evocell.store.store import Store


@pytest.fixture
def state(tmp_path):
    with Store(tmp_path / "evocell.db") as store:
        log = AuditLog(store, 1, max_entries=100)
        log.note(
            "refused", "program.py:1:1: import of 'ctypes' is blocked", sandbox_id="bad", profile="medium"
        )
        log.note("killed", "fuel: stopped at the fuel limit", sandbox_id="loop", version="abcdef0123456789")
        log.entries()
    return tmp_path


def test_it_shows_a_table(state, capsys):
    assert main(["audit", str(state)]) == 0

    out = capsys.readouterr().out
    assert "refused" in out
    assert "loop" in out
    assert "abcdef0123" in out
    assert "abcdef01234" not in out


@pytest.mark.parametrize(("columns", "whole"), [(None, True), ("60", False)])
def test_an_entry_is_one_line_where_nobody_looks(state, monkeypatch, capsys, columns, whole):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert main(["audit", str(state)]) == 0
    out = capsys.readouterr().out
    assert ("program.py:1:1: import of 'ctypes' is blocked" in out) is whole


def test_it_prints_json(state, capsys):
    assert (
        main(["audit", str(state), "--json", "--kind", "killed", "--sandbox", "loop", "--since", "1h"]) == 0
    )

    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["detail"] == "fuel: stopped at the fuel limit"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["audit", "/nowhere"], "there is no store"),
        (["audit"], "no state_dir is configured"),
    ],
)
def test_what_is_missing_is_said(arguments, sentence, capsys):
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_an_age_that_is_none_is_refused(state, capsys):
    with pytest.raises(SystemExit):
        main(["audit", str(state), "--since", "soon"])
    assert "'soon' is no age" in capsys.readouterr().err


def test_engines_write_it(make_fake_workers, tmp_path):
    workers = make_fake_workers()
    config = evocell.Config(state_dir=tmp_path, enforcement_enabled=True)
    with evocell.Engine(config, open_worker=workers) as engine:
        task = evocell.Evaluation("f", [evocell.Case(expected=1)])
        engine.evaluate(
            ["def f(): raise KeyboardInterrupt", "def f(): raise SystemExit", "def f(): return 1"], task
        )
        kept = engine.create_sandbox("kept", source="def f(): raise KeyboardInterrupt")
        kept.run("f")
        entries = engine.audit_log()

    assert sorted(entry.kind for entry in entries) == ["allowed"] * 3 + ["crashed", "killed", "killed"]
    assert [entry.sandbox_id for entry in entries if entry.kind == "killed"][-1] == "kept"


def test_what_was_allowed_is_folded_and_does_not_displace_what_was_refused_or_killed(
    tmp_path, monkeypatch, capsys
):
    long = "program.py:12:1: import of 'ctypes' is blocked by the profile, because it reaches the memory " * 4
    with Store(tmp_path / "evocell.db") as store:
        log = AuditLog(store, 1, max_entries=1000)
        log.note("refused", long, sandbox_id="bad-one-with-a-rather-long-name", profile="medium")
        for number in range(300):
            log.note(
                "allowed", "imports numpy", sandbox_id=f"s{number}", version="abcdef0123456789", profile="low"
            )
        log.note("killed", "fuel: stopped at the fuel limit", sandbox_id="loop", version="abcdef0123456789")
        log.note("allowed", "imports json", sandbox_id="one")
        log.entries()
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["audit", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 8
    kinds = [kind for line in lines for kind in ("refused", "killed", "allowed") if f" {kind} " in line]
    assert kinds == ["allowed", "allowed", "refused", "killed"]
    assert lines[1].split()[0] == "300"
    assert lines[1].endswith("allowed  imports numpy")
    assert main(["audit", str(tmp_path), "--json", "--limit", "1000"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 303


def test_a_long_night_is_one_screen_with_the_summary_first(tmp_path, monkeypatch, capsys):
    with Store(tmp_path / "evocell.db") as store:
        log = AuditLog(store, 1, max_entries=1000)
        for number in range(90):
            log.note(
                "killed", f"fuel: stopped at the fuel limit of 100 (reached 1{number:02})", sandbox_id="s"
            )
            log.note("refused", f"program.py:{number}:1: import of 'socket' is blocked", sandbox_id="s")
            log.note("allowed", "imports numpy", sandbox_id="s")
        log.note("crashed", "it exited with code 3", sandbox_id="s")
        for number in range(20):
            log.note("refused", f"import of {chr(97 + number)!r} is blocked", sandbox_id="s")
        log.entries()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    assert main(["audit", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 23
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1:3]] == ["90", "90"]
    assert {tuple(line.split()[2:4]) for line in lines[13:-1]} == {("refused", "s")}
    assert lines[9].split()[:2] == ["15", "of"]
    assert lines[-2].split()[-4:] == ["of", "'t'", "is", "blocked"]
    assert lines[-1] == "the newest 9 of 201; --limit shows more"
    assert main(["audit", str(tmp_path), "--limit", "40"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 23 + 31
