"""The events of an engine at work, each held to the table of all events."""

from collections import Counter

import pytest

from evocell import (
    AsyncEngine,
    Case,
    Config,
    ConfigurationError,
    Engine,
    Evaluation,
    SandboxNotFound,
    SandboxSpec,
    Stage,
)
from evocell.telemetry.catalogue import problems
from evocell.telemetry.events import Telemetry

SQUARE = "def solve(n): return n * n"
RAISES = "def solve(n): raise ValueError(n)"
SYNTAX = "def solve(:"
TASK = Evaluation("solve", [Case((2,), expected=4)])


class Listener:
    def __init__(self, telemetry):
        self.events = []
        telemetry.attach("test", "", self.events.append)

    def of(self, name):
        return [event for event in self.events if event.name == name]

    @property
    def count(self):
        return Counter(event.name for event in self.events)

    def check(self):
        assert [problem for event in self.events for problem in problems(event)] == []


@pytest.fixture
def heard(async_engine):
    listener = Listener(async_engine.telemetry)
    yield listener
    listener.check()


@pytest.mark.trio
async def test_an_evaluation_tells_of_each_individual_and_of_the_batch(async_engine, heard):
    await async_engine.evaluate([SQUARE, RAISES, SYNTAX], TASK, generation=3)
    assert heard.count == {
        "sandbox.batch.start": 1,
        "sandbox.batch.stop": 1,
        "sandbox.evaluate.start": 3,
        "sandbox.evaluate.stop": 3,
        "sandbox.fitness.computed": 3,
    }
    (batch,) = heard.of("sandbox.batch.stop")
    assert batch.metadata["operation"] == "evaluate"
    assert (batch.measurements["n_valid"], batch.measurements["n_invalid"]) == (1, 2)
    computed = heard.of("sandbox.fitness.computed")
    assert Counter(event.metadata["reason"] for event in computed) == {None: 1, "raised": 1, "syntax": 1}
    assert {event.metadata["generation"] for event in computed} == {3}
    assert sum(event.measurements["score"] for event in computed) == 1.0


@pytest.mark.trio
async def test_a_population_tells_of_its_sandboxes_too(async_engine, heard):
    await async_engine.evaluate([SQUARE, SYNTAX], TASK, population="p")
    created = heard.of("sandbox.create.stop")
    assert {event.metadata["status"] for event in created} == {"running", "error"}
    assert {event.metadata["population"] for event in created} == {"p"}


@pytest.mark.trio
async def test_the_life_of_a_sandbox(async_engine, heard):
    sandbox = await async_engine.create_sandbox("s", source=SQUARE)
    await sandbox.hot_reload_source(RAISES)
    await sandbox.hot_reload_source(SYNTAX, keep_state=True)
    await async_engine.batch_evaluate(["s"], TASK)
    await async_engine.batch_evaluate(["s"], lambda one: 0.5)
    await async_engine.batch_destroy(["s"])
    reloads = heard.of("sandbox.hot_reload.stop")
    assert [event.metadata["outcome"] for event in reloads] == ["completed", "syntax"]
    assert reloads[0].metadata["version"] == reloads[1].metadata["version"] is not None
    assert [event.measurements["score"] for event in heard.of("sandbox.fitness.computed")] == [0.0, 0.5]
    assert heard.count["sandbox.evaluate.stop"] == 2
    assert heard.count["sandbox.destroyed"] == 1
    operations = [event.metadata["operation"] for event in heard.of("sandbox.batch.stop")]
    assert operations == ["create", "evaluate", "evaluate", "destroy"]


@pytest.mark.trio
async def test_stages_tell_of_each_stage_and_of_one_fitness(async_engine, heard):
    await async_engine.evaluate_stages([SQUARE, RAISES], [Stage(TASK), Stage(TASK)])
    assert heard.count["sandbox.evaluate.stop"] == 3
    assert heard.count["sandbox.fitness.computed"] == 2


@pytest.mark.trio
async def test_one_at_a_time(async_engine, heard):
    await async_engine.evaluate_one(SQUARE, TASK)
    async with async_engine.as_completed([SQUARE, RAISES], TASK) as results:
        assert len([one async for one in results]) == 2
    assert heard.count["sandbox.fitness.computed"] == 3


@pytest.mark.trio
async def test_what_raises_is_an_exception_event(async_engine, heard):
    with pytest.raises(SandboxNotFound):
        await async_engine.batch_destroy(["nobody"])
    (event,) = heard.of("sandbox.batch.exception")
    assert event.metadata["error"] == "SandboxNotFound"


@pytest.mark.trio
async def test_fitness_events_can_be_switched_off(fake_workers):
    telemetry = Telemetry()
    listener = Listener(telemetry)
    async with AsyncEngine(
        Config(emit_fitness_telemetry=False), open_worker=fake_workers, telemetry=telemetry
    ) as engine:
        await engine.evaluate([SQUARE], TASK)
    assert "sandbox.fitness.computed" not in listener.count
    assert listener.count["sandbox.evaluate.stop"] == 1


def test_the_blocking_engine_shows_the_same_telemetry(fake_workers):
    telemetry = Telemetry()
    with Engine(Config(), open_worker=fake_workers, telemetry=telemetry) as engine:
        assert engine.telemetry is telemetry
        listener = Listener(engine.telemetry)
        engine.evaluate([SQUARE], TASK)
        assert listener.count["sandbox.batch.stop"] == 1


@pytest.mark.trio
async def test_a_stream_of_specs_says_who_they_are(async_engine):
    specs = [
        SandboxSpec("eve", source=SQUARE, mutation_type="random"),
        SandboxSpec("cain", source=RAISES, parent_ids=("eve",), generation=1, mutation_type="envy"),
    ]
    async with async_engine.as_completed(specs, TASK) as results:
        found = {result.sandbox_id: result.generation async for _, result in results}
    assert found == {"eve": 0, "cain": 1}
    assert async_engine.lineage.ancestors("cain") == ["eve"]
    assert async_engine.lineage.get("cain").mutation_type == "envy"
    assert await async_engine.list_sandboxes() == []
    with pytest.raises(ConfigurationError, match="must hold its source"):
        async with async_engine.as_completed([SandboxSpec("x")], TASK) as results:
            assert [one async for one in results] == []
