"""What a store remembers from engine to engine, and what it says of those that were killed."""

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from evocell import Case, Config, ConfigurationError, Engine, Evaluation, SandboxNotFound, StoreError
from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise
from evocell.store.journal import Journal
from evocell.store.store import Store
from evocell.telemetry.events import Telemetry

SQUARE = "def solve(n): return n * n"
CUBE = "def solve(n): return n ** 3"
SYNTAX = "def solve(:"
TASK = Evaluation("solve", [Case((2,), expected=4)])


@pytest.fixture
def open_engine(fake_workers, tmp_path):
    def opening(**more):
        return Engine(Config(state_dir=tmp_path / "state"), open_worker=fake_workers, **more)

    return opening


@pytest.fixture
def rows(tmp_path):
    def read(sql, *parameters):
        connection = sqlite3.connect(tmp_path / "state" / "evocell.db")
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    return read


def test_what_has_been_returned_is_on_disk(open_engine, rows):
    with open_engine() as engine:
        results = engine.evaluate([SQUARE, CUBE, SYNTAX], TASK, generation=2)
        columns = "sandbox_id, fitness_score, valid, reason, generation, status"
        found = rows(f"SELECT {columns} FROM evaluations ORDER BY sandbox_id")
        assert found == [
            (one.sandbox_id, one.fitness_score, one.valid, one.reason, 2, "done") for one in results
        ]
        one = engine.evaluate_one(SQUARE, TASK)
        assert rows("SELECT count(*) FROM evaluations WHERE sandbox_id = ?", one.sandbox_id) == [(1,)]
        engine.create_sandbox("kept", source=SQUARE)
        engine.batch_evaluate(["kept"], lambda sandbox: 0.25)
        assert rows("SELECT fitness, valid, status, kept FROM sandboxes WHERE id = 'kept'") == [
            (0.25, 1, "running", 1)
        ]
        assert {outcome for (outcome,) in rows("SELECT outcome FROM batches")} == {"done"}
    assert rows("SELECT outcome FROM runs") == [("closed",)]
    assert rows("SELECT status FROM sandboxes WHERE id = 'kept'") == [("stopped",)]


def test_the_text_of_every_version_is_kept_also_of_what_was_rejected(open_engine, rows):
    with open_engine() as engine:
        results = engine.evaluate([SQUARE, SYNTAX, SQUARE], TASK)
        versions = rows("SELECT version FROM evaluations")
        assert len(set(versions)) == 2
        assert len(rows("SELECT version FROM sources")) == 2
        assert engine.lineage.source(results[1].sandbox_id) == {"program.py": SYNTAX}


def test_the_fitness_that_is_kept_is_the_last_one_in_order(open_engine, rows):
    def kept():
        return rows("SELECT fitness, valid, evaluated_at IS NULL FROM sandboxes WHERE id = 'box'")

    with open_engine() as engine:
        engine.create_sandbox("box", source=SQUARE)
        engine.batch_evaluate(["box"], lambda sandbox: 1.0)
        engine.fitness.adjust("box", 5.0, "early")  # written in one transaction with the next result
        engine.batch_evaluate(["box"], lambda sandbox: 0.25)
        assert kept() == [(0.25, 1, 0)]
        engine.hot_reload_source("box", CUBE)
        assert engine.get_info("box").fitness is None
        engine.create_sandbox("other", source=SQUARE)
        engine.batch_evaluate(["other"], lambda sandbox: 1.0)
        assert kept() == [(None, None, 1)]


def test_one_commit_or_several_leave_the_same_rows(open_engine, rows, monkeypatch, tmp_path):
    """A lone evaluation's rows are put together before they are written, or written as they come."""
    asked = "SELECT {} FROM {} ORDER BY 1"
    columns = {
        "sandboxes": "sandbox, id, kept, status, generation, version, fitness, valid, evaluated_at IS NULL",
        "batches": "batch, operation, count, outcome, ended_at IS NULL",
        "sources": "version, n_bytes, files",
        "evaluations": "evaluation, batch, sandbox, status, fitness_score, valid, reason, version",
    }

    def all_rows(*, at_once):
        if not at_once:
            monkeypatch.setattr(Journal, "_bundle", at_once_written)
        with open_engine() as engine:
            one = engine.evaluate_one(SQUARE, TASK)
            engine.fitness.adjust(one.sandbox_id, 2.0, "short")
            engine.evaluate_one(SYNTAX, TASK)
            engine.evaluate_one(CUBE, TASK, population="q")
            engine.evaluate([SQUARE], TASK, population="p")
        found = {table: rows(asked.format(names, table)) for table, names in columns.items()}
        shutil.rmtree(tmp_path / "state")
        return found

    bundle = Journal._bundle

    @contextmanager
    def at_once_written(self):
        with bundle(self) as opened:
            yield opened
        self.store.catch_up()

    together = all_rows(at_once=True)
    assert all_rows(at_once=False) == together
    assert [row[-2:] for row in together["batches"]] == [("done", 0)] * 4


def test_a_later_engine_knows_lineage_fitness_and_names(open_engine):
    with open_engine() as engine:
        (seed,) = engine.evaluate([SQUARE], TASK, population="p")
        (child,) = engine.evaluate([CUBE], TASK, parents=[seed.sandbox_id], generation=1)
        engine.lineage.annotate(child.sandbox_id, {"operator": "power"})
        engine.fitness.adjust(child.sandbox_id, -0.5, "ugly")
    with open_engine() as engine:
        assert engine.repairs == ()
        assert engine.lineage.ancestors(child.sandbox_id) == [seed.sandbox_id]
        assert engine.lineage.get(child.sandbox_id).metadata == {"operator": "power"}
        assert engine.fitness.get(child.sandbox_id).score == -0.5
        history = engine.fitness.history(child.sandbox_id)
        assert [(entry.score, entry.delta, entry.reason) for entry in history] == [
            (0.0, 0.0, None),
            (-0.5, -0.5, "ugly"),
        ]
        (new,) = engine.evaluate([SQUARE], TASK, parents=[child.sandbox_id])
        assert new.sandbox_id not in {seed.sandbox_id, child.sandbox_id}
        assert engine.lineage.ancestors(new.sandbox_id) == [child.sandbox_id, seed.sandbox_id]
        assert engine.lineage.depth(new.sandbox_id) == 2


def test_two_engines_may_share_a_state_directory(open_engine, rows):
    with open_engine() as one, open_engine() as other:
        one.create_sandbox("same", source=SQUARE)
        other.create_sandbox("same", source=CUBE)
        one.evaluate([SQUARE], TASK)
        other.evaluate([CUBE], TASK)
        assert other.repairs == ()
    assert len(rows("SELECT DISTINCT sandbox FROM sandboxes WHERE id = 'same'")) == 2
    assert rows("SELECT outcome FROM runs") == [("closed",), ("closed",)]


KILLED = """
import os, sys, pathlib, signal
sys.path[:0] = {path!r}
from evocell import Case, Config, Engine, Evaluation
import conftest
task = Evaluation("solve", [Case((2,), expected=4)])
engine = Engine(Config(state_dir=pathlib.Path({state!r})), open_worker=conftest.FakeWorkers())
engine.create_sandbox("held", source="def solve(n): return n * n")
print(engine.evaluate(["def solve(n): return n * n"] * 3, task)[0].sandbox_id, flush=True)
n = 0
def progress(result, done, total):
    if done == 3:
        engine._engine._store.flush_blocking()
        os.kill(os.getpid(), signal.SIGKILL)
engine.evaluate(["def solve(n): return n * n"] * 3 + ["def solve(n): return 'hang'"] * 2, task, progress=progress)
"""


@pytest.fixture
def killed(tmp_path):
    tests = Path(__file__).parents[2]
    code = KILLED.format(path=[*sys.path, str(tests)], state=str(tmp_path / "state"))
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert ran.stdout.startswith("sandbox-")


def test_a_start_after_a_kill_says_what_it_mended(killed, open_engine, rows, caplog):
    telemetry = Telemetry()
    repaired = []
    telemetry.attach("test", "store", repaired.append)
    with open_engine(telemetry=telemetry) as engine:
        assert "1 engine had been killed (run 1)" in engine.repairs
        assert any(told.startswith("2 evaluations marked as interrupted: ") for told in engine.repairs)
        assert "1 sandbox marked as stopped: held" in engine.repairs
    assert rows("SELECT status, count(*) FROM evaluations GROUP BY status") == [
        ("done", 6),
        ("interrupted", 2),
    ]
    assert rows("SELECT outcome FROM runs") == [("killed",), ("closed",)]
    assert rows("SELECT status, error FROM sandboxes WHERE id = 'held'") == [
        ("stopped", "the engine that held it was killed")
    ]
    assert rows("SELECT outcome FROM batches") == [("done",), ("interrupted",)]
    assert repaired[0].measurements == {"runs": 1, "interrupted": 2, "lost": 1, "missing_versions": 0}
    assert "1 engine had been killed" in caplog.text
    with open_engine() as engine:
        assert engine.repairs == ()


def test_a_version_whose_tree_is_left_is_not_missing(killed, open_engine, tmp_path):
    connection = sqlite3.connect(tmp_path / "state" / "evocell.db")
    connection.execute("DELETE FROM sources")
    connection.commit()
    connection.close()
    SnapshotStore(tmp_path / "state" / "code").put(normalise(SQUARE))
    with open_engine() as engine:
        assert not any("missing" in told for told in engine.repairs)


def test_a_version_of_which_nothing_is_left_is_named(killed, open_engine, tmp_path, rows):
    ((version,),) = rows("SELECT version FROM sandboxes WHERE id = 'held'")
    connection = sqlite3.connect(tmp_path / "state" / "evocell.db")
    connection.execute("DELETE FROM sources")
    connection.commit()
    connection.close()
    with open_engine() as engine:
        assert f"the code of 1 version is missing: {version[:12]}" in engine.repairs


def test_a_full_disk_is_an_error_where_durability_was_promised(open_engine):
    with open_engine() as engine:
        store = engine._engine._store
        pages = store.query("PRAGMA page_count")[0][0]
        store.ask(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())
        big = [f"{SQUARE}  # {random.Random(n).randbytes(50_000).hex()}" for n in range(4)]
        with pytest.raises(StoreError, match="full"):
            engine.evaluate(big, TASK)
        store._connection.execute("PRAGMA max_page_count = 1000000")
        assert len(engine.evaluate([SQUARE], TASK)) == 1


def test_adjusting(fake_engine):
    (result,) = fake_engine.evaluate([SQUARE], TASK, population="p")
    events = []
    fake_engine.telemetry.attach("test", "sandbox.fitness", events.append)
    entry = fake_engine.fitness.adjust(result.sandbox_id, -0.25, "slow")
    assert entry.score == 0.75
    assert fake_engine.get_info(result.sandbox_id).fitness == 0.75
    assert fake_engine.fitness.get(result.sandbox_id).score == 0.75
    assert events[0].measurements == {"score": 0.75, "delta": -0.25}
    for delta, reason, key in ((float("nan"), "x", "delta"), (True, "x", "delta"), (1.0, "", "reason")):
        with pytest.raises(ConfigurationError) as caught:
            fake_engine.fitness.adjust(result.sandbox_id, delta, reason)
        assert caught.value.key == key
    with pytest.raises(SandboxNotFound, match="no fitness"):
        fake_engine.fitness.adjust("nobody", 1.0, "x")


def test_the_best_by_latest_fitness(fake_engine):
    results = fake_engine.evaluate([SQUARE, CUBE, SYNTAX], TASK, population="p", generation=1)
    ids = [result.sandbox_id for result in results]
    fitness = fake_engine.fitness
    assert [entry.sandbox_id for entry in fitness.best(5)] == ids[:2]
    assert [entry.sandbox_id for entry in fitness.best(1, direction="minimize")] == [ids[1]]
    fitness.adjust(ids[1], 3.0, "elegant")
    assert [(entry.sandbox_id, entry.score) for entry in fitness.best(5)] == [(ids[1], 3.0), (ids[0], 1.0)]
    assert fitness.best(5, generation=0) == []
    assert len(fitness.best(5, population="p", generation=1)) == 2
    with pytest.raises(ConfigurationError):
        fitness.best(direction="up")


def test_text_that_no_database_takes_is_kept_escaped(open_engine, rows):
    raises = "def solve(n): raise ValueError('\\ud800\\x00' + 'x' * 10_000)"
    with open_engine() as engine:
        engine.evaluate([raises], TASK)
    ((error,),) = rows("SELECT error FROM evaluations")
    assert "\\ud800" in error


def test_a_store_that_is_closed_twice_or_used_after_is_a_clear_error(tmp_path):
    store = Store(tmp_path / "a.db")
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.flush_blocking()


def test_what_a_killed_engine_held_can_be_brought_back_once(killed, open_engine, rows):
    with open_engine() as engine:
        with pytest.raises(ConfigurationError, match="'nobody' cannot be brought back"):
            engine.revive_sandboxes(["held", "nobody"])
        assert engine.list_sandboxes() == []
        assert engine.revive_sandboxes() == ["held"]
        assert engine.run("held", "solve", args=(3,)).unwrap() == 9
        assert engine.revive_sandboxes() == []
        with pytest.raises(ConfigurationError, match="'held' cannot be brought back"):
            engine.revive_sandboxes(["held"])
    assert rows("SELECT error FROM sandboxes WHERE id = 'held' ORDER BY sandbox LIMIT 1") == [
        ("brought back in run 2",)
    ]


def test_who_bears_the_id_already_is_left_alone(killed, open_engine):
    with open_engine() as engine:
        engine.create_sandbox("held", source=CUBE)
        assert engine.revive_sandboxes() == []
        assert engine.run("held", "solve", args=(3,)).unwrap() == 27


def test_a_subscriber_that_reads_nothing_holds_up_no_evaluation(fake_engine):
    stream = fake_engine.event_stream
    with stream.subscribe(capacity=5) as slow, stream.subscribe(capacity=100_000) as quick:
        results = fake_engine.evaluate([SQUARE] * 300, TASK)
        assert len(results) == 300
        n_events = stream.last_seq
        assert n_events >= 900
        assert len(slow._queue) == 5
        assert slow.dropped == n_events - 5
        assert len(quick.take(100_000)) == n_events
        assert [one.seq for one in slow.take()] == list(range(n_events - 4, n_events + 1))


def test_only_a_lone_evaluation_commits_on_the_engines_loop(open_engine, monkeypatch):
    asked = []
    flush = Store.flush

    async def watched(self, *, since=None, alone=False):
        asked.append(alone)
        await flush(self, since=since, alone=alone)

    monkeypatch.setattr(Store, "flush", watched)
    with open_engine() as engine:
        engine.evaluate_one(SQUARE, TASK)
        assert asked == [True]
        engine.evaluate([SQUARE, CUBE], TASK)
        engine.evaluate_one(CUBE, TASK, population="p")
        assert True not in asked[1:-1]
        del asked[:]
        slow = "def solve(n): return 'hang' if n > 1 else n"
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(engine.evaluate_one, slow, TASK, deadline_s=1.0)
            while not engine._engine._requests:
                time.sleep(0.01)
            time.sleep(0.1)
            engine.evaluate_one(SQUARE, TASK)
            assert asked == [False]
            other.result()
