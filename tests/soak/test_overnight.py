"""A night in short: a search is killed in the middle, started again, followed all the while, reported and replayed.

`SOAK_EVALUATIONS` says how many (default: 50,000). Figures go to standard output.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from tests.soak.overnight import POPULATION, SIZE

import evocell
from evocell.cli.main import main
from evocell.page.search import read_run
from evocell.store.database import open_reader
from evocell.store.inspection import inspect_store

pytestmark = pytest.mark.soak

GENERATIONS = -(-int(os.environ.get("SOAK_EVALUATIONS", "50000")) // SIZE)
REPLAYED = 300
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
COUNT = "SELECT count(*), count(DISTINCT sandbox), sum(status = 'interrupted') FROM evaluations"


def start(state, log):
    program = Path(__file__).with_name("overnight.py")
    command = [sys.executable, str(program), str(state), str(GENERATIONS)]
    return subprocess.Popen(command, env=ENV, stdout=log, stderr=log)


def count(state):
    with suppress(evocell.StoreError), closing(open_reader(state)) as connection:
        return connection.execute(COUNT).fetchone()
    return 0, 0, 0


def follow(address, known):
    """Ask as the page does; return the number of evaluations that it would show."""
    query = "&".join(f"{name}={value}" for name, value in {"points": 1, **known}.items())
    with urllib.request.urlopen(f"{address}data?{query}", timeout=30) as answer:
        told = json.load(answer)
    if "problem" in told:
        return 0
    known |= {name: told[name] for name in ("epoch", "cursor", "revision")}
    if "tree" in told:
        known["tree"] = told["tree"]["tag"]
    return told["head"]["n_evaluations"]


def test_a_night_in_short(tmp_path):
    state, said, figures = tmp_path / "state", tmp_path / "said.txt", {}
    wanted = GENERATIONS * SIZE
    before = {one.pid for one in psutil.process_iter()}
    began = time.monotonic()
    with said.open("wb") as log:
        first = start(state, log)
        while count(state)[0] < wanted // 2 + SIZE // 3:  # within a generation
            assert first.poll() is None, said.read_text()
            time.sleep(0.2)
        workers = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(signal.SIGKILL)
        first.wait()
        figures["killed after s"] = round(time.monotonic() - began, 1)
        _, still = psutil.wait_procs(workers, timeout=30)
        assert not still, "a worker outlives its engine"
        figures["evaluated when killed"] = count(state)[0]

        command = [sys.executable, "-m", "evocell", "dashboard", str(state), "--no-open"]
        page = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=log, text=True)
        second = start(state, log)
        try:
            address, known, looks = page.stdout.readline().strip(), {}, 0
            while second.poll() is None:
                follow(address, known)
                looks += 1
                time.sleep(1)
            shown = follow(address, known)
            while shown != (shown := follow(address, known)):  # until it has been told everything
                pass
            told_s = psutil.Process(page.pid).cpu_times()
            peak = psutil.Process(page.pid).memory_info().rss
        finally:
            page.send_signal(signal.SIGINT)
            page.stdout.close()
            assert page.wait(30) == 0
    assert second.returncode == 0, said.read_text()
    figures["seconds in all"] = round(time.monotonic() - began, 1)
    figures["looks of the page"] = looks
    figures["processor time of the dashboard, s"] = round(told_s.user + told_s.system, 2)
    figures["memory of the dashboard, MB"] = round(peak / 1e6, 1)

    n_rows, n_members, n_interrupted = count(state)
    figures |= {"evaluations": n_rows, "interrupted by the kill": n_interrupted}
    assert n_rows == n_members == wanted  # nobody was evaluated twice, nobody left out
    assert n_interrupted <= SIZE
    assert shown == wanted
    with closing(open_reader(state)) as connection:
        assert list(inspect_store(connection, state / "evocell.db")) == []
        began_report = time.monotonic()
        data = read_run(connection)
        figures["report read in s"] = round(time.monotonic() - began_report, 2)
        largest = connection.execute("SELECT max(child) FROM lineage").fetchone()[0]
    assert data["runs"] == [1, 2]
    assert (data["n_evaluations"], data["n_individuals"]) == (wanted, wanted)
    assert sum(column["n"] for column in data["columns"]) == wanted
    assert (
        data["columns"][-1]["label"]
        <= GENERATIONS - 1
        < data["columns"][-1]["label"] + data["columns"][-1]["width"]
    )
    assert largest >> 32 == 2  # lineage goes on in the second run
    figures |= {"best": data["leaders"][0]["score"], "led to the best": data["n_family"]}
    figures["generations"] = GENERATIONS
    assert main(["report", str(state), "--out", str(tmp_path / "report.html")]) == 0
    figures["report, MB"] = round((tmp_path / "report.html").stat().st_size / 1e6, 2)
    figures["store, MB"] = round((state / "evocell.db").stat().st_size / 1e6, 1)

    with evocell.Engine(evocell.Config.load(state_dir=state, workers=2)) as engine:
        newest = engine.evaluation_records(limit=min(wanted, 10_000))
        # Ancestors of the best are of both runs, and some were evaluated before the kill.
        ancestors = [one for one in data["tree"] if one["in_tree"]][:REPLAYED]
        old = [record for one in ancestors for record in engine.evaluation_records(sandbox_id=one["id"])]
        replays = [engine.replay(one) for one in (*newest[:: max(1, len(newest) // REPLAYED)], *old)]
        figures["calls replayed"] = len(replays)
        figures["of them from before the kill"] = sum(one["number"] >> 32 == 1 for one in ancestors)
        assert len(replays) > REPLAYED
        assert [one.differences for one in replays if not one.same] == []
        assert engine.resume_population(POPULATION)
    left = [
        one
        for one in psutil.process_iter(["cmdline"])
        if one.pid not in before and str(state) in str(one.info)
    ]
    assert left == []
    assert not re.search("Traceback", said.read_text())
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
