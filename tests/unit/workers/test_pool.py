"""The pool of worker processes: who waits for room gets it, and what was cancelled leaves nothing in a worker."""

from __future__ import annotations

import pytest
import trio

from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise
from evocell.config import Config
from evocell.execution.interface import CallJob, CompileJob
from evocell.execution.messages import SessionCopy
from evocell.models.limits import Limits
from evocell.workers.open_worker import open_worker_processes
from evocell_guest.values import encode

pytestmark = pytest.mark.trio

N_SESSIONS = 4


class Sessions:
    """Sessions in one worker process, each of which has been called once."""

    def __init__(self, worker, code):
        self.worker, self.code = worker, code
        self.pool = worker.host
        self.process = worker.host.processes[0]

    async def call(self, session=None):
        arguments = encode([[2], {}])
        job = CallJob(session=session, code=self.code, entry="program:f", payload=arguments, limits=Limits())
        return (await self.worker.call(job)).outcome.unwrap()

    async def is_there(self, session):
        """Whether the worker's process holds a session, whatever the pool knows of it; it is taken away."""
        return await self.process.request("release_session", {"session": session}) is not None


@pytest.fixture
async def sessions(tmp_path):
    snapshots = SnapshotStore(tmp_path)
    async with open_worker_processes(Config.load(workers=1), snapshots) as worker:
        code = await worker.compile(CompileJob(tree=normalise("def f(n): return n * n")))
        made = Sessions(worker, code)
        for number in range(N_SESSIONS):
            assert await made.call(f"session-{number}") == 4
        yield made


async def test_a_call_that_waited_for_room_beside_copies_goes_on_when_they_are_done(sessions):
    came = []

    async def call():
        came.append(await sessions.call())

    async with trio.open_nursery() as nursery:
        for number in range(N_SESSIONS):
            nursery.start_soon(sessions.worker.host.fork_session, f"session-{number}", f"copy-{number}")
        while sessions.process.under_way.total() < 2 * N_SESSIONS:
            await trio.lowlevel.checkpoint()
        with trio.fail_after(60):
            await call()
    assert came == [4]


async def test_a_copy_whose_maker_was_cancelled_can_be_ended(sessions):
    copies = [f"copy-{number}" for number in range(24)]
    for number, copy in enumerate(copies):
        with trio.move_on_after(0.0003 * number):
            await sessions.worker.host.fork_session("session-0", copy)
        await sessions.worker.host.end_session(copy)
    assert [copy for copy in copies if await sessions.is_there(copy)] == []
    assert sessions.pool.workers()[0].sessions == N_SESSIONS


async def test_a_session_that_came_from_elsewhere_can_be_ended_though_its_maker_was_cancelled(sessions):
    held = SessionCopy.of(await sessions.worker.host.export_session("session-0"))
    state = held.state(image=None, app=sessions.code.path, limits=Limits())
    copies = [f"copy-{number}" for number in range(24)]
    for number, copy in enumerate(copies):
        with trio.move_on_after(0.0003 * number):
            await sessions.worker.host.import_session(copy, state)
        await sessions.worker.host.end_session(copy)
    assert [copy for copy in copies if await sessions.is_there(copy)] == []


async def test_a_session_whose_end_was_cancelled_is_gone_all_the_same(sessions):
    await sessions.worker.host.fork_session("session-0", "copy")
    with trio.CancelScope() as scope:
        scope.cancel()
        await sessions.worker.host.end_session("copy")
    assert not await sessions.is_there("copy")


async def test_a_copy_of_nothing_has_no_home(sessions):
    assert not await sessions.worker.host.fork_session("nobody", "copy")
    assert sessions.worker.host.session_home("copy") is None
