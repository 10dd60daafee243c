"""Engines that share workers are told of their own calls only."""

import pytest

from evocell.code.compiler import CompiledVersion
from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.errors import ConfigurationError
from evocell.execution.messages import GuestRequest, GuestResult, SessionCopy
from evocell.models.info import WorkerKill
from evocell.models.limits import Limits
from evocell.workers.shared_workers import SharedWorkers
from evocell.workers.worker import HostWorker

pytestmark = pytest.mark.trio


class Host:
    """Remembers what it is asked; every run is lost."""

    slots = 1

    def __init__(self):
        self.on_kill = None
        self.runs = []
        self.ended = []

    async def run(self, run):
        self.runs.append(run)
        return GuestResult(lost="it is a test")

    async def end_session(self, session):
        self.ended.append(session)

    async def import_session(self, session, state):
        pass

    async def fork_session(self, session, new):
        return True


async def test_each_engine_learns_of_its_own_calls_and_takes_its_own_sessions_along(tmp_path):
    host = Host()
    guests = SharedWorkers(HostWorker(host, None, SnapshotStore(tmp_path), realtime=False), apart=True)
    told = {}
    async with (
        guests.open_worker(Config(), SnapshotStore(tmp_path / "a")) as one,
        guests.open_worker(Config(), SnapshotStore(tmp_path / "b")) as two,
    ):
        one.host.on_kill = lambda kill: told.setdefault("one", []).append(kill)
        two.host.on_kill = lambda kill: told.setdefault("two", []).append(kill)
        for worker, session in ((one, "s/1"), (two, "s/2")):
            await worker._run(GuestRequest(parts=(b"",), limits=Limits(), session=session, sandbox_id="same"))
        host.on_kill(WorkerKill(worker="w", limit=1, reached=2, sandbox_ids=(host.runs[0].sandbox_id,)))
        assert [kill.sandbox_ids for kill in told["one"]] == [("same",)]
        assert [kill.sandbox_ids for kill in told["two"]] == [()]
        await two.host.end_session("s/2")
        assert host.ended == ["s/2"]
    assert host.ended == ["s/2", "s/1"]


async def test_sessions_that_came_from_elsewhere_or_are_copies_end_with_their_engine(tmp_path):
    host = Host()
    guests = SharedWorkers(HostWorker(host, None, SnapshotStore(tmp_path), realtime=False), apart=True)
    code = CompiledVersion("digest", tmp_path, b"")
    async with guests.open_worker(Config(), SnapshotStore(tmp_path / "a")) as worker:
        held = SessionCopy(guest={}, scratch=b"")
        await worker.host.import_session("s/1", held.state(image=None, app=code.path, limits=Limits()))
        await worker.host.fork_session("s/1", "s/2")
    assert sorted(host.ended) == ["s/1", "s/2"]


async def test_a_worker_of_another_kind_is_refused():
    with pytest.raises(ConfigurationError, match="cannot be shared"):
        SharedWorkers(object(), apart=True)
