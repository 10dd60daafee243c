"""A guest that answers every exchange with the host by bytes of its own choice.

Two doubles: a real sandbox, whose variant has replaced what the agent answers with, over both kinds of worker;
and, where hundreds of thousands of answers are wanted, one at the seam where a call ends, below everything that
reads an answer. Whatever comes, the host gives an outcome or a sentence, and the next honest call works.
"""

from __future__ import annotations

import os
import random
import sys
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from types import SimpleNamespace

import pytest
import trio
from attrs import evolve
from tests.call_results import ended_call
from tests.security.hostile_answers import answer, nested

import evocell
from evocell import Config, Limits
from evocell.code.compiler import CompiledVersion
from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import FileTree
from evocell.errors import EvocellError
from evocell.execution.interface import CallJob, CompileJob
from evocell.execution.messages import CopyRefused, GuestResult
from evocell.guests import freeze, session_data
from evocell.models.outcome import Outcome, Rejected
from evocell.workers.worker import HostWorker
from evocell_guest.values import encode
from evocell_runtime import rehearsal
from evocell_runtime.boot import make_immortal
from evocell_runtime.cache import ImageCache
from evocell_runtime.errors import ImageError
from evocell_runtime.untrusted import GuestBytes

N_QUICK, N_SOAK = 600, 100_000
SEED = int(os.environ.get("SOAK_SEED", "1"))
LIMITS = Limits(
    fuel=2 * 10**9, memory_bytes=32 << 20, timeout_s=5.0, payload_bytes=1 << 20, scratch_bytes=1 << 20
)
EXPECTED = {"completed", "raised", "syntax", "security", "compile", "load", "payload", "memory", "crashed"}
HONEST = b"\x82\xa1t\xa9completed\xa1v\x05"


@pytest.fixture(params=["numpy", "no numpy"])
def numpy(request, monkeypatch):
    """Whether the host has numpy."""
    if request.param == "no numpy":
        monkeypatch.setitem(sys.modules, "numpy", None)
    else:
        pytest.importorskip("numpy")


# ---------------------------------------------------------------- the double at the end of a call


class HostileHost:
    """A host whose guests answer with what they are given next; implements what `HostWorker` needs."""

    slots = 1
    on_kill = None

    def __init__(self):
        self.response = b""
        self.stream = b""

    async def run(self, run):
        del run
        result = ended_call(
            response=GuestBytes(self.response) if self.response else None,
            response_bytes=len(self.response),
            stdout=GuestBytes(self.stream),
            stderr=GuestBytes(self.stream[::-1]),
        )
        # Across the pipe of a worker process and back.
        return GuestResult.from_wire(GuestResult(result=result, session_alive=True).to_wire())


@pytest.fixture
def front(tmp_path):
    """The worker as orchestration sees it, over a hostile host."""
    manifest = SimpleNamespace(image_id="0" * 32, memory_bytes=1 << 20)
    images = SimpleNamespace(own=manifest, manifest=lambda image: manifest)
    return HostWorker(HostileHost(), images, SnapshotStore(tmp_path / "state"), realtime=False)


class Memory:
    """A guest's memory, as far as the host looks at it to make objects immortal."""

    def __init__(self, size_bytes):
        self.data = bytearray(size_bytes)
        self.data[4:8] = (0xC0000000).to_bytes(4, "little")
        self.data[8:12] = (5).to_bytes(4, "little")
        self.size_bytes = size_bytes

    def words(self):
        return memoryview(self.data).cast("I")


async def every_exchange(front, data):
    """Give one answer to everything that reads one."""
    host = front.host
    host.response, host.stream = data, data[:200]
    tree = FileTree((("a.py", b"x = 1\n"),))
    code = CompiledVersion(tree.digest, front._snapshots.put(tree).path, b"code")
    job = CallJob(session=None, image=None, code=code, entry="a:f", payload=b"\x92\x90\x80", limits=LIMITS)
    report = await front.call(job)
    assert report.outcome.kind in EXPECTED
    assert len(report.outcome.error or "") < 1 << 17
    compiled = await front.compile(CompileJob(tree=tree, root="/app", policy=None))
    assert isinstance(compiled, CompiledVersion | Rejected)
    looked = await front.inspect({"op": "diff"})
    assert isinstance(looked, dict | Outcome)
    try:
        info = await front.info()
        assert all(isinstance(name, str) for name in info)
    except EvocellError:
        pass
    seen = await host.run(None)
    with suppress(CopyRefused):
        freeze._refuse_unsettled(seen)
    make_immortal(Memory(1 << 12), seen.result.response, strict=False)
    with suppress(ImageError):
        make_immortal(Memory(1 << 12), seen.result.response)
    with suppress(ImageError):
        assert isinstance(rehearsal._compiled_code(seen.result.response or GuestBytes(b"")), bytes)
    with suppress(CopyRefused):
        entries = session_data._scratch_entries(data, LIMITS)
        assert session_data._charged(entries).used_bytes <= LIMITS.scratch_bytes
    guest = {"memory_bytes": 1 << 20, "runs": data, "packed": data, "state": {"rng": data}}
    state = {"limits": {}, "image": None, "app": "", "guest": guest, "scratch": data}
    images = SimpleNamespace(get=lambda image: SimpleNamespace(memory_bytes=1 << 20))
    with pytest.raises(CopyRefused):
        session_data.import_data(images, state, lambda: pytest.fail("it asked for a directory"))
    host.response = HONEST
    assert (await front.call(job)).outcome.unwrap() == 5


async def some_answers(front, first, count):
    for number in range(first, first + count):
        noise = random.Random(f"{SEED} {number}")
        data = answer(noise)
        try:
            await every_exchange(front, data)
        except BaseException as error:
            error.add_note(f"answer {number} of seed {SEED}: {data[:200]!r}")
            raise


@pytest.mark.usefixtures("numpy")
def test_generated_answers_to_every_exchange(front):
    trio.run(some_answers, front, 0, N_QUICK)


@pytest.mark.usefixtures("numpy")
@pytest.mark.parametrize("levels", [1, 63, 64, 65, 127, 128, 3000, 10_000])
@pytest.mark.parametrize("code", [2, 3, 4])
def test_values_around_one_another(front, levels, code):
    async def run():
        for before in (b"", b"\x82\xa1t\xa9completed\xa1v", b"\x83\xa1t\xa8compiled\xa4code"):
            await every_exchange(front, before + nested(levels, code))

    trio.run(run)


@pytest.mark.soak
@pytest.mark.usefixtures("numpy")
def test_very_many_answers(front):
    trio.run(some_answers, front, 0, N_SOAK)


# ---------------------------------------------------------------- the double in a real sandbox

SOURCE = """
import sys
A = sys.modules["evocell_guest.agent"]
NAMES = ("_call", "_settle", "lasting_objects", "encode", "_encode_value", "_failed")
HELD = {name: getattr(A, name) for name in NAMES}
n = 0

def arm(which, answers):
    left = list(answers)
    honest = HELD[which]
    def hostile(*args, **options):
        return left.pop(0) if left else honest(*args, **options)
    setattr(A, which, hostile)

def disarm():
    for name, honest in HELD.items():
        setattr(A, name, honest)

def bump(fails=False):
    global n
    n += 1
    if fails:
        raise ValueError(n)
    return n
"""


@contextmanager
def opened(workers):
    with evocell.Engine(Config.load(workers=workers)) as made:
        pids = [worker.pid for worker in made.workers()]
        yield made
        assert [worker.pid for worker in made.workers()] == pids, "a worker was lost"


@pytest.fixture(scope="module")
def engines():
    """Opens an engine of so many workers, once."""
    with ExitStack() as stack:
        yield cache(lambda workers: stack.enter_context(opened(workers)))


@pytest.fixture
def engine(engines, request):
    return engines(request.param)


IN_A_REAL_SANDBOX = pytest.mark.parametrize(
    ("engine", "numpy"),
    [
        pytest.param(0, "numpy", id="in-process-numpy"),
        pytest.param(1, "numpy", id="worker-numpy"),
        pytest.param(1, "no numpy", id="worker-no numpy"),
    ],
    indirect=True,
)
"""Answers are read in this process, whichever it was that ran the guest; so what reads them without numpy is
tried with one of the two."""


@cache
def answers_of(seed, count):
    noise = random.Random(f"{SEED} {seed}")
    found = (answer(noise) for _ in range(100 * count))
    return [data for data in found if 0 < len(data) < 20_000][:count]


def healthy(engine):
    with engine.create_sandbox(source="def f(): return [1, (2, 3)]") as sandbox:
        assert sandbox.run("f").unwrap() == [1, (2, 3)]


@IN_A_REAL_SANDBOX
@pytest.mark.usefixtures("numpy")
@pytest.mark.parametrize("which", ["_call", "_encode_value", "_failed"])
def test_calls_of_a_real_sandbox(engine, which):
    answers = answers_of(f"calls {which}", 100)
    with engine.create_sandbox(source=SOURCE, limits=LIMITS) as sandbox:
        armed = sandbox.run("arm", args=(which, answers)).kind
        assert armed in EXPECTED
        for number in range(len(answers)):
            outcome = sandbox.run("bump", args=(which == "_failed",))
            assert outcome.kind in EXPECTED, number
        last = sandbox.run("bump")
        assert last.ok
        assert isinstance(last.value, int)
    healthy(engine)


def frozen(engine, sandbox, name):
    """An image of a sandbox; None if it is refused."""
    with suppress(evocell.ImageError, evocell.SandboxBusy):
        return engine.freeze(sandbox, name, replace=True)
    assert ImageCache().id_of(name) is None
    return None


@IN_A_REAL_SANDBOX
@pytest.mark.usefixtures("numpy")
@pytest.mark.parametrize("which", ["_settle", "lasting_objects", "encode", "_call"])
def test_lives_of_a_real_sandbox(engine, which, tmp_path):
    """Fork, export, import, freeze: each is done, or refused in a sentence; the sandbox goes on."""
    for number, data in enumerate(answers_of(f"lives {which}", 2)):
        name = f"test-hostile-guest-{which.strip('_')}"
        with engine.create_sandbox(source=SOURCE, limits=LIMITS) as sandbox:
            # The answer is given again and again, in the copies, too.
            sandbox.run("arm", args=(which, [data] * 20))
            with engine.fork_sandbox(sandbox) as fork:
                assert fork.run("bump").kind in EXPECTED
            file = tmp_path / f"{number}"
            engine.export_sandbox(sandbox, file)
            with engine.import_sandbox(file, "imported") as imported:
                assert imported.run("bump").kind in EXPECTED
            image = frozen(engine, sandbox, name)
            if image is not None:
                with engine.create_sandbox(image=image.id, limits=LIMITS) as from_image:
                    assert from_image.run("bump").kind in EXPECTED
                ImageCache().remove(image.id)
            assert sandbox.run("bump").kind in EXPECTED
    healthy(engine)


@IN_A_REAL_SANDBOX
@pytest.mark.usefixtures("numpy")
def test_answers_while_code_is_loaded(engine):
    """The text of a module runs before any call does, and may answer for it."""
    for data in answers_of("loading", 10):
        source = (
            "import sys\nA = sys.modules['evocell_guest.agent']\n"
            f"A._LOADED = A._COMPLETED = {data!r}\nA._call = lambda request: {data!r}\ndef f(): return 1\n"
        )
        with engine.create_sandbox(source=source, limits=LIMITS) as sandbox:
            assert sandbox.run("f").kind in EXPECTED
            assert sandbox.run("f").kind in EXPECTED
    healthy(engine)


@pytest.mark.parametrize("engine", [0], indirect=True, ids=["in-process"])
@pytest.mark.usefixtures("numpy")
def test_a_guest_put_aside_answers_as_it_did(engine, monkeypatch):
    """A guest that sleeps and wakes, as one among many does, is as hostile as before."""
    monkeypatch.setattr("evocell.guests.host.AWAKE_SESSIONS", 2)
    answers = answers_of("asleep", 20)
    with ExitStack() as held:
        sandbox = held.enter_context(engine.create_sandbox(source=SOURCE, limits=LIMITS))
        sandbox.run("arm", args=("_call", answers))
        for number in range(len(answers)):
            other = held.enter_context(engine.create_sandbox(source="def f(): return 1"))
            assert other.run("f").unwrap() == 1
            assert sandbox.run("bump").kind in EXPECTED, number
        assert sandbox.run("bump").ok
    healthy(engine)


def test_the_doubles_reach_what_they_should(front):
    """An answer that is honest but for one thing gets as far as that thing."""
    host = front.host

    async def run():
        host.response = encode({"t": "completed", "v": 5})
        tree = FileTree((("a.py", b"x = 1\n"),))
        code = CompiledVersion(tree.digest, front._snapshots.put(tree).path, b"code")
        job = CallJob(
            session=None, image=None, code=code, entry="a:f", payload=b"\x92\x90\x80", limits=LIMITS
        )
        assert (await front.call(job)).outcome.unwrap() == 5
        assert (await front.call(evolve(job, limits=LIMITS.evolve(payload_items=1)))).outcome.ok
        host.response = encode({"t": "compiled", "units": [["a.py", b"code", [], [], []]]})
        assert isinstance(
            await front.compile(CompileJob(tree=tree, root="/app", policy=None)), CompiledVersion
        )

    trio.run(run)
