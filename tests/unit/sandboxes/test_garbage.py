"""What the garbage collector takes, what it leaves, and what it does when memory runs short."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import trio

import evocell
from evocell import Case, Config, Evaluation, Offspring
from evocell.sandboxes import garbage
from evocell.sandboxes.garbage import memory_taken

pytestmark = pytest.mark.trio

TASK = Evaluation("f", [Case(())], lambda case, value: value)


def constant(score):
    return f"def f(): return {score}"


@pytest.fixture
def open_engine(fake_workers):
    def open_engine(**settings):
        return evocell.AsyncEngine(Config(**settings), open_worker=fake_workers)

    return open_engine


async def generations(engine, n_generations, size=3, population="p"):
    """A population of several generations, in which the first member of the second is the fittest."""
    if population not in {state.id for state in await engine.list_populations()}:
        await engine.create_population(population)
    for number in range(n_generations):
        scores = [100 if (number, place) == (1, 0) else place for place in range(size)]
        offspring = [Offspring(constant(s), id=f"{population}{number}-{k}") for k, s in enumerate(scores)]
        await engine.next_generation(population, offspring)
        await engine.evaluate_generation(population, TASK)


async def test_generations_that_are_over_go_but_for_elites_pins_and_those_in_use(open_engine, fake_workers):
    seen = []
    async with open_engine(gc_retain_generations=2, gc_elites=1) as engine:
        engine.telemetry.attach("test", "sandbox.gc", seen.append)
        await generations(engine, 4)
        await engine.create_sandbox("free", source=constant(1))
        await engine.pin(["p0-1"])
        await engine.hot_reload_source("p1-2", "def f(): return 'hang'")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run, "p1-2", "f")
            await fake_workers.last.hanging.wait()
            report = await engine.collect_garbage()
            nursery.cancel_scope.cancel()
        assert report.sandboxes == ("p0-0", "p0-2", "p1-1")
        assert (report.kept_elites, report.kept_pinned, report.kept_busy) == (1, 1, 1)
        assert await engine.get_members("p") == [
            "p0-1", "p1-0", "p1-2", "p2-0", "p2-1", "p2-2", "p3-0", "p3-1", "p3-2"
        ]  # fmt: skip
        assert [state.id for state in await engine.list_sandboxes()][-1] == "free"
        with pytest.raises(evocell.SandboxNotFound):
            await engine.get_info("p0-0")
        (event,) = seen
        assert event.metadata == {"cause": "demand"}
        assert event.measurements["sandboxes"] == 3
        assert event.measurements["duration_s"] == report.duration_s > 0

        await engine.unpin(["p0-1"])
        assert set((await engine.collect_garbage()).sandboxes) == {"p0-1", "p1-2"}
        assert (await engine.collect_garbage()).sandboxes == ()


async def test_sessions_end_with_their_sandboxes(open_engine, fake_workers):
    async with open_engine(gc_retain_generations=1, gc_elites=0) as engine:
        await generations(engine, 2)
        await engine.run("p0-0", "f")
        report = await engine.collect_garbage()
        assert (len(report.sandboxes), report.sessions) == (3, 1)
        assert fake_workers.last.sessions == {}


async def test_0_generations_to_retain_keeps_all(open_engine):
    async with open_engine(gc_retain_generations=0) as engine:
        await generations(engine, 6)
        assert (await engine.collect_garbage()).sandboxes == ()


async def test_it_goes_by_itself_at_intervals(open_engine):
    async with open_engine(gc_retain_generations=1, gc_elites=0, gc_interval_ms=20) as engine:
        collected = trio.Event()

        def note(event):
            if event.measurements["sandboxes"] == 3 and event.metadata["cause"] == "interval":
                collected.set()

        engine.telemetry.attach("test", "sandbox.gc", note)
        await generations(engine, 2)
        with trio.fail_after(10):
            await collected.wait()
        assert await engine.get_members("p") == ["p1-0", "p1-1", "p1-2"]


async def test_it_is_started_again_when_it_fails(open_engine, monkeypatch, caplog):
    failed = []
    sort = garbage.GarbageCollector._sort

    def fail_once(self, retain):
        if not failed:
            failed.append(True)
            raise RuntimeError("a fault in the collector")
        return sort(self, retain)

    monkeypatch.setattr(garbage.GarbageCollector, "_sort", fail_once)
    async with open_engine(gc_interval_ms=10) as engine:
        collected = trio.Event()
        engine.telemetry.attach("test", "sandbox.gc", lambda event: collected.set())
        with trio.fail_after(10):
            await collected.wait()
        assert "the task 'garbage-collector' failed and is started again" in caplog.text


# ---------------------------------------------------------------------- version trees and directories


async def test_trees_go_with_the_last_sandbox_that_holds_them(open_engine):
    async with open_engine() as engine:
        one = await engine.create_sandbox(source=constant(1))
        await engine.create_sandbox("other", source=constant(1))
        digest = (await one.get_info()).version
        await one.destroy()
        assert (await engine.collect_garbage()).trees == 0
        assert digest in engine._manager._versions.trees._snapshots.digests()
        await engine.destroy_sandbox("other")
        assert (await engine.collect_garbage()).trees >= 1
        assert digest not in engine._manager._versions.trees._snapshots.digests()


DATA = {"program.py": constant(1), "data.bin": b"\xff\x00"}
"""A program that the database keeps no text of: its tree is on the disk."""


async def test_trees_of_a_durable_store_rest_before_they_go_by_themselves(open_engine, tmp_path):
    async with open_engine(state_dir=tmp_path) as engine:
        sandbox = await engine.create_sandbox(source=DATA)
        await sandbox.destroy()
    (tree,) = (tmp_path / "code" / "versions").iterdir()
    async with open_engine(state_dir=tmp_path) as engine:
        assert (await engine._garbage.collect("interval")).trees == 0
        os.utime(tree, (0, 0))
        assert (await engine._garbage.collect("interval")).trees == 1
    assert not tree.exists()


async def test_trees_stay_while_another_engine_has_the_same_store(open_engine, tmp_path):
    async with open_engine(state_dir=tmp_path) as engine:
        await (await engine.create_sandbox(source=DATA)).destroy()
    async with open_engine(state_dir=tmp_path) as engine:
        async with open_engine(state_dir=tmp_path):
            assert (await engine.collect_garbage()).trees == 0
        assert (await engine.collect_garbage()).trees == 1


async def test_a_full_disk_costs_no_other_engine_its_trees(open_engine, tmp_path, monkeypatch):
    monkeypatch.setattr("evocell.api.lifecycle.memory_place", lambda: None)
    async with open_engine(state_dir=tmp_path) as one, open_engine(state_dir=tmp_path) as other:
        sandbox = await one.create_sandbox(source=constant(1))
        tree = tmp_path / "code" / "versions" / (await sandbox.get_info()).version
        other._versions.trees._snapshots.on_full()
        assert tree.is_dir()


async def test_programs_whose_text_the_database_keeps_leave_no_files_on_the_disk(open_engine, tmp_path):
    async with open_engine(state_dir=tmp_path) as engine:
        sandbox = await engine.create_sandbox(source=constant(1))
        digest = (await sandbox.get_info()).version
        assert list((tmp_path / "code" / "versions").iterdir()) == []
        await sandbox.destroy()
        assert (await engine._garbage.collect("interval")).trees == 1
    async with open_engine(state_dir=tmp_path) as engine:
        tree = engine._versions.read(digest)
        assert tree.files == (("program.py", constant(1).encode()),)


async def test_a_tree_in_both_places_counts_once(open_engine, tmp_path):
    async with open_engine(state_dir=tmp_path) as engine:
        await (await engine.create_sandbox(source=DATA)).destroy()
        assert len(list((tmp_path / "code" / "versions").iterdir())) == 1
        assert (await engine.collect_garbage()).trees == 1
        assert list((tmp_path / "code" / "versions").iterdir()) == []


async def test_without_memory_for_them_trees_are_on_the_disk(open_engine, tmp_path, monkeypatch):
    monkeypatch.setattr("evocell.api.lifecycle.memory_place", lambda: None)
    async with open_engine(state_dir=tmp_path) as engine:
        sandbox = await engine.create_sandbox(source=constant(1))
        digest = (await sandbox.get_info()).version
        assert (tmp_path / "code" / "versions" / digest).is_dir()
        await sandbox.destroy()
        assert (await engine._garbage.collect("interval")).trees == 0
        assert (await engine.collect_garbage()).trees == 1


ORPHAN = """
import sys, time
from evocell.guests.scratch import OwnedDirectory
directory = OwnedDirectory()
(directory.path / "left").write_text("behind")
print(directory.path, flush=True)
time.sleep(60)
"""


async def test_directories_of_killed_processes_are_swept_at_the_start_and_by_collections(
    open_engine, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def orphan():
        process = subprocess.Popen(
            [sys.executable, "-c", ORPHAN],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        process.kill()
        process.wait()
        process.stdout.close()
        return path

    first = await trio.to_thread.run_sync(orphan)
    assert first.is_dir()
    async with open_engine() as engine:
        assert not first.is_dir()
        second = await trio.to_thread.run_sync(orphan)
        assert (await engine.collect_garbage()).directories == 1
        assert not second.is_dir()


# ---------------------------------------------------------------------- memory


class Gauge:
    """Says how much memory is taken, as a test wants it."""

    def __init__(self, *readings: float) -> None:
        self.readings = list(readings)

    def __call__(self) -> float:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


async def test_short_memory_has_old_generations_collected(open_engine):
    async with open_engine(gc_elites=0, enforcement_enabled=False) as engine:
        await generations(engine, 3)
        engine._garbage._taken = Gauge(0.95, 0.5)
        await engine._garbage.look()
        assert await engine.get_members("p") == ["p2-0", "p2-1", "p2-2"]
        assert engine._manager.admission.refusal is None
        await engine.create_sandbox()


async def test_memory_that_stays_short_has_new_sandboxes_refused_until_it_does_not(open_engine):
    async with open_engine(enforcement_enabled=False) as engine:
        await generations(engine, 1)
        engine._garbage._taken = Gauge(0.95)
        await engine._garbage.look()
        with pytest.raises(
            evocell.CapacityError, match=r"95% of the memory is taken, gc_memory_percent is 90"
        ) as caught:
            await engine.create_sandbox()
        assert caught.value.resource == "memory"
        with pytest.raises(evocell.CapacityError):
            await engine.fork_sandbox("p0-0")
        assert (await engine.evaluate([constant(5)], TASK))[
            0
        ].fitness_score == 5  # what is kept nowhere goes on
        assert (await engine.run("p0-1", "f")).unwrap() == 1
        engine._garbage._taken = Gauge(0.5)
        await engine._garbage.look()
        await engine.create_sandbox()


async def test_a_lowered_threshold_acts_by_itself_on_the_machines_own_memory(open_engine):
    """Whatever runs on this machine, more than one per cent of its memory is taken."""
    async with open_engine(gc_memory_percent=1, enforcement_poll_interval_ms=10) as engine:
        with trio.fail_after(10):
            while engine._manager.admission.refusal is None:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        with pytest.raises(evocell.CapacityError, match="of the memory is taken"):
            await engine.create_sandbox()
        assert await engine.list_sandboxes() == []


async def test_a_control_group_counts_if_it_is_fuller_than_the_machine(tmp_path):
    machine = memory_taken(tmp_path)
    assert 0 < machine < 1
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("999000\n")
    assert memory_taken(tmp_path) == pytest.approx(0.999)
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 990000\n")
    assert memory_taken(tmp_path) == pytest.approx(machine, abs=0.05)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_taken(tmp_path) == pytest.approx(machine, abs=0.05)


async def test_room_is_made_before_sandboxes_are_refused(open_engine):
    async with open_engine(
        default_max_processes=12, gc_retain_generations=2, gc_interval_ms=3_600_000
    ) as engine:
        seen = []
        engine.telemetry.attach("test", "sandbox.gc", seen.append)
        await generations(engine, 20)
        assert {event.metadata["cause"] for event in seen} == {"capacity"}
        assert await engine.get_members("p", 19) == ["p19-0", "p19-1", "p19-2"]
        assert "p1-0" in await engine.get_members("p")  # the fittest of all
        await engine.pin(await engine.get_members("p"))
        with pytest.raises(evocell.CapacityError, match="12 are allowed"):
            await generations(engine, 4)  # all of them are kept, so that there is nothing to collect


@pytest.mark.parametrize("way", ["evaluate", "batch_create", "as_completed", "fork"])
async def test_every_way_to_make_sandboxes_makes_room_first(open_engine, way):
    async with open_engine(
        default_max_processes=6, gc_retain_generations=1, gc_elites=0, gc_interval_ms=3_600_000
    ) as engine:
        await generations(engine, 2)  # six sandboxes, of which three are of a generation that is over
        if way == "evaluate":
            await engine.evaluate([constant(1), constant(2)], TASK, population="p", generation=1)
        elif way == "batch_create":
            specs = [evocell.SandboxSpec(population="p", generation=1, source=constant(1)) for _ in range(3)]
            await engine.batch_create(specs)
        elif way == "as_completed":
            async with engine.as_completed([constant(1)], TASK, population="p", generation=1) as results:
                assert [index async for index, _ in results] == [0]
        else:
            await engine.batch_fork("p1-1", 3)
        assert len(await engine.list_sandboxes()) <= 6


async def test_each_population_has_its_own_bound_and_room_is_made_in_all(open_engine):
    async with open_engine(
        default_max_processes=9, gc_retain_generations=1, gc_elites=0, gc_interval_ms=3_600_000
    ) as engine:
        await generations(engine, 5, population="p")
        await generations(engine, 5, population="q")
        assert len(await engine.list_sandboxes()) <= 9
