"""Images with packages, built and used for real: the choice, fuel, sessions, files, and what imports cost without.

A cache that has none yet builds three of them, at some ten seconds each.
"""

from __future__ import annotations

import pytest
from attrs import evolve

import evocell
from evocell import Case, Config, Evaluation, Limits
from evocell.integrations.stand_ins import stand_ins

pytestmark = pytest.mark.slow

GRAPH = "import networkx as nx\ndef f(n=4):\n    return nx.path_graph(n).number_of_edges()\n"
LATE = "def f(n=4):\n    import networkx as nx\n    return nx.path_graph(n).number_of_edges()\n"
TASK = Evaluation("f", [Case(expected=3)], "equal")
TIGHT = evolve(TASK, limits=Limits(fuel=100_000_000))


@pytest.fixture(scope="module", params=[0, 2], ids=["in-process", "processes"])
def engine(request):
    with evocell.Engine(Config.load(workers=request.param, images="imports")) as made:
        yield made


@pytest.fixture(scope="module")
def base_engine():
    with evocell.Engine(Config.load(workers=1, images="base")) as made:
        yield made


def outcome(engine, source, task=TASK):
    return engine.evaluate([source], task)[0].test_results[0].outcome


@pytest.mark.parametrize("source", [GRAPH, LATE])
def test_imports_cost_nothing_and_fuel_is_the_programs_own(engine, source):
    results = engine.evaluate([source] * 3, TIGHT)
    assert [(result.valid, result.image) for result in results] == [(True, "networkx")] * 3
    assert len({result.fuel_used for result in results}) == 1
    assert results[0].test_results[0].outcome.import_fuel == 0


def test_fuel_is_the_same_in_both_kinds_of_worker_and_beside_other_images(engine, base_engine):
    programs = [GRAPH, "def f():\n    return 3\n", GRAPH.replace("path_graph", "cycle_graph")]
    mixed = engine.evaluate(programs, TASK)
    assert [result.image for result in mixed] == ["networkx", "base", "networkx"]
    alone = [engine.evaluate([program], TASK)[0] for program in programs]
    assert [result.fuel_used for result in mixed] == [result.fuel_used for result in alone]
    with evocell.Engine(Config.load(workers=1, images="imports")) as other:
        assert [result.fuel_used for result in other.evaluate(programs, TASK)] == [
            result.fuel_used for result in mixed
        ]
    assert base_engine.evaluate([programs[1]], TASK)[0].fuel_used == mixed[1].fuel_used


def test_without_the_image_imports_take_most_and_it_is_said(base_engine):
    whole = outcome(base_engine, GRAPH)
    assert whole.import_fuel > 0.9 * whole.fuel_used > 10**9
    assert f"imports took {whole.import_fuel:,}" in whole.imports_note
    stopped = outcome(base_engine, GRAPH, evolve(TASK, limits=Limits(fuel=10**9)))
    assert stopped.kind == "fuel"
    assert 0.9 * 10**9 < stopped.import_fuel <= 10**9
    assert "imports took" in stopped.error
    assert "Config(warm=" in stopped.error
    assert "imports took" in base_engine.evaluate([GRAPH], TASK)[0].feedback()
    busy = "import networkx\ndef f():\n    while True: pass\n"
    after = outcome(base_engine, busy, evolve(TASK, limits=Limits(fuel=20 * 10**9)))
    assert after.import_fuel == pytest.approx(whole.import_fuel, rel=0.01)
    assert "imports took" not in after.error


def test_a_session_its_fork_and_its_file_go_on_in_the_image(engine, tmp_path):
    with engine.create_sandbox(
        source=GRAPH + "kept = []\ndef keep(x):\n    kept.append(x)\n    return kept\n"
    ) as one:
        assert engine.get_info(one).image == "networkx"
        assert one.run("keep", args=(1,), limits=TIGHT.limits).unwrap() == [1]
        with engine.fork_sandbox(one) as twin:
            assert twin.run("keep", args=(2,), limits=TIGHT.limits).unwrap() == [1, 2]
        engine.export_sandbox(one, tmp_path / "one.sandbox")
    with engine.import_sandbox(tmp_path / "one.sandbox") as again:
        assert again.run("keep", args=(3,), limits=TIGHT.limits).unwrap() == [1, 3]
        assert again.run("f", isolation="call", limits=TIGHT.limits).unwrap() == 3
        assert engine.get_info(again).image == "networkx"
        frozen = again.freeze("with-networkx", replace=True)
    task = evolve(TIGHT, image="with-networkx")
    result = engine.evaluate(["import networkx, program\ndef f():\n    return 3\n"], task)[0]
    assert (result.valid, result.image) == (True, "with-networkx")
    engine.export_image(frozen.id, tmp_path / "frozen.image")
    assert engine.import_image(tmp_path / "frozen.image").snapshot_sha256 == frozen.snapshot_sha256


def test_a_recorded_call_is_made_again_in_its_image(tmp_path):
    with evocell.Engine(Config.load(workers=0, images="imports", state_dir=tmp_path)) as engine:
        engine.evaluate([GRAPH], TASK)
        (record,) = engine.evaluation_records()
        assert engine.replay(record).same
    with evocell.Engine(Config.load(workers=0, images="base", state_dir=tmp_path)) as engine:
        assert engine.replay(record).same


WORKERS = """
import evocell_stand_ins
evocell_stand_ins.install()
import concurrent.futures, threading
from joblib import Parallel, delayed
from scipy.optimize import differential_evolution
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score
from sklearn.datasets import make_classification

def f():
    x, y = make_classification(60, random_state=0)
    forest = RandomForestClassifier(5, n_jobs=2, random_state=0)
    return {
        "joblib": Parallel(n_jobs=2)(delayed(abs)(n) for n in (-1, 2)),
        "threads": Parallel(n_jobs=2, backend="threading")(delayed(abs)(n) for n in (-1, 2)),
        "forest": len(cross_val_score(forest, x, y, n_jobs=2)),
        "evolution": bool(differential_evolution(
            sum, [(-1, 1)], workers=2, updating="deferred", maxiter=2, seed=1).success in (True, False)),
    }
"""


def test_packages_that_were_imported_before_find_the_stand_ins(engine):
    task = Evaluation(
        "driver:f",
        [Case()],
        lambda case, value: 1.0,
        harness={**stand_ins(), "driver.py": WORKERS},
        limits=Limits(fuel=30 * 10**9, memory_bytes=512 << 20, scratch_bytes=1 << 24, processes=4),
    )
    result = engine.evaluate(["x = 1\n"], task)[0]
    assert result.image == "sklearn"
    assert result.test_results[0].outcome.unwrap() == {
        "joblib": [1, 2],
        "threads": [1, 2],
        "forest": 5,
        "evolution": True,
    }
