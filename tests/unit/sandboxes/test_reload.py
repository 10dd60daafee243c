"""Reloads in place, rollbacks and diffs, over a worker of a few lines."""

from __future__ import annotations

import pytest

import evocell
from evocell.errors import ConfigurationError, OutcomeError
from evocell.models.outcome import LimitExceeded

pytestmark = pytest.mark.trio

FIRST = {"program.py": "def f(): return 1\n", "helper.py": "def h(): return 1\n"}
SECOND = {"program.py": "def f(): return 2\ndef g(): return 2\n", "helper.py": "def h(): return 2\n"}


async def test_a_rollback_restores_the_files_of_one_module_as_a_new_version(async_engine):
    sandbox = await async_engine.create_sandbox("a", source=FIRST)
    await sandbox.hot_reload_source(SECOND)

    outcome = await sandbox.rollback_module("program", 1)

    assert (await sandbox.run("f")).unwrap() == 1
    assert (await sandbox.run("helper:h")).unwrap() == 2
    version = await sandbox.get_module_version("program")
    assert (version.number, version.parent_version, version.restores) == (3, 2, 1)
    assert version.mutation_type == (await sandbox.get_info()).mutation_type == "rollback"
    assert outcome.unwrap() == version.digest == (await sandbox.get_info()).version
    assert (await sandbox.get_module_version("helper")).number == 2
    history = await sandbox.history("program")
    assert [one.mutation_type for one in history] == ["seed", "mutation", "rollback"]
    assert history[0].checksum == history[2].checksum


async def test_a_rollback_compiles_nothing(async_engine, fake_workers):
    sandbox = await async_engine.create_sandbox("a", source=FIRST)
    await sandbox.hot_reload_source(SECOND)
    compiled = fake_workers.last.count["compile"]

    await sandbox.rollback_module("helper", 1)

    assert fake_workers.last.count["compile"] == compiled


async def test_a_rollback_may_keep_the_state(async_engine):
    sandbox = await async_engine.create_sandbox(
        "a", source="n = 0\ndef f():\n  global n\n  n += 1\n  return n\n"
    )
    await sandbox.run("f")
    await sandbox.hot_reload_source("def f():\n  return n * 10\n", keep_state=True)
    assert (await sandbox.run("f")).unwrap() == 10

    await sandbox.hot_reload_source("def f():\n  return n * 20\n", keep_state=True)
    await sandbox.rollback_module("program", 2, keep_state=True)

    assert (await sandbox.run("f")).unwrap() == 10


async def test_what_cannot_be_rolled_back(async_engine):
    sandbox = await async_engine.create_sandbox("a", source=FIRST)
    with pytest.raises(ConfigurationError, match="no module 'other'; it has helper, program"):
        await sandbox.rollback_module("other", 1)
    with pytest.raises(ConfigurationError, match="no version 2 of module 'program'; it keeps 1 "):
        await sandbox.rollback_module("program", 2)
    await sandbox.hot_reload_source("def")
    with pytest.raises(ConfigurationError, match="holds no code that runs"):
        await sandbox.rollback_module("program", 1)
    assert await sandbox.get_module_version("program") is None
    assert len(await sandbox.history("program")) == 1


async def test_a_rejected_reload_is_no_version(async_engine):
    sandbox = await async_engine.create_sandbox("a", source=FIRST)
    await sandbox.hot_reload_source("def")
    await sandbox.hot_reload_source(SECOND)

    assert [one.number for one in await sandbox.history("program")] == [1, 2]


async def test_a_swap_that_raises_changes_nothing(async_engine):
    sandbox = await async_engine.create_sandbox("a", source="def f(): return 1\n")
    await sandbox.run("f")
    before = await sandbox.get_info()

    outcome = await sandbox.hot_reload_source("def f(): return 2\n1 / 0\n", keep_state=True)

    assert (outcome.kind, outcome.type_name) == ("raised", "ZeroDivisionError")
    assert await sandbox.get_info() == before
    assert len(await sandbox.history("program")) == 1


async def test_a_swap_that_is_killed_leaves_the_former_code(async_engine):
    sandbox = await async_engine.create_sandbox("a", source="def f(): return 1\n")
    await sandbox.run("f")

    outcome = await sandbox.hot_reload_source("raise KeyboardInterrupt\n", keep_state=True)

    assert outcome.kind == "fuel"
    state = await sandbox.get_info()
    assert (state.status.value, state.restart_count) == ("running", 1)
    assert (await sandbox.run("f")).unwrap() == 1


async def test_diffs_between_any_two_versions(async_engine):
    sandbox = await async_engine.create_sandbox("a", source=FIRST)
    await sandbox.hot_reload_source(SECOND)
    await sandbox.hot_reload_source(SECOND | {"program.py": "def g(): return 3\n"})

    found = await sandbox.diff("program", 1, 2)
    assert (found.module, found.old, found.new) == ("program", 1, 2)
    assert (found.added, found.removed, found.changed) == (("program:g",), (), ("program:f",))
    assert "-def f(): return 1\n+def f(): return 2\n" in found.unified
    latest = await sandbox.diff("program")
    assert (latest.old, latest.new) == (2, 3)
    assert (latest.removed, latest.changed) == (("program:f",), ("program:g",))
    assert (await sandbox.diff("program", 3, 1)).removed == ("program:g",)
    assert (await sandbox.diff("program", 2, 2)).unified == ""
    with pytest.raises(ConfigurationError, match="is the first"):
        await sandbox.diff("program", new=1)
    with pytest.raises(ConfigurationError, match="no version 9"):
        await sandbox.diff("program", 9, 1)


async def test_a_comparison_that_has_no_end_is_an_error(async_engine, fake_workers, monkeypatch):
    sandbox = await async_engine.create_sandbox("a", source=FIRST)
    await sandbox.hot_reload_source(SECOND)

    async def never(request):
        return LimitExceeded("fuel", limit=10, reached=10)

    monkeypatch.setattr(fake_workers.last, "inspect", never)

    with pytest.raises(OutcomeError, match="fuel"):
        await sandbox.diff("program")


async def test_so_many_versions_are_kept(fake_workers):
    config = evocell.Config(max_module_versions=2)
    async with evocell.AsyncEngine(config, open_worker=fake_workers) as engine:
        sandbox = await engine.create_sandbox("a", source="def f(): return 0")
        for number in range(1, 5):
            await sandbox.hot_reload_source(f"def f(): return {number}")

        assert [version.number for version in await sandbox.history("program")] == [4, 5]


async def test_trees_of_destroyed_sandboxes_are_used_no_more(async_engine):
    trees = async_engine._manager.trees
    async with await async_engine.create_sandbox("a", source=FIRST) as sandbox:
        await sandbox.hot_reload_source(SECOND)
        assert len(trees.held_by("sandbox:a")) == 2
    assert trees.held_by("sandbox:a") == frozenset()
    assert trees.remove_unused().trees == 2


async def test_versions_are_on_record_after_their_sandbox_is_gone(fake_workers, tmp_path):
    config = evocell.Config(state_dir=tmp_path)
    async with evocell.AsyncEngine(config, open_worker=fake_workers) as engine:
        sandbox = await engine.create_sandbox("a", source=FIRST)
        await sandbox.hot_reload_source(SECOND, mutation_type="crossover")
        await sandbox.rollback_module("program", 1)
        known = await sandbox.history("program")
        await sandbox.destroy()
        assert tuple(await engine.past_versions("a", "program")) == known
    async with evocell.AsyncEngine(config, open_worker=fake_workers) as engine:
        found = await engine.past_versions("a")

    assert tuple(version for version in found if version.module == "program") == known
    assert [(version.module, version.number) for version in found if version.module == "helper"] == [
        ("helper", 1),
        ("helper", 2),
    ]
    assert {version.created_at for version in known} <= {version.created_at for version in found}
