"""The orchestration layer of the source architecture, row by row, on the real image and both kinds of worker.

Each test is named after a line of the source: Manager, PopulationRegistry, GarbageCollector.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

import evocell
from evocell import Case, Config, Evaluation, Offspring, SandboxStatus

TASK = Evaluation("f", [Case(())], lambda case, value: value)
COUNTER = "n = 0\ndef f():\n    global n\n    n += 1\n    return n"


def constant(score):
    return f"def f(): return {score}"


@pytest.fixture
def population(engine, request):
    """A population of the test's own, whose members are gone afterwards."""
    name = request.node.name[:100]
    engine.create_population(name)
    yield name
    engine.batch_destroy(engine.get_members(name), missing_ok=True)


# ---------------------------------------------------------------------- Manager


def test_manager_creates_and_destroys(engine):
    sandbox = engine.create_sandbox(source=constant(1))
    assert sandbox.run("f").unwrap() == 1
    assert sandbox.destroy().status is SandboxStatus.STOPPED
    with pytest.raises(evocell.SandboxNotFound):
        sandbox.get_info()


def test_manager_goes_through_the_states_creating_running_error_stopped(engine):
    sandbox = engine.create_sandbox(source="def f(:")
    assert sandbox.get_info().status is SandboxStatus.ERROR
    sandbox.hot_reload_source(constant(1))
    last = sandbox.destroy()
    assert [step.after.value for step in last.transitions] == ["creating", "error", "running", "stopped"]


def test_manager_notices_every_death():
    """A worker that dies takes sessions along; nobody need call to learn it."""
    with evocell.Engine(Config.load(workers=1)) as engine, engine.create_sandbox(source=COUNTER) as sandbox:
        assert [sandbox.run("f").unwrap() for _ in range(2)] == [1, 2]
        os.kill(engine.workers()[0].pid, signal.SIGKILL)
        ends_at = time.monotonic() + 30
        while sandbox.get_info().restart_count == 0:
            assert time.monotonic() < ends_at
            time.sleep(0.02)
        assert sandbox.get_info().status is SandboxStatus.RUNNING
        assert sandbox.run("f").unwrap() == 1


# ---------------------------------------------------------------------- PopulationRegistry


def test_population_registry_tracks_groups_of_related_sandboxes(engine, population):
    made = engine.next_generation(population, [Offspring(constant(n)) for n in range(3)])
    with engine.create_sandbox(source=constant(9)):
        assert engine.get_members(population) == [sandbox.id for sandbox in made]
    state = engine.get_population(population)
    assert (state.id, state.sandbox_ids) == (population, tuple(sandbox.id for sandbox in made))
    assert population in {state.id for state in engine.list_populations()}


def test_population_registry_tracks_generations(engine, population):
    for number in range(3):
        engine.next_generation(population, [Offspring(constant(number))])
        assert engine.get_population(population).generation == number
    assert [len(engine.get_members(population, number)) for number in range(4)] == [1, 1, 1, 0]
    assert [one.generation for one in engine.list_generations(population)] == [0, 1, 2]


def test_population_registry_knows_parents_and_children(engine, population):
    one, two = engine.next_generation(population, [Offspring(constant(n)) for n in range(2)])
    child = engine.next_generation(population, [Offspring(constant(3), (one, two))])[0]
    island = f"{population}-island"
    (grandchild,) = engine.next_generation(population, [Offspring(constant(4), child)], into=island)
    assert engine.list_generations(population, 1)[0].edges == (
        (child.id, one.id, "crossover"),
        (child.id, two.id, "crossover"),
    )
    assert engine.lineage.ancestors(grandchild.id) == [child.id, two.id, one.id]
    assert engine.get_population(island).parent_population_id == population
    grandchild.destroy()


def test_population_registry_has_bulk_operations_on_generations(engine, population):
    engine.next_generation(population, [Offspring(constant(n)) for n in (1, 2, 6)] + [Offspring("def f(:")])
    results = engine.evaluate_generation(population, TASK)
    assert [result.fitness_score for result in results] == [1.0, 2.0, 6.0, 0.0]
    stats = engine.get_population(population).fitness_stats
    assert {name: stats[name] for name in ("min", "max", "mean", "median", "n_valid", "n_invalid")} == {
        "min": 1.0,
        "max": 6.0,
        "mean": 3.0,
        "median": 2.0,
        "n_valid": 3,
        "n_invalid": 1,
    }
    assert stats["std"] == pytest.approx(2.1602, abs=1e-4)
    best = engine.best(population)
    gone = engine.destroy_generation(population, keep=best)
    assert (len(gone), engine.get_members(population)) == (3, [best[0].id])


# ---------------------------------------------------------------------- GarbageCollector


@pytest.fixture(params=[0, 2], ids=["in-process", "processes"])
def collecting(request, tmp_path):
    """An engine that keeps one generation, and its state in a directory of the test's own."""
    settings = {"workers": request.param, "gc_retain_generations": 1, "gc_elites": 1, "state_dir": tmp_path}
    with evocell.Engine(Config.load(**settings)) as made:
        yield made


def test_garbage_collector_keeps_n_generations_elites_and_pins(collecting):
    collecting.create_population("p")
    first = collecting.next_generation("p", [Offspring(constant(n)) for n in (9, 1, 2)])
    collecting.evaluate_generation("p", TASK)
    first[2].run("f")  # one of the dead holds a session
    collecting.next_generation("p", [Offspring(constant(3), first[0])])
    collecting.evaluate_generation("p", TASK)
    collecting.pin([first[1]])
    report = collecting.collect_garbage()
    assert (report.sandboxes, report.sessions) == ((first[2].id,), 1)
    assert (report.kept_elites, report.kept_pinned, report.kept_busy) == (1, 1, 0)
    assert len(collecting.get_members("p")) == 3


def test_garbage_collector_goes_periodically(tmp_path):
    config = Config.load(workers=0, gc_retain_generations=1, gc_elites=0, gc_interval_ms=50)
    with evocell.Engine(config) as engine:
        engine.create_population("p")
        engine.next_generation("p", [Offspring(constant(1))])
        engine.next_generation("p", [Offspring(constant(2))])
        ends_at = time.monotonic() + 30
        while len(engine.get_members("p")) > 1:
            assert time.monotonic() < ends_at
            time.sleep(0.02)
        assert engine.get_members("p", 1) != []


def test_garbage_collector_cleans_up_artifacts(collecting, tmp_path):
    sandbox = collecting.create_sandbox(source=constant(1))
    digest = sandbox.get_info().version
    tree = collecting._engine._versions.trees._snapshots.path_of(digest)
    assert collecting.collect_garbage().trees == 0
    assert tree.is_dir()
    sandbox.destroy()
    report = collecting.collect_garbage()
    assert (report.trees >= 1, report.bytes >= len(constant(1))) == (True, True)
    assert not tree.exists()


def test_garbage_collector_responds_to_memory_pressure(tmp_path):
    """With the threshold at one per cent, this machine's memory is short."""
    config = Config.load(workers=0, gc_memory_percent=1, enforcement_poll_interval_ms=10)
    with evocell.Engine(config) as engine:
        ends_at = time.monotonic() + 30
        while True:
            try:
                engine.create_sandbox(source=constant(1))
            except evocell.CapacityError:
                break
            assert time.monotonic() < ends_at
        with pytest.raises(evocell.CapacityError, match="of the memory is taken, gc_memory_percent is 1"):
            engine.create_sandbox(source=constant(1))
        # what is there goes on, and what is kept nowhere does too
        assert engine.evaluate_one(constant(7), TASK).fitness_score == 7.0
        assert all(state.status is SandboxStatus.RUNNING for state in engine.list_sandboxes())
