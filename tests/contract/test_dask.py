"""An engine on a real Dask cluster: the same results as at home, whatever becomes of the nodes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter

import psutil
import pytest

pytest.importorskip("distributed")


import evocell
from evocell import Case, Config, Evaluation, Limits, Stage
from evocell.cli.verify_determinism import verify
from evocell.corpus import programs
from evocell.errors import ClusterLost, ConfigurationError
from evocell.integrations.dask import DaskCluster
from evocell.integrations.dask_worker import TURN_S
from evocell.wire.outcomes import outcome_digest
from measures.dask_processes import Cluster, wait_for

GOOD = "def solve(n):\n    return n * n"
HARD = Limits(fuel=300_000_000, memory_bytes=32 << 20)
SQUARES = Evaluation("solve", [Case((n,), expected=n * n) for n in range(4)], score="equal", limits=HARD)
MIXED = [
    GOOD,
    "import numpy as np\ndef solve(n):\n    print('hello')\n    return int(np.arange(n + 1)[-1] ** 2)",
    "def solve(n):\n    while True: pass",
    "def solve(n):\n    return 1 / 0",
    "def solve(n) return n",
    "def solve(n):\n    return bytearray(1 << 28)",
    "import os\ndef solve(n): os._exit(3)",
    "import socket\ndef solve(n): return n",
    "def solve(n):\n    with open('notes.txt') as file: return len(file.read())",
]
STATEFUL = "seen = []\ndef solve(n):\n    seen.append(n)\n    return sum(seen) * 1000 + len(seen)"
TOGETHER = Evaluation(
    "solve",
    [Case((n,)) for n in range(1, 6)],
    score=lambda _, value: value,
    isolation="candidate",
)


def slow(number, work=1_500_000):
    """A program that takes some 0.1 s and answers what only it answers."""
    return f"def solve(n):\n    s = 0\n    for i in range({work}): s += i\n    return {number}"


ANSWERS = Evaluation("solve", [Case((1,))], score=lambda _, value: value, limits=Limits(timeout_s=60))


def seen(results):
    """What must be the same wherever it is computed."""
    return [
        (
            one.fitness_score,
            one.valid,
            one.reason,
            one.error,
            one.fuel_used,
            one.peak_memory_bytes,
            [outcome_digest(case.outcome) for case in one.test_results],
        )
        for one in results
    ]


@pytest.fixture(scope="module")
def cluster(copy_cache, tmp_path_factory):
    """Two nodes of one guest process, each with a nanny, and with images of their own."""
    environment = {
        "EVOCELL_CACHE_DIR": str(copy_cache(tmp_path_factory.mktemp("nodes") / "cache")),
        "TMPDIR": str(tmp_path_factory.mktemp("tmp")),
    }
    started = Cluster(tmp_path_factory.mktemp("dask"), environment)
    try:
        for name in ("alpha", "beta"):
            started.start_worker(name)
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def client(cluster):
    return cluster.client()


@pytest.fixture(scope="module")
def remote(client, copied_cache, tmp_path_factory):
    """An engine on the cluster, whose own images are in a cache that the nodes do not see."""
    directory = tmp_path_factory.mktemp("state")
    config = Config.load(workers=1, cache_dir=copied_cache, state_dir=directory)
    with evocell.Engine(config, cluster=client) as engine:
        yield engine


@pytest.fixture(scope="module")
def home(copied_cache):
    with evocell.Engine(Config.load(workers=1, cache_dir=copied_cache)) as engine:
        yield engine


def nodes(engine):
    return [one for one in engine.workers() if one.node is not None]


def wait_for_nodes(engine, number):
    """Wait for nodes that are up, and alive: the engine may not know yet that the test before killed one."""
    return wait_for(
        lambda: [one for one in nodes(engine) if one.status == "up" and is_alive(one.pid)][number - 1 :]
    )


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_results_are_those_of_one_machine(remote, home):
    wait_for_nodes(remote, 2)
    assert seen(remote.evaluate(MIXED, SQUARES)) == seen(home.evaluate(MIXED, SQUARES))
    assert {one.reason for one in remote.evaluate(MIXED, SQUARES)} >= {"fuel", "raised", "syntax", "memory"}


def test_the_guests_are_on_the_nodes(remote):
    before = {one.name: one.finished for one in nodes(remote)}
    assert before.keys() == {"alpha", "beta"}
    remote.evaluate([slow(n, 200_000) for n in range(8)], ANSWERS)
    assert all(one.finished > before[one.name] for one in nodes(remote))
    assert {one.pid for one in nodes(remote)}.isdisjoint({None, os.getpid()})


def test_cases_that_share_a_fork_run_on_the_nodes(remote, home):
    n_before = sum(one.finished for one in nodes(remote))
    there = remote.evaluate([STATEFUL] * 4, TOGETHER)
    assert seen(there) == seen(home.evaluate([STATEFUL] * 4, TOGETHER))
    assert [case.score for case in there[0].test_results] == [1001, 3002, 6003, 10004, 15005]
    assert sum(one.finished for one in nodes(remote)) >= n_before + 20


def test_harnesses_trees_and_long_arguments_reach_the_nodes(remote, home):
    driver = {
        "driver.py": "import program\ndef check(data):\n    return program.solve(len(data)) + len(open('/app/notes.txt').read())"
    }
    long = bytes(range(256)) * 4_000
    task = Evaluation(
        "driver:check", [Case((long,), expected=1_024_000**2 + 5)] * 3, score="equal", harness=driver
    )
    trees = [{"program.py": GOOD + f"\n# {n}", "notes.txt": "12345"} for n in range(3)]
    there = remote.evaluate(trees, task)
    assert [one.fitness_score for one in there] == [1, 1, 1]
    assert seen(there) == seen(home.evaluate(trees, task))


def test_frozen_images_reach_the_nodes(remote):
    box = remote.create_sandbox(
        "box", source="table = []\ndef fill(n):\n    table.extend(range(n))\n    return len(table)"
    )
    assert box.run("fill", args=(100_000,)).unwrap() == 100_000
    remote.freeze(box, "data-on-nodes", replace=True)
    task = Evaluation("solve", [Case((7,), expected=7)], score="equal", image="data-on-nodes")
    results = remote.evaluate(["def solve(n):\n    import program as own\n    return n"] * 4, task)
    assert [one.valid for one in results] == [True] * 4
    assert remote.get_info(box).status == "running"
    remote.destroy_sandbox(box)


@pytest.mark.slow
def test_images_with_packages_reach_the_nodes(remote, home):
    program = "import networkx as nx\ndef solve(n):\n    return nx.path_graph(n + 1).number_of_edges()"
    task = Evaluation("solve", [Case((n,), expected=n) for n in range(4)], score="equal")
    results = remote.evaluate([program] * 4, task)
    assert {(one.valid, one.image) for one in results} == {(True, "networkx")}
    assert seen(results) == seen(home.evaluate([program] * 4, task))


def test_sandboxes_that_keep_state_stay_at_home(remote):
    with remote.create_sandbox(source="n = 0\ndef up():\n    global n\n    n += 1\n    return n") as box:
        assert [box.run("up").unwrap() for _ in range(3)] == [1, 2, 3]
        assert remote.get_info(box).supervisor == "worker-0"
        assert box.run("up", isolation="call").unwrap() == 1


def test_stages_populations_and_memory_are_as_at_home(remote, home):
    sources = [GOOD, "def solve(n):\n    return n"]
    stages = [Stage(SQUARES, keep=0.5), Stage(TOGETHER)]
    there, here = remote.evaluate_stages(sources, stages), home.evaluate_stages(sources, stages)
    assert [one.stage for one in there] == [1, 0]
    assert [seen(one.results) for one in there] == [seen(one.results) for one in here]
    memoised = Evaluation("solve", [Case((5,), expected=25)], score="equal", memoise=True)
    remote.evaluate(sources, memoised)
    n_before = sum(one.finished for one in nodes(remote))
    again = remote.evaluate(sources, memoised)
    assert [one.n_memoised for one in again] == [1, 1]
    assert sum(one.finished for one in nodes(remote)) == n_before
    record = remote.evaluation_records(limit=1)[0]
    assert remote.replay(record).same


def test_a_deadline_stops_what_runs_on_the_nodes(remote):
    endless = [f"def solve(n):\n    while True: pass\n# {n}" for n in range(12)]
    forever = Evaluation(
        "solve", [Case((1,))], score=lambda _, value: value, limits=Limits(fuel=1 << 60, timeout_s=300)
    )
    assert {one.reason for one in remote.evaluate(endless, forever, deadline_s=1.0)} == {"timeout"}
    # The guests would be busy for minutes with what nobody waits for any more.
    assert [one.valid for one in remote.evaluate([GOOD] * 8, SQUARES, deadline_s=20.0)] == [True] * 8


def test_a_node_that_is_killed_costs_nothing_but_time(remote, home):
    told = []
    remote.telemetry.attach("counting", "sandbox.fitness.computed", lambda *event: told.append(event))
    sources = [slow(n) for n in range(40)]
    ended = threading.Event()

    def kill():
        n_killed = 0
        while n_killed < 3 and not ended.wait(0.7):
            busy = [one for one in nodes(remote) if one.calls and one.pid is not None]
            if busy:
                os.kill(busy[0].pid, signal.SIGKILL)
                n_killed += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        results = remote.evaluate(sources, ANSWERS)
    finally:
        ended.set()
        killer.join()
        remote.telemetry.detach("counting")
    assert [one.fitness_score for one in results] == list(range(40))
    assert len(told) == 40
    assert Counter(one.sandbox_id for one in results).most_common(1)[0][1] == 1
    assert sum(one.restarts for one in nodes(remote)) >= 1
    assert seen(results[:4]) == seen(home.evaluate(sources[:4], ANSWERS))


def test_cases_that_share_a_fork_survive_their_node(remote):
    source = (
        STATEFUL
        + "\ndef work():\n    for i in range(1_500_000): pass\nold = solve\ndef solve(n):\n    work()\n    return old(n)"
    )
    wait_for_nodes(remote, 2)
    killed = threading.Event()

    def kill():
        busy = wait_for(lambda: [one for one in nodes(remote) if one.sessions and one.pid is not None])
        time.sleep(0.2)
        os.kill(busy[0].pid, signal.SIGKILL)
        killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    results = remote.evaluate([source] * 2, TOGETHER)
    killer.join()
    assert killed.is_set()
    for one in results:
        assert [case.score for case in one.test_results] == [1001, 3002, 6003, 10004, 15005]
    assert results[0].fuel_used == results[1].fuel_used


def test_a_program_that_kills_three_nodes_is_lost(remote):
    wait_for_nodes(remote, 2)
    endless = Evaluation(
        "solve", [Case((1,))], score=lambda _, value: value, limits=Limits(fuel=1 << 60, timeout_s=300)
    )
    kills = Counter()
    found = []

    def evaluate():
        found.extend(remote.evaluate(["def solve(n):\n    while True: pass"], endless))

    running = threading.Thread(target=evaluate)
    running.start()
    while running.is_alive():
        for one in nodes(remote):
            if one.calls and one.pid is not None and one.status == "up":
                time.sleep(0.1)
                try:
                    os.kill(one.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                kills[one.pid] += 1
        time.sleep(0.05)
    running.join()
    assert found[0].reason == "worker_lost"
    assert len(kills) >= 3
    wait_for_nodes(remote, 1)
    assert remote.evaluate_one(GOOD, SQUARES).valid


@pytest.mark.slow
def test_batches_wait_for_their_turn_among_the_tasks_of_others(remote, client):
    addresses = [one.node for one in wait_for_nodes(remote, 2)]
    sources = [f"def solve(n):\n    return n * n + {number} - {number}" for number in range(80)]
    assert all(one.valid for one in remote.evaluate(sources[:40], SQUARES))  # the next go beside the tasks
    time.sleep(TURN_S + 0.5)  # no turn is left
    theirs = [
        client.submit(time.sleep, 2 * TURN_S, key=f"theirs-{address}", workers=[address], pure=False)
        for address in addresses
    ]
    time.sleep(0.3)
    assert all(one.valid for one in remote.evaluate(sources[40:], SQUARES))
    assert any(future.done() for future in theirs)


@pytest.mark.slow
def test_a_node_that_comes_later_is_used_and_one_that_is_retired_is_not(remote, cluster, client):
    wait_for_nodes(remote, 2)
    started = threading.Timer(0.3, cluster.start_worker, ["gamma"], {"nanny": False})
    started.start()
    results = remote.evaluate([slow(n) for n in range(60)], ANSWERS)
    assert [one.fitness_score for one in results] == list(range(60))
    gamma = wait_for(lambda: [one for one in nodes(remote) if one.name == "gamma" and one.status == "up"])[0]
    remote.evaluate([slow(n, 100_000) for n in range(30)], ANSWERS)
    assert next(one for one in nodes(remote) if one.name == "gamma").finished > 0
    client.retire_workers([gamma.node])
    wait_for(lambda: "gamma" not in {one.name for one in nodes(remote)})
    assert remote.evaluate_one(GOOD, SQUARES).valid


def test_a_node_of_another_version_is_refused_by_name(remote, cluster, tmp_path):
    other = tmp_path / "wasmtime-1.0.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: wasmtime\nVersion: 1.0.0\n")
    cluster.start_worker("delta", nanny=False, path=tmp_path)
    refused = wait_for(lambda: [one for one in nodes(remote) if one.status == "refused"])
    assert [one.name for one in refused] == ["delta"]
    assert "delta" in refused[0].problem
    assert "has wasmtime 1.0.0" in refused[0].problem
    assert remote.evaluate_one(GOOD, SQUARES).valid
    assert next(one for one in nodes(remote) if one.name == "delta").finished == 0
    cluster.workers["delta"].terminate()
    wait_for(lambda: "delta" not in {one.name for one in nodes(remote)})


def test_top_report_and_telemetry_show_nodes(remote, capsys, tmp_path):
    from evocell.cli.main import main

    told = []
    remote.telemetry.attach("nodes", "worker.resources", lambda *event: told.append(event))
    wait_for_nodes(remote, 2)
    directory = str(remote.config.state_dir)

    def shown():
        assert main(["top", "--once", directory]) == 0
        text = capsys.readouterr().out
        return "alpha" in text and "beta" in text

    wait_for(shown)
    wait_for(lambda: any("node='tcp://" in repr(event) or "'node': 'tcp://" in repr(event) for event in told))
    remote.telemetry.detach("nodes")
    assert main(["report", directory, "--out", str(tmp_path / "report.html")]) == 0
    assert '"nodes": ["alpha", "beta"' in (tmp_path / "report.html").read_text().replace(
        '":["', '": ["'
    ).replace('","', '", "')


def test_what_cannot_be_a_cluster_is_refused_in_a_sentence(client):
    with pytest.raises(ConfigurationError, match=r"cluster must be a distributed\.Client, or a pool"):
        evocell.Engine(cluster="tcp://127.0.0.1:8786")
    with pytest.raises(ConfigurationError, match="either open_worker or cluster"):
        evocell.Engine(cluster=client, open_worker=DaskCluster(client=client).open_worker)
    with pytest.raises(ConfigurationError, match="processes must be"):
        DaskCluster(client=client, processes=0)


def test_nothing_is_left_of_an_engine_that_is_closed(cluster, client):
    with evocell.Engine(Config.load(workers=1), cluster=DaskCluster(client=client, processes=2)) as engine:
        assert engine.evaluate_one(GOOD, SQUARES).valid
        wait_for_nodes(engine, 2)
        assert {one.processes for one in nodes(engine)} == {2}
        n_guests = len(cluster.guests())
    assert len(cluster.guests()) <= n_guests - 4


@pytest.mark.slow
def test_a_scheduler_that_dies_is_an_error_and_the_run_resumes(tmp_path):
    first, second = (Cluster(_made(tmp_path / name)) for name in ("first", "second"))
    state = tmp_path / "state"
    memoised = Evaluation("solve", [Case((1,))], score=lambda _, value: value, memoise=True)
    sources = [slow(n) for n in range(24)]
    try:
        first.start_worker("alpha", nanny=False)
        second.start_worker("alpha", nanny=False)
        with evocell.Engine(Config.load(workers=1, state_dir=state), cluster=first.client()) as engine:
            done = []

            def tell(result, *_):
                done.append(result)
                if len(done) == 5:
                    first.scheduler.kill()

            with pytest.raises(
                ClusterLost, match=r"does not answer any more; what was finished before is in the store"
            ):
                engine.evaluate(sources, memoised, progress=tell)
        with evocell.Engine(Config.load(workers=1, state_dir=state), cluster=second.client()) as engine:
            results = engine.evaluate(sources, memoised)
        assert [one.fitness_score for one in results] == list(range(24))
        assert sum(one.n_memoised for one in results) >= 5
    finally:
        first.close()
        second.close()


def _made(directory):
    directory.mkdir()
    return directory


@pytest.mark.slow
def test_the_corpus_gives_the_same_on_nodes(client, copied_cache):
    corpus = programs()[::3]  # all of them in tests/soak/test_dask_soak.py
    verdict = verify(Config.load(cache_dir=copied_cache), corpus, runs=1, workers=[1], cluster=client)
    assert verdict.runs == 2
    assert not verdict.different
