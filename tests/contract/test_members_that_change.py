"""Sandboxes that are destroyed or reloaded while they are evaluated: a defined result, and nobody else's trouble."""

from __future__ import annotations

import threading

import pytest

from evocell import Case, Evaluation, Limits, SandboxNotFound, SandboxSpec, SandboxStatus, Stage

SQUARE = "def solve(n): return n * n"
SPIN = "def solve(n):\n    while True: pass"
FIRST = "def solve(n): return 1"
SECOND = "def solve(n): return 2"
# Fewer at once than two workers take on ahead, or they might wait for a first result that waits for them.
ENDLESS = Limits(fuel=10**15)
TASK = Evaluation("solve", [Case((3,), expected=9)], limits=ENDLESS)
POPULATION = "members"


@pytest.fixture(autouse=True)
def nothing_left(engine):
    yield
    engine.batch_destroy([state.id for state in engine.list_sandboxes()])


@pytest.fixture
def once_one_is_done():
    """Run something in a thread of its own as soon as the first result is there; yields the `progress` to pass."""
    threads = []

    def once_one_is_done(action):
        thread = threading.Thread(target=action)
        threads.append(thread)
        return lambda result, done, total: thread.start() if done == 1 else None

    yield once_one_is_done
    for thread in threads:
        thread.join()


def spinning(engine, sources):
    """Ids of the members that never end of their own accord; sandboxes are listed in the order of the sources."""
    states = engine.list_sandboxes(population=POPULATION)
    return [state.id for state, source in zip(states, sources, strict=True) if source is SPIN]


def check_destroyed(result):
    assert (result.valid, result.reason, result.fitness_score) == (False, "destroyed", 0.0)
    assert result.error == f"sandbox {result.sandbox_id!r} was destroyed before its evaluation had ended"
    assert not result.deterministic


def test_members_destroyed_during_a_batch_are_invalid_and_the_others_are_not(engine, once_one_is_done):
    sources = [SQUARE, SPIN, SQUARE, SPIN, SPIN, SQUARE]
    made = engine.batch_create([SandboxSpec(source=source, population=POPULATION) for source in sources])

    def destroy():
        engine.batch_destroy(spinning(engine, sources))

    results = engine.batch_evaluate(made, TASK, progress=once_one_is_done(destroy))

    assert [result.valid for result in results] == [source is SQUARE for source in sources]
    assert [result.sandbox_id for result in results] == [sandbox.id for sandbox in made]
    for result in results:
        if not result.valid:
            check_destroyed(result)
            with pytest.raises(SandboxNotFound):
                engine.get_info(result.sandbox_id)
            engine.create_sandbox(result.sandbox_id, source=SQUARE).destroy()  # the id is free
    assert engine.batch_evaluate([made[0]], TASK)[0].valid


def test_members_destroyed_while_a_population_is_made_are_invalid(engine, once_one_is_done):
    sources = [SQUARE, SPIN, "def solve(:", SPIN, SPIN, SQUARE]

    def destroy():
        engine.batch_destroy(spinning(engine, sources))

    results = engine.evaluate(sources, TASK, population=POPULATION, progress=once_one_is_done(destroy))

    wanted = {SQUARE: None, SPIN: "destroyed"}
    assert [result.reason for result in results] == [wanted.get(source, "syntax") for source in sources]
    for result in results:
        if result.reason == "destroyed":
            check_destroyed(result)
    states = engine.list_sandboxes(population=POPULATION)
    assert [state.id for state in states] == [r.sandbox_id for r in results if r.reason != "destroyed"]
    assert [state.fitness for state in states] == [1.0, 0.0, 1.0]


def test_a_whole_batch_that_is_destroyed_is_no_error(engine):
    made = engine.batch_create([SandboxSpec(source=SPIN) for _ in range(30)])
    records = [engine._engine._manager.get(sandbox.id) for sandbox in made]

    def destroy():
        while not any(record._scopes for record in records):
            pass
        engine.batch_destroy(made)

    thread = threading.Thread(target=destroy)
    thread.start()
    task = Evaluation("solve", [Case((1,))], lambda case, value: value, limits=ENDLESS, failure=-1.0)
    results = engine.batch_evaluate(made, task)
    thread.join()

    assert [result.reason for result in results] == ["destroyed"] * 30
    assert {(result.fitness_score, result.objectives) for result in results} == {(-1.0, (-1.0,))}
    assert engine.list_sandboxes() == []


def test_a_member_destroyed_between_two_stages(engine):
    destroyed = []

    def keep(result):
        if not destroyed:
            destroyed.append(engine.destroy_sandbox(result.sandbox_id).id)
        return True

    results = engine.evaluate_stages([SQUARE] * 3, [Stage(TASK, keep), Stage(TASK)], population=POPULATION)

    for staged in results:
        gone = [staged.results[0].sandbox_id] == destroyed
        assert [result.reason for result in staged.results] == [None, "destroyed" if gone else None]
    assert len(engine.list_sandboxes(population=POPULATION)) == 2


@pytest.mark.parametrize("in_thread", [True, False])
def test_a_fitness_function_whose_sandbox_is_destroyed(engine, in_thread, once_one_is_done):
    sources = [SQUARE, SPIN, SPIN, SQUARE]
    made = engine.batch_create(
        [SandboxSpec(source=source, population=POPULATION, limits=ENDLESS) for source in sources]
    )

    def ask(sandbox):
        return sandbox.run("solve", args=(3,)).unwrap() / 9

    async def ask_async(sandbox):
        return (await sandbox.run("solve", args=(3,))).unwrap() / 9

    def destroy():
        engine.batch_destroy(spinning(engine, sources))

    results = engine.batch_evaluate(made, ask if in_thread else ask_async, progress=once_one_is_done(destroy))
    assert [result.fitness_score for result in results] == [1.0, 0.0, 0.0, 1.0]
    assert [result.valid for result in results] == [True, False, False, True]
    for result in results[1:3]:
        check_destroyed(result)


def test_a_fitness_function_may_destroy_its_sandbox_itself(engine):
    made = engine.batch_create([SandboxSpec(source=SQUARE) for _ in range(3)])

    def ask(sandbox):
        value = sandbox.run("solve", args=(3,)).unwrap()
        sandbox.destroy()
        return value

    assert [result.fitness_score for result in engine.batch_evaluate(made, ask)] == [9.0] * 3
    assert engine.list_sandboxes() == []


def test_a_member_of_a_stream_that_is_destroyed(engine):
    seen = {}
    stream = engine.as_completed([SQUARE, SPIN, SQUARE], TASK, population=POPULATION)
    for index, result in stream:
        seen[index] = result
        if len(seen) == 2:
            running = {state.id for state in engine.list_sandboxes(population=POPULATION)}
            engine.batch_destroy(sorted(running - {done.sandbox_id for done in seen.values()}))
    assert [seen[index].reason for index in range(3)] == [None, "destroyed", None]


# ---------------------------------------------------------------------- reloads


def test_a_member_reloaded_between_two_cases_is_evaluated_in_one_version(engine):
    sandbox = engine.create_sandbox(source=FIRST)

    def reload_once(so_far):
        if len(so_far) == 1:
            assert sandbox.hot_reload_source(SECOND).ok
        return False

    task = Evaluation("solve", [Case((n,)) for n in range(6)], lambda case, value: value, stop=reload_once)
    (result,) = engine.batch_evaluate([sandbox], task)

    assert [case.score for case in result.test_results] == [1.0] * 6
    # It is the fitness of code that the sandbox holds no more.
    assert sandbox.get_info().fitness is None
    (again,) = engine.batch_evaluate([sandbox], task)
    assert again.fitness_score == 2.0
    assert sandbox.get_info().fitness == 2.0


def test_a_member_reloaded_between_two_stages_is_evaluated_in_one_version(engine):
    def keep(result):
        assert engine.hot_reload_source(result.sandbox_id, SECOND).ok
        return True

    task = Evaluation("solve", [Case((n,)) for n in range(3)], lambda case, value: value)
    results = engine.evaluate_stages([FIRST] * 3, [Stage(task, keep), Stage(task)], population=POPULATION)

    assert [[r.fitness_score for r in staged.results] for staged in results] == [[1.0, 1.0]] * 3
    assert [state.fitness for state in engine.list_sandboxes(population=POPULATION)] == [None] * 3


def test_members_reloaded_all_the_time_are_never_a_mixture(engine):
    made = engine.batch_create([SandboxSpec(source=FIRST) for _ in range(12)])
    over = threading.Event()

    def reload_in_turn():
        number = 0
        while not over.is_set():
            made[number % len(made)].hot_reload_source(SECOND if number // len(made) % 2 == 0 else FIRST)
            number += 1

    thread = threading.Thread(target=reload_in_turn)
    thread.start()
    task = Evaluation("solve", [Case((n,)) for n in range(10)], lambda case, value: value)
    try:
        rounds = [engine.batch_evaluate(made, task) for _ in range(5)]
    finally:
        over.set()
        thread.join()

    for result in [result for results in rounds for result in results]:
        assert {case.score for case in result.test_results} in ({1.0}, {2.0})
        assert len(result.test_results) == 10
    for sandbox in made:
        held = sandbox.run("solve", args=(0,), isolation="call").unwrap()
        assert sandbox.get_info().fitness in {None, float(held)}


def test_a_reload_that_is_rejected_meanwhile_changes_no_result(engine):
    sandbox = engine.create_sandbox(source=FIRST)

    def break_it(so_far):
        if len(so_far) == 1:
            assert not sandbox.hot_reload_source("def solve(:").ok
        return False

    task = Evaluation("solve", [Case((n,)) for n in range(3)], lambda case, value: value, stop=break_it)
    assert engine.batch_evaluate([sandbox], task)[0].fitness_score == 1.0
    assert sandbox.get_info().fitness is None
    assert engine.batch_evaluate([sandbox], task)[0].reason == "syntax"
    assert sandbox.get_info().status is SandboxStatus.ERROR
