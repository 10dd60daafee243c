"""Calls that wait for one sandbox: so many and no more, and what happens to the rest."""

import logging

import pytest
import trio
import trio.testing

from evocell import AsyncEngine, CapacityError, Case, Config, Evaluation, LimitExceeded, SandboxNotFound
from evocell.sandboxes.call_queue import CallQueue

pytestmark = pytest.mark.trio

VARIANT = "n = 0\ndef bump():\n    global n\n    n += 1\n    return n\ndef hang(): return 'hang'"


@pytest.fixture
def open_engine(fake_workers):
    def open_engine(**settings):
        config = Config(default_max_message_queue=3, **settings)
        return AsyncEngine(config, open_worker=fake_workers)

    return open_engine


class Callers:
    """Calls made one after the other, each in a task of its own, and what became of them."""

    def __init__(self, sandbox, nursery):
        self.sandbox, self.nursery = sandbox, nursery
        self.ended = []

    async def add(self, count, entry="bump", **options):
        for _ in range(count):
            self.nursery.start_soon(self._call, entry, options)
            await trio.testing.wait_all_tasks_blocked()

    async def _call(self, entry, options):
        try:
            self.ended.append((await self.sandbox.run(entry, **options)).kind)
        except (CapacityError, SandboxNotFound) as error:
            self.ended.append(error)


async def test_one_call_too_many_is_refused_and_the_others_go_on(open_engine):
    async with open_engine() as engine, trio.open_nursery() as nursery:
        sandbox = await engine.create_sandbox("s", source=VARIANT)
        callers = Callers(sandbox, nursery)
        with trio.CancelScope() as hanging:
            async with trio.open_nursery() as inner:
                inner.start_soon(sandbox.run, "hang")
                await trio.testing.wait_all_tasks_blocked()
                await callers.add(4)
                (error,) = callers.ended
                assert isinstance(error, CapacityError)
                assert "'s'" in str(error)
                assert "default_max_message_queue" in str(error)
                assert (error.resource, error.limit, error.requested) == ("calls", 3, 4)
                hanging.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert callers.ended[1:] == ["completed"] * 3
        assert (await sandbox.run("bump")).unwrap() == 4
        assert (await engine.get_info("s")).restart_count == 1  # by the call that was cancelled


async def test_a_call_in_its_own_fork_counts_until_it_ends(open_engine):
    async with open_engine() as engine, trio.open_nursery() as nursery:
        sandbox = await engine.create_sandbox(source=VARIANT)
        callers = Callers(sandbox, nursery)
        await callers.add(4, "hang", isolation="call")
        assert [type(error) for error in callers.ended] == [CapacityError]
        nursery.cancel_scope.cancel()


async def test_waiting_calls_that_are_cancelled_make_room(open_engine):
    async with open_engine() as engine, trio.open_nursery() as nursery:
        sandbox = await engine.create_sandbox(source=VARIANT)
        callers = Callers(sandbox, nursery)
        await callers.add(1, "hang")
        with trio.CancelScope() as waiting:
            async with trio.open_nursery() as inner:
                await Callers(sandbox, inner).add(3)
                waiting.cancel()
        await callers.add(3)
        assert callers.ended == []
        nursery.cancel_scope.cancel()


async def test_killing_by_policy(open_engine, fake_workers, caplog):
    async with open_engine(backlog_policy="kill") as engine, trio.open_nursery() as nursery:
        sandbox = await engine.create_sandbox("s", source=VARIANT)
        other = await engine.create_sandbox("other", source=VARIANT)
        assert (await sandbox.run("bump")).unwrap() == 1
        assert (await other.run("bump")).unwrap() == 1
        callers = Callers(sandbox, nursery)
        await callers.add(1, "hang")
        with caplog.at_level(logging.WARNING, "evocell"):
            await callers.add(4)
        assert [type(error) for error in callers.ended] == [CapacityError] * 5
        assert {error.limit for error in callers.ended} == {3}
        assert (await sandbox.run("bump")).unwrap() == 1  # from a fresh fork
        assert (await other.run("bump")).unwrap() == 2
        state = await engine.get_info("s")
        assert state.restart_count == 1
        assert any("default_max_message_queue" in step.reason for step in state.transitions)
        (line,) = caplog.messages
        assert ("sandbox s" in line, "4 calls" in line, "is 3" in line) == (True, True, True)


async def test_killing_ends_an_idle_session_too(open_engine, fake_workers):
    async with open_engine(backlog_policy="kill") as engine, trio.open_nursery() as nursery:
        sandbox = await engine.create_sandbox("s", source=VARIANT)
        await sandbox.run("bump")
        callers = Callers(sandbox, nursery)
        await callers.add(4, "hang", isolation="call")
        assert [type(error) for error in callers.ended] == [CapacityError] * 4
        assert fake_workers.last.sessions == {}
        assert (await sandbox.run("bump")).unwrap() == 1


async def test_destroying_still_says_so(open_engine):
    async with open_engine(backlog_policy="kill") as engine, trio.open_nursery() as nursery:
        sandbox = await engine.create_sandbox(source=VARIANT)
        callers = Callers(sandbox, nursery)
        await callers.add(1, "hang")
        await callers.add(2)
        await sandbox.destroy()
        await trio.testing.wait_all_tasks_blocked()
        assert [type(error) for error in callers.ended] == [SandboxNotFound] * 3


async def test_evaluations_are_held_back_and_not_refused(open_engine):
    async with open_engine() as engine:
        sandbox = await engine.create_sandbox(source=VARIANT)
        task = Evaluation("bump", [Case(expected=1)] * 20)
        (result,) = await engine.batch_evaluate([sandbox], task)
        assert result.fitness_score == 1.0


async def test_ten_thousand_calls_wait_by_default(async_engine):
    assert Config().default_max_message_queue == 10_000
    backlog = CallQueue("s", 2, "reject")
    with backlog.call(), backlog.call() as begin:
        assert backlog.is_full
        begin()
        begin()
        assert not backlog.is_full


async def test_a_deadline_while_waiting_is_no_refusal(open_engine, autojump_clock):
    async with open_engine() as engine, trio.open_nursery() as nursery:
        sandbox = await engine.create_sandbox(source=VARIANT)
        nursery.start_soon(sandbox.run, "hang")
        await trio.sleep(1)
        outcome = await sandbox.run("bump", deadline_s=1.0)
        assert isinstance(outcome, LimitExceeded)
        nursery.cancel_scope.cancel()
