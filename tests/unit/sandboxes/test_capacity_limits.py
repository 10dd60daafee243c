"""A worker that has no room in mid-batch: the batch waits, and no more than the one concerned is lost."""

import pytest
import trio

from evocell import AsyncEngine, CapacityError, Case, Config, Evaluation, WorkerDied
from evocell.concurrency import CAPACITY_TIMEOUT_S, CapacityRetry

pytestmark = pytest.mark.trio

SQUARE = "def solve(n): return n * n"
LARGE = "def solve(n): return n * n  # large"
TASK = Evaluation("solve", [Case((n,), expected=n * n) for n in range(3)])


class Narrow:
    """Stands in for a worker's methods and refuses some calls."""

    def __init__(self, worker):
        self.refused = 0
        self._worker, self._call, self._compile = worker, worker._call, worker.compile
        self.room = 1
        self.no_room_for = b"# none"
        worker._call, worker.compile = self.call, self.compile

    def _refuse(self):
        self.refused += 1
        raise CapacityError("there is no room for another sandbox", "forks", 1)

    async def call(self, job):
        await trio.lowlevel.checkpoint()
        if self._worker.running > self.room or self.no_room_for in job.code.code:
            self._refuse()
        return await self._call(job)

    async def compile(self, job):
        if any(self.no_room_for in content for _, content in job.tree.files) and self.room == 0:
            self._refuse()
        return await self._compile(job)


@pytest.fixture
async def narrow(async_engine, fake_workers):
    return Narrow(fake_workers.last)


async def test_the_batch_waits_until_something_else_ends(async_engine, narrow, autojump_clock):
    results = await async_engine.evaluate([SQUARE] * 20, TASK)
    assert [result.fitness_score for result in results] == [1.0] * 20
    assert narrow.refused > 0


async def test_who_finds_no_room_at_all_is_invalid_and_says_so(async_engine, narrow, autojump_clock):
    narrow.no_room_for = b"# large"
    began = trio.current_time()
    results = await async_engine.evaluate([SQUARE, LARGE, SQUARE], TASK)
    assert [result.valid for result in results] == [True, False, True]
    assert (results[1].reason, results[1].deterministic) == ("worker_lost", False)
    assert "out of capacity for 10 s: there is no room for another sandbox" in results[1].error
    assert trio.current_time() - began < 4 * CAPACITY_TIMEOUT_S


@pytest.mark.parametrize("population", [None, "p"])
async def test_no_room_to_compile(async_engine, narrow, autojump_clock, population):
    narrow.no_room_for, narrow.room = b"# large", 0

    async def widen():
        await trio.sleep(CAPACITY_TIMEOUT_S / 2)
        narrow.room = 2

    narrow._worker._call = narrow._call
    async with trio.open_nursery() as nursery:
        nursery.start_soon(widen)
        results = await async_engine.evaluate([SQUARE, LARGE, SQUARE], TASK, population=population)
    assert [result.fitness_score for result in results] == [1.0] * 3
    assert narrow.refused > 0
    narrow.room = 0
    results = await async_engine.evaluate([SQUARE, LARGE + "!", SQUARE], TASK, population=population)
    assert [result.valid for result in results] == [True, False, True]
    assert "out of capacity" in results[1].error
    names = [state.id for state in await async_engine.list_sandboxes()]
    assert (results[1].sandbox_id in names, len(names)) == (False, 5 if population else 0)


async def test_a_deadline_passes_while_waiting(async_engine, narrow, autojump_clock):
    narrow.room = 0
    (result,) = await async_engine.evaluate([SQUARE], TASK, deadline_s=2.0)
    assert (result.reason, "deadline" in result.error) == ("timeout", True)


async def test_a_wait_can_be_cancelled(async_engine, narrow, autojump_clock):
    narrow.room = 0
    with trio.move_on_after(1.0) as scope:
        await async_engine.evaluate([SQUARE] * 5, TASK, population="p")
    assert scope.cancelled_caught
    assert await async_engine.list_sandboxes() == []
    narrow.room = 2
    assert (await async_engine.evaluate_one(SQUARE, TASK)).valid


async def test_a_caller_of_one_sandbox_is_told_at_once(fake_workers):
    async with AsyncEngine(Config(), open_worker=fake_workers) as engine:
        sandbox = await engine.create_sandbox(source=SQUARE)
        Narrow(fake_workers.last).room = 0
        with pytest.raises(CapacityError):
            await sandbox.run("solve", args=(1,))


async def test_what_ends_elsewhere_ends_the_wait(autojump_clock):
    room, tries = CapacityRetry(), []

    async def attempt():
        tries.append(trio.current_time())
        if len(tries) < 8:
            raise CapacityError("full")

    async def others():
        while len(tries) < 8:
            await trio.sleep(0.01)
            await room.wait_for(trio.lowlevel.checkpoint)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await room.wait_for(attempt)
    assert tries[-1] - tries[0] < 0.2  # without the others it takes 6 s


@pytest.mark.parametrize("population", [None, "p"])
async def test_workers_that_die_under_a_compilation_are_not_the_individuals_fault(
    async_engine, fake_workers, monkeypatch, population
):
    """And what could not be compiled once can be the next time."""
    worker, compile_ = fake_workers.last, fake_workers.last.compile
    dying = True

    async def die(job):
        if dying and any(b"# large" in content for _, content in job.tree.files):
            raise WorkerDied("the code could not be compiled: worker-0 died")
        return await compile_(job)

    monkeypatch.setattr(worker, "compile", die)
    results = await async_engine.evaluate([SQUARE, LARGE], TASK, population=population)
    assert [(result.valid, result.reason) for result in results] == [(True, None), (False, "worker_lost")]
    assert "worker-0 died" in results[1].error
    assert not results[1].deterministic
    assert len(await async_engine.list_sandboxes()) == (1 if population else 0)
    dying = False
    assert (await async_engine.evaluate_one(LARGE, TASK)).valid
