"""Forks and freezes as records go: what a copy is called, and what remains when it fails."""

from functools import partial

import pytest
import trio
import trio.testing

import evocell
from evocell.models.state import SandboxStatus

pytestmark = pytest.mark.trio

COUNTER = "n = 0\ndef bump():\n    global n\n    n += 1\n    return n"


async def test_a_fork_joins_the_population_and_generation_of_its_parent(async_engine):
    parent = await async_engine.create_sandbox("a", source=COUNTER, population="p", generation=3)
    made = await parent.fork("b")
    state = await made.get_info()
    assert (state.id, state.population, state.generation) == ("b", "p", 3)
    assert (state.parent_ids, state.mutation_type, state.lineage_depth) == (("a",), "fork", 1)
    assert [step.reason for step in state.transitions] == ["", "forked from 'a'"]


async def test_a_fork_of_broken_code_is_broken_too(async_engine):
    parent = await async_engine.create_sandbox("a", source="def f(:")
    state = await (await parent.fork()).get_info()
    assert state.status is SandboxStatus.ERROR
    assert state.error == (await parent.get_info()).error


async def test_when_one_of_many_cannot_be_copied_none_remains(async_engine, fake_workers):
    parent = await async_engine.create_sandbox("a", source=COUNTER)
    await parent.run("bump")
    fake_workers.last.busy = "it has files open"
    with pytest.raises(evocell.SandboxBusy, match="'a' cannot be copied now: it has files open") as caught:
        await async_engine.batch_fork("a", 3)
    assert caught.value.sandbox_id == "a"
    assert [state.id for state in await async_engine.list_sandboxes()] == ["a"]
    assert list(fake_workers.last.sessions) == [(await _session(async_engine, "a"))]


async def test_a_fork_counts_towards_capacity_and_its_id_must_be_free(async_engine):
    await async_engine.create_sandbox("a", source=COUNTER)
    with pytest.raises(evocell.SandboxExists):
        await async_engine.fork_sandbox("a", "a")
    with pytest.raises(evocell.CapacityError):
        await async_engine.batch_fork("a", 10_000)
    with pytest.raises(evocell.ConfigurationError, match="count must be a whole number from 1"):
        await async_engine.batch_fork("a", 0)


async def test_what_holds_no_code_cannot_be_frozen(async_engine):
    await async_engine.create_sandbox("a")
    with pytest.raises(evocell.ConfigurationError, match="holds no code to freeze"):
        await async_engine.freeze("a", "name")


async def test_a_freeze_that_is_refused_says_why(async_engine, fake_workers):
    sandbox = await async_engine.create_sandbox("a", source=COUNTER)
    fake_workers.last.busy = "it has files open"
    with pytest.raises(evocell.SandboxBusy, match="files open"):
        await sandbox.freeze("name")
    assert await async_engine.list_images() == []


async def _session(engine, sandbox_id):
    return engine._manager.get(sandbox_id).session


async def test_one_that_is_destroyed_while_it_moves_ends_once(async_engine, monkeypatch, tmp_path):
    sandbox = await async_engine.create_sandbox("a", source=COUNTER)
    ends = []
    async_engine.telemetry.attach("test", "sandbox.destroyed", ends.append)
    under_way, go_on = trio.Event(), trio.Event()

    async def write(record, path):
        path.touch()

    async def recreate(path):
        under_way.set()
        await go_on.wait()

    monkeypatch.setattr(async_engine._copies, "_write", write)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(async_engine.migrate_sandbox, sandbox, recreate, path=tmp_path / "file"))
        await under_way.wait()
        nursery.start_soon(sandbox.destroy)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert len(ends) == 1
    assert await async_engine.list_sandboxes() == []
