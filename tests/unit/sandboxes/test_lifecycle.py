"""The life of a sandbox, and what happens when several tasks want it at once."""

import pytest
import trio
import trio.testing

from evocell import (
    AsyncEngine,
    CapacityError,
    Config,
    ConfigurationError,
    EngineClosed,
    SandboxExists,
    SandboxNotFound,
    SandboxSpec,
)
from evocell.concurrency import keep_running

pytestmark = pytest.mark.trio

COUNTER = """
n = 0
def bump(by=1):
    global n
    n += by
    return n
def hang(): return "hang"
def die(): raise KeyboardInterrupt
def fail(): raise ValueError("no")
"""


def has_ended(state):
    return state.status.value == "stopped"


def steps(state):
    return [(step.before and step.before.value, step.after.value) for step in state.transitions]


async def test_a_sandbox_is_created_runs_and_is_destroyed(async_engine):
    sandbox = await async_engine.create_sandbox("a", source=COUNTER)
    state = await sandbox.get_info()
    assert (state.status.value, state.error, state.supervisor) == ("running", None, None)
    assert (await sandbox.run("bump")).unwrap() == 1
    assert (await sandbox.run("bump", kwargs={"by": 2})).unwrap() == 3
    assert (await sandbox.get_info()).supervisor == "local"
    assert (await sandbox.run("bump", isolation="call")).unwrap() == 1
    assert (await sandbox.run("bump")).unwrap() == 4
    last = await sandbox.destroy()
    assert steps(last) == [(None, "creating"), ("creating", "running"), ("running", "stopped")]
    with pytest.raises(SandboxNotFound):
        await sandbox.run("bump")
    assert await async_engine.list_sandboxes() == []


async def test_rejected_code_is_a_state_and_can_be_mended(async_engine):
    sandbox = await async_engine.create_sandbox("a", source="def f(:")
    state = await sandbox.get_info()
    assert (state.status.value, state.version) == ("error", None)
    assert "program.py:1" in state.error
    assert (await sandbox.run("f")).kind == "syntax"
    assert await sandbox.get_module_version("program") is None
    outcome = await sandbox.hot_reload_source("def f(): return 1", mutation_type="repair")
    state = await sandbox.get_info()
    assert outcome.unwrap() == state.version == (await sandbox.get_module_version("program")).digest
    assert (state.status.value, state.error, state.mutation_type) == ("running", None, "repair")
    assert (await sandbox.run("f")).unwrap() == 1


async def test_a_reload_leaves_nothing_behind_unless_told_so(async_engine, fake_workers):
    sandbox = await async_engine.create_sandbox(source=COUNTER)
    await sandbox.run("bump")
    await sandbox.hot_reload_source(COUNTER + "\n")
    assert fake_workers.last.count["end_session"] == 1
    assert (await sandbox.run("bump")).unwrap() == 1
    kept = "def bump(by=1):\n    global n\n    n += 100\n    return n\n"
    assert (await sandbox.hot_reload_source(kept, keep_state=True)).ok
    assert [(job.reload, job.entry) for job in fake_workers.last.jobs][-1] == (True, "")
    assert (await sandbox.run("bump")).unwrap() == 101
    assert (await sandbox.run("bump")).unwrap() == 201
    assert not fake_workers.last.jobs[-1].reload


async def test_rejected_code_in_a_hot_swap_changes_nothing(async_engine):
    sandbox = await async_engine.create_sandbox(source=COUNTER)
    await sandbox.run("bump")
    before = await sandbox.get_info()
    assert (await sandbox.hot_reload_source("def", keep_state=True)).kind == "syntax"
    assert await sandbox.get_info() == before
    assert (await sandbox.run("bump")).unwrap() == 2


async def test_rejected_code_in_an_ordinary_reload_is_an_error_state(async_engine, fake_workers):
    sandbox = await async_engine.create_sandbox(source=COUNTER)
    await sandbox.run("bump")
    assert (await sandbox.hot_reload_source("def")).kind == "syntax"
    assert (await sandbox.get_info()).status.value == "error"
    assert fake_workers.last.sessions == {}


async def test_a_killed_session_is_replaced_and_counted(async_engine):
    sandbox = await async_engine.create_sandbox(source=COUNTER)
    await sandbox.run("bump")
    assert (await sandbox.run("die")).kind == "fuel"
    state = await sandbox.get_info()
    assert (state.status.value, state.restart_count, state.supervisor) == ("running", 1, None)
    assert steps(state)[-2:] == [("running", "error"), ("error", "running")]
    assert (await sandbox.run("bump")).unwrap() == 1
    assert (await sandbox.run("die", isolation="call")).kind == "fuel"
    assert (await sandbox.get_info()).restart_count == 1
    assert (await sandbox.run("fail")).kind == "raised"
    assert (await sandbox.run("bump")).unwrap() == 2


async def test_a_sandbox_killed_a_thousand_times_remembers_a_hundred_steps(async_engine):
    sandbox = await async_engine.create_sandbox(source=COUNTER)
    for _ in range(300):
        await sandbox.run("die")
    state = await sandbox.get_info()
    assert (state.restart_count, len(state.transitions)) == (300, 100)


async def test_calls_in_a_session_take_turns(async_engine, fake_workers):
    sandbox = await async_engine.create_sandbox(source=COUNTER)
    values = []

    async def bump():
        values.append((await sandbox.run("bump")).unwrap())

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(bump)
    assert values == list(range(1, 21))
    assert fake_workers.last.most_running == 1


async def test_destroying_stops_the_call_under_way_and_those_that_wait(async_engine, fake_workers):
    sandbox = await async_engine.create_sandbox("a", source=COUNTER)
    seen = []

    async def call(function):
        with pytest.raises(SandboxNotFound):
            await sandbox.run(function)
        seen.append(function)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "hang")
        await fake_workers.last.hanging.wait()
        nursery.start_soon(call, "bump")
        await trio.testing.wait_all_tasks_blocked()
        await sandbox.destroy()
    assert sorted(seen) == ["bump", "hang"]
    assert fake_workers.last.sessions == {}
    again = await async_engine.create_sandbox("a", source=COUNTER)
    assert (await again.run("bump")).unwrap() == 1


async def test_only_one_of_two_destroys_wins(async_engine):
    await async_engine.create_sandbox("a", source=COUNTER)
    ends = []

    async def destroy():
        try:
            await async_engine.destroy_sandbox("a")
            ends.append("destroyed")
        except SandboxNotFound:
            ends.append("not found")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(destroy)
        nursery.start_soon(destroy)
    assert sorted(ends) == ["destroyed", "not found"]


@pytest.mark.parametrize("missing_ok", [False, True])
async def test_a_batch_is_destroyed_whole_whoever_else_destroys(async_engine, fake_workers, missing_ok):
    made = await async_engine.batch_create([SandboxSpec(source=COUNTER) for _ in range(40)])
    for sandbox in made:
        await sandbox.run("bump")
    states = []

    async def destroy():
        states.extend(await async_engine.batch_destroy(made, missing_ok=missing_ok))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(destroy)
        while made[0].id in {
            state.id for state in await async_engine.list_sandboxes() if not has_ended(state)
        }:
            await trio.lowlevel.checkpoint()
        with pytest.raises(SandboxNotFound):
            await made[-1].destroy()
    assert [state.status.value for state in states] == ["stopped"] * 40
    assert fake_workers.last.sessions == {}


async def test_a_cancelled_batch_destroy_destroys_all(async_engine, fake_workers):
    made = await async_engine.batch_create([SandboxSpec(source=COUNTER) for _ in range(40)])
    for sandbox in made:
        await sandbox.run("bump")
    with trio.CancelScope() as scope:
        scope.cancel()
        await async_engine.batch_destroy(made)
    assert await async_engine.list_sandboxes() == []
    assert fake_workers.last.sessions == {}


async def test_destroying_during_creation(async_engine, fake_workers):
    worker = fake_workers.last
    worker.compile_gate = trio.Event()

    async def create():
        with pytest.raises(SandboxNotFound):
            await async_engine.create_sandbox("a", source=COUNTER)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(create)
        await worker.hanging.wait()
        with pytest.raises(SandboxExists):
            await async_engine.create_sandbox("a")
        assert (await async_engine.get_info("a")).status.value == "creating"
        await async_engine.destroy_sandbox("a")
    assert await async_engine.list_sandboxes() == []


async def test_cancelling_a_creation_leaves_nothing(async_engine, fake_workers):
    worker = fake_workers.last
    worker.compile_gate = trio.Event()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                async_engine.batch_create, [SandboxSpec(f"s{n}", source=COUNTER) for n in range(5)]
            )
            await worker.hanging.wait()
            scope.cancel()
    assert await async_engine.list_sandboxes() == []
    worker.compile_gate.set()
    await async_engine.create_sandbox("s0", source=COUNTER)


async def test_cancelling_a_call_loses_the_session_and_nothing_else(async_engine, fake_workers):
    sandbox = await async_engine.create_sandbox(source=COUNTER)
    await sandbox.run("bump")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sandbox.run, "hang")
        await fake_workers.last.hanging.wait()
        nursery.cancel_scope.cancel()
    assert (await sandbox.get_info()).restart_count == 1
    assert (await sandbox.run("bump")).unwrap() == 1


async def test_a_deadline_counts_waiting(async_engine, fake_workers, autojump_clock):
    sandbox = await async_engine.create_sandbox(source=COUNTER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sandbox.run, "hang")
        await fake_workers.last.hanging.wait()
        outcome = await sandbox.run("bump", deadline_s=0.5)
        nursery.cancel_scope.cancel()
    assert (outcome.kind, outcome.limit, outcome.deterministic) == ("timeout", 0.5, False)


async def test_a_batch_is_created_whole_or_not_at_all(async_engine):
    await async_engine.create_sandbox("b", source=COUNTER)
    with pytest.raises(SandboxExists):
        await async_engine.batch_create([SandboxSpec("a"), SandboxSpec("b")])
    with pytest.raises(SandboxExists, match="twice"):
        await async_engine.batch_create([SandboxSpec("c"), SandboxSpec("c")])
    made = await async_engine.batch_create(
        [
            SandboxSpec("a", source=COUNTER),
            SandboxSpec(source="def"),
            SandboxSpec(source={"../x.py": ""}),
            SandboxSpec("sandbox-3", source=COUNTER),
            SandboxSpec(),
        ]
    )
    states = [await sandbox.get_info() for sandbox in made]
    assert [state.status.value for state in states] == ["running", "error", "error", "running", "running"]
    assert len({sandbox.id for sandbox in made}) == 5
    assert ".." in states[2].error
    assert (await made[4].run("f")).kind == "load"
    with pytest.raises(SandboxNotFound):
        await async_engine.batch_destroy(["a", "nobody"])
    last = await async_engine.batch_destroy([*made, "a", "nobody"], missing_ok=True)
    assert {state.status.value for state in last} == {"stopped"}
    assert [state.id for state in await async_engine.list_sandboxes()] == ["b"]


async def test_lineage(async_engine):
    await async_engine.batch_create(
        [
            SandboxSpec("seed", source=COUNTER, population="p"),
            SandboxSpec("child", source=COUNTER, parent_ids=("seed",), mutation_type="mutation"),
        ]
    )
    both = await async_engine.create_sandbox(
        "both", source=COUNTER, parent_ids=("child", "seed"), generation=4
    )
    state = await both.get_info()
    assert (state.parent_id, state.lineage_depth, state.generation) == ("child", 2, 4)
    assert [one.id for one in await async_engine.list_sandboxes(population="p")] == ["seed"]


async def test_capacity(fake_workers):
    async with AsyncEngine(Config(default_max_processes=2), open_worker=fake_workers) as engine:
        await engine.create_sandbox("a", source=COUNTER)
        with pytest.raises(CapacityError) as caught:
            await engine.batch_create([SandboxSpec(), SandboxSpec()])
        assert (caught.value.limit, caught.value.requested) == (2, 3)
        await engine.create_sandbox("b", population="p")
        await engine.destroy_sandbox("b")
        await engine.create_sandbox("c", population="p")


async def test_a_tree_is_compiled_once_and_kept_on_disk(fake_workers, tmp_path):
    config = Config(state_dir=tmp_path)
    async with AsyncEngine(config, open_worker=fake_workers) as engine:
        await engine.batch_create([SandboxSpec(source=COUNTER) for _ in range(20)])
        assert fake_workers.last.count["compile"] == 1
    async with AsyncEngine(config, open_worker=fake_workers) as engine:
        sandbox = await engine.create_sandbox(source=COUNTER)
        assert fake_workers.last.count["compile"] == 0
        assert (await sandbox.run("bump")).unwrap() == 1


async def test_whoever_waits_for_a_cancelled_compilation_goes_on_with_it(async_engine, fake_workers):
    worker = fake_workers.last
    worker.compile_gate = trio.Event()
    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as first:
            first.start_soon(lambda: async_engine.create_sandbox("a", source=COUNTER))
            await worker.hanging.wait()
            outer.start_soon(lambda: async_engine.create_sandbox("b", source=COUNTER))
            await trio.testing.wait_all_tasks_blocked()
            first.cancel_scope.cancel()
        worker.compile_gate.set()
    assert [state.id for state in await async_engine.list_sandboxes()] == ["b"]
    assert worker.count["compile"] == 2


async def test_arguments_that_cannot_be_used_are_refused_by_name(async_engine):
    sandbox = await async_engine.create_sandbox(source=COUNTER)
    for wrong, phrase in [
        ({"entry": "f f"}, "entry"),
        ({"entry": "bump", "seed": -1}, "seed"),
        ({"entry": "bump", "isolation": "none"}, "isolation"),
        ({"entry": "bump", "deadline_s": 0}, "deadline_s"),
        ({"entry": "bump", "args": ([object()],)}, r"args\[0\]\[0\] is"),
        ({"entry": "bump", "kwargs": {"x": object()}}, r"kwargs\['x'\] is"),
        ({"entry": "bump", "args": "text"}, r"not str; write args=\(value,\)"),
        ({"entry": "bump", "limits": {"fuel": 1}}, "limits must be an evocell.Limits, not dict"),
        ({"entry": "bump", "isolation": []}, "isolation"),
    ]:
        with pytest.raises(ConfigurationError, match=phrase):
            await sandbox.run(**wrong)
    with pytest.raises(ConfigurationError, match="image"):
        await async_engine.create_sandbox(image="other")
    with pytest.raises(ConfigurationError, match="no module 'other'"):
        await sandbox.get_module_version("other")
    with pytest.raises(ConfigurationError, match="hot_reload_source"):
        await sandbox.hot_reload("def f(): pass")
    with pytest.raises(ConfigurationError, match="by its id"):
        await async_engine.get_info(3)
    with pytest.raises(ConfigurationError, match="limits must be"):
        await sandbox.run_with_timeout("bump", timeout_s=1, limits={"fuel": 1})
    with pytest.raises(ConfigurationError, match="limits must be"):
        await async_engine.create_sandbox(limits={"fuel": 1})
    with pytest.raises(ConfigurationError, match="bundle must be the bytes"):
        await async_engine.create_sandbox(bundle="text")
    with pytest.raises(ConfigurationError, match="mutation_type must be a string"):
        await sandbox.hot_reload_source(COUNTER, mutation_type=3)


async def test_destroying_during_a_reload(async_engine, fake_workers, monkeypatch):
    """The end of the session is not cancelled half-way; what comes after it must see that it is too late."""
    worker = fake_workers.last
    sandbox = await async_engine.create_sandbox("a", source=COUNTER)
    await sandbox.run("bump")
    ending, go_on = trio.Event(), trio.Event()
    end_session = worker.end_session

    async def slow(session):
        ending.set()
        await go_on.wait()
        await end_session(session)

    monkeypatch.setattr(worker, "end_session", slow)

    async def reload():
        with pytest.raises(SandboxNotFound):
            await sandbox.hot_reload_source(COUNTER + "\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reload)
        await ending.wait()
        nursery.start_soon(sandbox.destroy)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert await async_engine.list_sandboxes() == []
    assert worker.sessions == {}


async def test_a_cancelled_batch_takes_the_sessions_of_its_sandboxes_along(async_engine, fake_workers):
    """One of the batch is loaded, and in use by somebody else, when the batch is cancelled."""
    worker = fake_workers.last
    await async_engine.create_sandbox("warm", source=COUNTER)  # compiled: the first of the batch is quick
    worker.compile_gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            async_engine.batch_create, [SandboxSpec("a", source=COUNTER), SandboxSpec("b", source="x = 1")]
        )
        await worker.hanging.wait()
        assert (await async_engine.run("a", "bump")).unwrap() == 1
        nursery.cancel_scope.cancel()
    assert [state.id for state in await async_engine.list_sandboxes()] == ["warm"]
    assert worker.sessions == {}


async def test_a_call_that_was_over_when_it_was_cancelled_leaves_no_state(
    async_engine, fake_workers, monkeypatch
):
    """A worker process may have answered when it is told to stop; its session then holds state."""
    worker = fake_workers.last
    sandbox = await async_engine.create_sandbox(source=COUNTER)
    call = worker.call

    async def answered_too_late(job):
        with trio.CancelScope(shield=True):
            await call(job)
        answered.set()
        await trio.sleep_forever()

    answered = trio.Event()
    monkeypatch.setattr(worker, "call", answered_too_late)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sandbox.run, "bump")
        await answered.wait()
        assert len(worker.sessions) == 1
        nursery.cancel_scope.cancel()
    monkeypatch.undo()
    assert worker.sessions == {}
    assert (await sandbox.run("bump")).unwrap() == 1
    assert (await sandbox.get_info()).restart_count == 1


async def test_a_session_that_dies_while_nobody_calls_is_noticed(async_engine, fake_workers):
    worker = fake_workers.last
    lost = await async_engine.create_sandbox(source=COUNTER)
    kept = await async_engine.create_sandbox(source=COUNTER)
    await lost.run("bump")
    await kept.run("bump")
    assert (await lost.get_info()).monitor == "session-watch"
    worker.lose(next(iter(worker.sessions)))
    await trio.testing.wait_all_tasks_blocked()

    state = await lost.get_info()
    assert (state.status.value, state.restart_count, state.supervisor, state.monitor) == (
        "running",
        1,
        None,
        None,
    )
    assert steps(state)[-2:] == [("running", "error"), ("error", "running")]
    assert "is gone" in state.transitions[-2].reason
    assert (await lost.run("bump")).unwrap() == 1
    assert (await lost.get_info()).restart_count == 1
    assert (await kept.get_info()).restart_count == 0
    assert (await kept.run("bump")).unwrap() == 2


async def test_the_manager_task_fails_and_is_started_again(async_engine, fake_workers, monkeypatch, caplog):
    """What was alive then goes on; what died while the task was down is noted when it is back."""
    worker, manager = fake_workers.last, async_engine._manager
    sandboxes = [await async_engine.create_sandbox(source=COUNTER) for _ in range(4)]
    for sandbox in sandboxes:
        await sandbox.run("bump")
    running = [await sandbox.get_info() for sandbox in sandboxes]
    broken = 3

    def bug(record):
        nonlocal broken
        if broken:
            broken -= 1
            raise RuntimeError("an injected bug")
        return type(manager)._has_lost_session(manager, record)

    monkeypatch.setattr(manager, "_has_lost_session", bug)
    first, second = list(worker.sessions)[:2]
    worker.lose(first)
    while broken:  # noqa: ASYNC110 - until the task has been started again
        await trio.sleep(0.01)
    worker.lose(second)
    while [(await sandbox.get_info()).restart_count for sandbox in sandboxes] != [1, 1, 0, 0]:  # noqa: ASYNC110
        await trio.sleep(0.01)

    assert caplog.text.count("RuntimeError: an injected bug") == 3
    assert [await sandbox.get_info() for sandbox in sandboxes[2:]] == running[2:]
    assert [(await sandbox.run("bump")).unwrap() for sandbox in sandboxes] == [1, 1, 2, 2]
    assert worker.count["compile"] == 1
    await async_engine.batch_destroy(sandboxes)
    assert worker.sessions == {}


async def test_a_task_that_always_fails_is_not_started_all_the_time(autojump_clock, caplog):
    starts = []

    async def broken():
        starts.append(trio.current_time())
        raise RuntimeError

    with trio.move_on_after(100):
        await keep_running(broken, name="broken")
    assert 20 < len(starts) < 30
    assert starts[1] == starts[0]


async def test_closing_stops_what_is_under_way(async_engine, fake_workers):
    sandbox = await async_engine.create_sandbox(source=COUNTER)

    async def call():
        with pytest.raises(EngineClosed):
            await sandbox.run("hang")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await fake_workers.last.hanging.wait()
        await async_engine.aclose()
    with pytest.raises(EngineClosed):
        await async_engine.list_sandboxes()
    await async_engine.aclose()


async def test_an_engine_that_was_never_entered_says_so():
    with pytest.raises(EngineClosed, match="async with"):
        await AsyncEngine(Config()).list_sandboxes()
