"""An engine killed at any moment: no returned result is missing, and the next start says what it mended."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from evocell import Case, Config, Engine, Evaluation
from evocell.store.database import FILE_NAME, open_reader
from evocell.store.inspection import inspect_store

N_EVALUATIONS = 1000
BATCH = 20

RUN = """
import json, os, pathlib, sys
sys.path[:0] = json.loads(sys.argv[1])
from evocell import Case, Config, Engine, Evaluation
more = {}
if sys.argv[3] == "fake":
    import conftest
    more = {"open_worker": conftest.FakeWorkers()}
task = Evaluation("solve", [Case((2,))], lambda case, value: value / 1000)
with Engine(Config.load(state_dir=pathlib.Path(sys.argv[2])), progress=lambda *_: None, **more) as engine:
    engine.create_sandbox("held", source="def solve(n): return n")
    out = os.open(sys.argv[4], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for batch in range(int(sys.argv[5]) // 20):
        sources = [f"def solve(n): return {batch * 20 + place}" for place in range(20)]
        results = engine.evaluate(sources, task, generation=batch)
        lines = "".join(json.dumps([one.sandbox_id, one.fitness_score]) + "\\n" for one in results)
        os.write(out, lines.encode())
"""


def killed_run(place: Path, worker: str, chance: random.Random, n_evaluations: int) -> tuple[int, list[str]]:
    """Run an engine and kill it at a random moment; check all that must hold.

    Returns:
        How many results it had returned, and what the next start said.
    """
    state, returned = place / "state", place / "returned"
    tests = Path(__file__).parents[1]
    arguments = [json.dumps([*sys.path, str(tests)]), str(state), worker, str(returned), str(n_evaluations)]
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        stop_at, patience = chance.randrange(0, n_evaluations), time.monotonic() + 240
        while run.poll() is None and _count(returned) < stop_at and time.monotonic() < patience:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        workers = psutil.Process(run.pid).children(recursive=True) if run.poll() is None else []
    finally:
        run.send_signal(signal.SIGKILL)
        _, complaints = run.communicate()
    assert run.returncode in {-signal.SIGKILL, 0}, complaints.decode()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    lines = returned.read_text(encoding="utf-8").splitlines() if returned.exists() else []
    promised = dict(json.loads(line) for line in lines)
    if not (state / FILE_NAME).exists():
        return len(promised), []
    with closing(sqlite3.connect(state / FILE_NAME)) as connection:
        found = dict(
            connection.execute("SELECT sandbox_id, fitness_score FROM evaluations WHERE status = 'done'")
        )
    missing = {name: score for name, score in promised.items() if found.get(name) != score}
    assert missing == {}
    import conftest  # the tests' own

    with Engine(Config.load(state_dir=state), open_worker=conftest.FakeWorkers()) as engine:
        said = list(engine.repairs)
        assert engine.fitness.best(1, earlier_runs=True) or not promised
    with closing(open_reader(state)) as connection:
        assert list(inspect_store(connection, state / FILE_NAME)) == []
        counts = connection.execute(
            "SELECT count, (SELECT count(*) FROM evaluations e WHERE e.batch = b.batch) FROM batches b"
        ).fetchall()
        assert [one for one in counts if one[0] != one[1]] == []
        (killed,) = connection.execute("SELECT count(*) FROM runs WHERE outcome = 'killed'").fetchone()
    if killed:
        assert said[0] == "1 engine had been killed (run 1)"
    return len(promised), said


def _count(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


@pytest.mark.parametrize("seed", range(3))
def test_an_engine_killed_in_the_middle_has_lost_nothing(tmp_path, seed):
    killed_run(tmp_path, "fake", random.Random(seed), 400)


def test_a_real_engine_killed_in_the_middle_has_lost_nothing(tmp_path):
    killed_run(tmp_path, "real", random.Random(os.getpid()), 100)


@pytest.mark.soak
def test_fifty_real_engines_killed_at_random(tmp_path):
    chance = random.Random(7)
    told, returned = 0, []
    for number in range(50):
        place = tmp_path / str(number)
        place.mkdir()
        n_returned, said = killed_run(place, "real", chance, N_EVALUATIONS)
        returned.append(n_returned)
        told += bool(said)
        sys.stderr.write(f"{number}: {n_returned} returned; {said}\n")
    assert told >= 40
    assert len(set(returned)) > 20


def test_an_orphaned_run_is_found_only_once(tmp_path):
    killed_run(tmp_path, "fake", random.Random(1), 200)
    import conftest

    with Engine(Config.load(state_dir=tmp_path / "state"), open_worker=conftest.FakeWorkers()) as engine:
        assert engine.repairs == ()
        task = Evaluation("solve", [Case((2,), expected=4)])
        assert engine.evaluate(["def solve(n): return n * n"], task)[0].valid
