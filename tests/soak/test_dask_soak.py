"""What takes minutes on a Dask cluster: the whole corpus, an evolution, and many evaluations while nodes are killed."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from contextlib import contextmanager

import psutil
import pytest

pytest.importorskip("distributed")

from distributed import LocalCluster

import evocell
from evocell import Case, Config, Evaluation, Limits, Offspring
from evocell.cli.verify_determinism import verify
from evocell.corpus import programs
from evocell.integrations.dask import DaskCluster
from evocell.wire.outcomes import outcome_digest
from measures.dask_processes import Cluster, wait_for

pytestmark = pytest.mark.soak

LIMITS = Limits(fuel=2_000_000_000)


def answer(number, turns=200_000):
    return f"def solve(n):\n    s = 0\n    for i in range({turns}): s += i\n    return {number}"


ANSWERS = Evaluation("solve", [Case((1,))], score=lambda _, value: value, limits=Limits(timeout_s=120))


@pytest.fixture
def places(tmp_path):
    """The directory of a cluster, and what its workers take for the temporary directory."""
    for name in ("dask", "tmp"):
        (tmp_path / name).mkdir()
    return tmp_path / "dask", tmp_path / "tmp"


@contextmanager
def nodes_of(places, number, *, nanny=True):
    cluster = Cluster(places[0], {"TMPDIR": str(places[1])})
    try:
        for n in range(number):
            cluster.start_worker(f"node-{n}", nanny=nanny)
        client = cluster.client()
        client.wait_for_workers(number)
        yield cluster, client
    finally:
        cluster.close()


class Killer:
    """Kills a node with -9 now and then, as long as it is entered."""

    def __init__(self, engine, *, every_s, most=10**6):
        self._engine, self._every_s, self._most = engine, every_s, most
        self._dice = random.Random(7)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills = 0

    def _run(self):
        while self.kills < self._most and not self._over.wait(self._dice.uniform(0.5, 1.5) * self._every_s):
            up = [one for one in self._engine.workers() if one.node is not None and one.status == "up"]
            if len(up) > 1:
                try:
                    os.kill(self._dice.choice(up).pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.kills += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def evolve(engine, generations=20, size=16):
    """A search in which every choice depends on every result; returns all that it saw."""
    task = Evaluation(
        "fit",
        [Case((n,), expected=float(n * n + n)) for n in range(4)],
        score=lambda case, value: -abs(value - case.expected),
        limits=LIMITS,
        failure=-1e9,
    )
    dice = random.Random(11)
    genes = [[dice.uniform(-3, 3) for _ in range(3)] for _ in range(size)]
    seen = []
    for generation in range(generations):
        sources = [
            f"def fit(n):\n    for _ in range(20_000): pass\n    return {a!r} * n * n + {b!r} * n + {c!r}"
            for a, b, c in genes
        ]
        if generation % 5 == 4:
            sources[-1] = "def fit(n):\n    while True: pass"
        results = engine.evaluate(sources, task)
        seen += [
            (
                one.fitness_score,
                one.fuel_used,
                one.reason,
                [outcome_digest(case.outcome) for case in one.test_results],
            )
            for one in results
        ]
        ranked = [
            gene for _, gene in sorted(zip([-one.fitness_score for one in results], genes, strict=True))
        ]
        parents = ranked[: size // 4]
        genes = parents + [
            [x + dice.gauss(0, 0.3) for x in dice.choice(parents)] for _ in range(size - len(parents))
        ]
    return seen


@pytest.mark.parametrize("processes", [1, 2])
def test_the_whole_corpus_is_the_same_on_two_nodes(places, processes):
    with nodes_of(places, 2) as (_, client):
        pool = DaskCluster(client=client, processes=processes)
        verdict = verify(Config.load(), programs(), runs=1, workers=[1], cluster=pool)
    assert verdict.runs == 2
    assert not verdict.different


def test_the_whole_corpus_is_the_same_while_nodes_are_killed(places):
    with nodes_of(places, 3) as (_, client):
        expected = verify(Config.load(), programs(), runs=1, workers=[2])
        with evocell.Engine(Config.load(workers=1), cluster=client) as engine:
            with Killer(engine, every_s=4.0, most=10) as killer:
                task = Evaluation(
                    "run",
                    [Case(seed=20_200_101)],
                    score=lambda *_: 1.0,
                    limits=Limits(fuel=12_000_000_000, memory_bytes=128 << 20, timeout_s=120.0),
                )
                while killer.kills < 10:
                    for program, result in zip(
                        programs(), engine.evaluate([one.source for one in programs()], task), strict=True
                    ):
                        wanted = expected.outcomes[program.name]
                        if result.test_results:
                            outcome = result.test_results[0].outcome
                            found = (outcome.kind, outcome_digest(outcome), outcome.fuel_used)
                        else:
                            found = (result.reason, result.error, result.fuel_used)
                        assert found == (wanted.kind, wanted.outcome, wanted.fuel_used), program.name
            assert killer.kills == 10


def test_an_evolution_is_the_same_wherever_it_runs(places):
    with evocell.Engine(Config.load(workers=1)) as engine:
        expected = evolve(engine)
    with nodes_of(places, 2) as (_, client):
        for processes in (1, 2):
            with evocell.Engine(
                Config.load(workers=1), cluster=DaskCluster(client=client, processes=processes)
            ) as engine:
                assert evolve(engine) == expected
        with (
            evocell.Engine(Config.load(workers=1), cluster=client) as engine,
            Killer(engine, every_s=1.0, most=10) as killer,
        ):
            n_runs = 0
            while killer.kills < 10 or not n_runs:
                assert evolve(engine) == expected
                n_runs += 1
            assert killer.kills == 10


def test_two_thousand_evaluations_while_nodes_are_killed(places, tmp_path):
    with nodes_of(places, 3) as (cluster, client):
        with evocell.Engine(Config.load(workers=1, state_dir=tmp_path / "state"), cluster=client) as engine:
            told = Counter()
            engine.telemetry.attach("count", "sandbox.fitness.computed", lambda *_: told.update(["result"]))
            with Killer(engine, every_s=3.0) as killer:
                results = engine.evaluate([answer(n) for n in range(2_000)], ANSWERS)
            assert [one.fitness_score for one in results] == list(range(2_000))
            assert len({one.sandbox_id for one in results}) == 2_000
            wait_for(lambda: sum(told.values()) == 2_000)
            records = engine.evaluation_records(limit=10_000)
            assert len(records) == 2_000
            assert killer.kills >= 3
        wait_for(lambda: not cluster.guests())
        spawned = [worker.pid for worker in cluster.workers.values()]
        assert all(
            "evocell.guests.main" not in " ".join(child.cmdline())
            for pid in spawned
            for child in psutil.Process(pid).children(recursive=True)
        )
        # What killed nodes left is swept by the next one on the machine.
        with evocell.Engine(Config.load(workers=1), cluster=client) as engine:
            assert engine.evaluate_one(answer(5), ANSWERS).fitness_score == 5
    assert not [path for path in places[1].iterdir() if path.name.startswith("evocell-")]


def test_an_adaptive_cluster_grows_from_nothing():
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0") as local:
        local.adapt(minimum=0, maximum=2, interval="200ms", wait_count=50)
        with local.get_client() as client, evocell.Engine(Config.load(workers=1), cluster=client) as engine:
            results = engine.evaluate([answer(n, 2_000_000) for n in range(150)], ANSWERS)
            assert [one.fitness_score for one in results] == list(range(150))
            assert len([one for one in engine.workers() if one.node is not None]) == 2


def test_a_population_lives_on_a_cluster(places):
    with nodes_of(places, 2) as (_, client), evocell.Engine(Config.load(workers=1), cluster=client) as engine:
        engine.create_population("p")
        engine.next_generation("p", [Offspring(answer(n)) for n in range(20)])
        results = engine.evaluate_generation("p", ANSWERS)
        assert sorted(one.fitness_score for one in results) == list(range(20))
        assert engine.get_population("p").generation >= 0
