"""Engines for tests: a real one for the whole run, and one whose worker is a few lines of Python."""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio

import evocell
from evocell.code.compiler import CompiledUnit, CompiledVersion, assemble
from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.execution.interface import CallJob, CallReport, CompileJob, FreezeJob, TogetherJob
from evocell.execution.messages import CopyRefused, fixed_slots
from evocell.models.info import ImageInfo, WorkerInfo
from evocell.models.outcome import Completed, GuestCrashed, LimitExceeded, Outcome, Raised, Rejected
from evocell_guest import agent
from evocell_guest.decoding import decode
from evocell_guest.values import encode

KILLED = LimitExceeded("fuel", limit=10, reached=10)


@pytest.fixture(scope="session", params=[0, 2], ids=["in-process", "processes"])
def engine(request: pytest.FixtureRequest) -> Iterator[evocell.Engine]:
    """A real engine for tests that leave nothing behind in it, once over each kind of worker.

    It builds no images with packages; `tests/contract/test_package_images.py` does.
    """
    with evocell.Engine(Config.load(workers=request.param, images="base")) as shared:
        yield shared


class FakeWorker:
    """Runs the tests' own code in this process; what it is asked for is counted.

    A function that raises `KeyboardInterrupt` is taken as killed for its fuel, one that raises `SystemExit` as a
    crash, and one that returns the string ``"hang"`` never ends.
    """

    image_id = "fake"
    slots = 2
    snapshot = "of the fake image"

    on_kill: Any = None

    @property
    def host(self) -> FakeWorker:
        return self

    async def wait_slots(self, seen: int) -> int:
        return await fixed_slots(self.slots, seen)

    def image_digest(self, image: str | None) -> str:
        return self.snapshot

    def __init__(self, snapshots: SnapshotStore) -> None:
        self.snapshots = snapshots
        self.sessions: dict[str, dict[str, Any]] = {}
        self.count: Counter[str] = Counter()
        self.jobs: list[CallJob] = []
        self.compiled: list[str] = []
        self.running = 0
        self.most_running = 0
        self.hanging = trio.Event()
        self.losses = 0
        self.loss = trio.Event()
        self.compile_gate: trio.Event | None = None
        self.images: dict[str, ImageInfo] = {}
        self.busy = ""

    async def compile(self, job: CompileJob) -> CompiledVersion | Rejected:
        self.count["compile"] += 1
        self.compiled += [path for path, _ in job.tree.python_files if path not in job.known]
        await trio.lowlevel.checkpoint()
        if self.compile_gate is not None:
            self.hanging.set()
            await self.compile_gate.wait()
        snapshot = self.snapshots.put(job.tree)
        source = b"\n".join(content for path, content in job.tree.files if path.endswith(".py"))
        try:
            compile(source, "program.py", "exec")
        except SyntaxError as error:
            return Rejected("syntax", error.msg, path="program.py", line=error.lineno)
        units = [CompiledUnit(path, text, _imports(text)) for path, text in job.tree.python_files]
        return assemble(snapshot, job.tree, job.root, units, job.policy)

    async def compile_together(self, jobs: Sequence[CompileJob]) -> list[CompiledVersion | Rejected]:
        return [await self.compile(job) for job in jobs]

    async def call_together(self, job: TogetherJob) -> None:
        self.count["call_together"] += 1
        await trio.lowlevel.checkpoint()

    async def inspect(self, request: Mapping[str, object]) -> Any:
        self.count["inspect"] += 1
        await trio.lowlevel.checkpoint()
        return decode(agent.handle(encode(request)))

    async def call(self, job: CallJob) -> CallReport:
        self.count["call"] += 1
        self.jobs.append(job)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._call(job)
        except trio.Cancelled:
            if job.session is not None:
                self.sessions.pop(job.session, None)
            raise
        finally:
            self.running -= 1

    async def _call(self, job: CallJob) -> CallReport:
        await trio.lowlevel.checkpoint()
        names: dict[str, Any] | None = None
        if job.session is not None:
            names = self.sessions.get(job.session)
        loads = names is None or job.reload
        names = {} if names is None else names
        before = dict(names)
        args, kwargs = decode(job.payload)
        outcome: Outcome
        alive = job.session is not None
        try:
            if loads:
                _run(job.code, names)
                if job.harness is not None:
                    _run(job.harness, names)
            value = names[job.entry.partition(":")[2]](*args, **kwargs) if job.entry else None
        except KeyboardInterrupt:
            outcome, alive = KILLED, False
        except SystemExit:
            outcome, alive = GuestCrashed("exit"), False
        except Exception as error:  # noqa: BLE001 - a guest's exception is an outcome
            outcome = Raised(type(error).__name__, str(error), fuel_used=7)
            if not job.entry:
                names.clear()
                names.update(before)
        else:
            if value == "hang":
                self.hanging.set()
                await trio.sleep_forever()
            outcome = Completed(value=value, fuel_used=7, wall_s=0.25)
        if job.session is not None:
            if alive:
                self.sessions[job.session] = names
            else:
                self.sessions.pop(job.session, None)
        size = (
            len(outcome.value) if isinstance(outcome, Completed) and isinstance(outcome.value, bytes) else 0
        )
        return CallReport(outcome=outcome, session_alive=alive, answer_bytes=size)

    async def end_session(self, session: str) -> None:
        self.count["end_session"] += 1
        await trio.lowlevel.checkpoint()
        self.sessions.pop(session, None)

    def find_image(self, wanted: str) -> ImageInfo | None:
        return self.images.get(wanted)

    def list_images(self) -> list[ImageInfo]:
        return list(self.images.values())

    def resident_code(self, image: ImageInfo) -> CompiledVersion | None:
        return None

    async def fork_session(self, session: str, new: str) -> bool:
        self.count["fork_session"] += 1
        await trio.lowlevel.checkpoint()
        if self.busy:
            raise CopyRefused(self.busy)
        if session in self.sessions:
            self.sessions[new] = dict(self.sessions[session])
        return session in self.sessions

    async def freeze_session(self, job: FreezeJob) -> ImageInfo:
        self.count["freeze_session"] += 1
        await trio.lowlevel.checkpoint()
        if self.busy:
            raise CopyRefused(self.busy)
        made = ImageInfo(
            id=f"{len(self.images):032x}",
            name=job.name,
            created_at="2026-01-01T00:00:00+00:00",
            memory_bytes=1,
            snapshot_bytes=1,
            snapshot_sha256="00" * 32,
            python="3.15",
        )
        self.images[job.name] = made
        return made

    def session_home(self, session: str) -> str | None:
        return "local" if session in self.sessions else None

    async def wait_session_losses(self, seen: int) -> int:
        while self.losses <= seen:
            await self.loss.wait()
        return self.losses

    def lose(self, *sessions: str) -> None:
        """Forget sessions, all of them if none is named, as if the process that held them had died."""
        for session in sessions or list(self.sessions):
            del self.sessions[session]
        self.losses += 1
        self.loss.set()
        self.loss = trio.Event()

    def workers(self) -> list[WorkerInfo]:
        return [WorkerInfo(name="local", pid=os.getpid(), status="up", sessions=len(self.sessions))]

    async def info(self) -> dict[str, object]:
        return {"python": "3.15.0", "packages": {"numpy": "2.5"}, "warm": []}

    async def aclose(self) -> None:
        self.sessions.clear()


def _imports(text: bytes) -> tuple[str, ...]:
    words = [line.split() for line in text.decode().splitlines()]
    found = {line[1].partition(".")[0] for line in words if line[:1] in (["import"], ["from"])}
    return tuple(sorted(found))


def _run(code: CompiledVersion, names: dict[str, Any]) -> None:
    """Run all modules of a version in one namespace."""
    _, table, _, _ = marshal.loads(code.code)
    for _, file, text in table.values():
        if text is not None:
            exec(compile(text, file, "exec"), names)


class FakeWorkers:
    """Opens fake workers and remembers them."""

    def __init__(self) -> None:
        self.opened: list[FakeWorker] = []

    @property
    def last(self) -> FakeWorker:
        return self.opened[-1]

    def __call__(
        self, config: Config, snapshots: SnapshotStore, *, progress: Callable[..., None] | None = None
    ) -> AbstractAsyncContextManager[FakeWorker]:
        return self._open(snapshots)

    @asynccontextmanager
    async def _open(self, snapshots: SnapshotStore) -> AsyncIterator[FakeWorker]:
        worker = FakeWorker(snapshots)
        self.opened.append(worker)
        yield worker
        await worker.aclose()


@pytest.fixture
def fake_workers() -> FakeWorkers:
    return FakeWorkers()


@pytest.fixture(scope="session")
def make_fake_worker() -> type[FakeWorker]:
    """For tests of what is below an engine."""
    return FakeWorker


@pytest.fixture(scope="session")
def make_fake_workers() -> type[FakeWorkers]:
    """For tests that run many times over."""
    return FakeWorkers


@pytest.fixture
def fake_engine(fake_workers: FakeWorkers) -> Iterator[evocell.Engine]:
    with contextlib.closing(evocell.Engine(Config(), open_worker=fake_workers)) as made:
        yield made


@pytest.fixture
async def async_engine(fake_workers: FakeWorkers) -> AsyncIterator[evocell.AsyncEngine]:
    async with evocell.AsyncEngine(Config(), open_worker=fake_workers) as made:
        yield made


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Says something to whoever runs the tests that take minutes: what they have measured."""

    def say(words: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{words}\n")

    return say
