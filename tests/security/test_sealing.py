"""Images of what a variant has shaped: the agent's answers are its own, and none of them is believed.

A variant that ran in a sandbox may have replaced any function of the agent. When the sandbox is frozen, or an
image that was made of it is imported, two calls are made in it; these answer them.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import msgpack
import pytest

import evocell
from evocell import Config, Limits
from evocell.execution.archive import Archive, read_archive, write_archive
from evocell.guests.freeze import limits_to_settle
from evocell_guest.values import encode
from evocell_runtime.boot import make_immortal
from evocell_runtime.cache import ImageCache
from evocell_runtime.errors import ImageError
from evocell_runtime.image import Image
from evocell_runtime.rehearsal import RehearsalLimits
from evocell_runtime.snapshot import freeze
from evocell_runtime.untrusted import GuestBytes

ROOT = Path(__file__).parents[2]
NAME = "test-hostile-seal"
LIMITS = Limits(fuel=10**9, memory_bytes=16 << 20, timeout_s=1.0, scratch_bytes=1 << 20)

AGENT = "import sys\nA = sys.modules['evocell_guest.agent']\n"
GOOD = b"\x83\xa1t\xa8compiled\xa4code"


def nested(levels):
    data = b"\x90"
    for _ in range(levels):
        data = msgpack.packb(msgpack.ExtType(2, b"\x91" + data))
    return data


def array(dtype, shape=(1,), data=bytes(8)):
    return msgpack.packb(msgpack.ExtType(5, msgpack.packb([dtype, list(shape), data])))


ANSWERS = {
    "nested": nested(3000),
    "objects": array("O", data=(0x4141414141414141).to_bytes(8, "little")),
    "objects-in-a-map": b"\x82\xa1t\xa8compiled\xa4code" + array("|O"),
    "records": array("O,i4", data=bytes(12)),
    "no-bytes": b"",
    "not-utf-8": b"\x81\xa1t\xa2\xff\xff",
    "a-claim": b"\xdf\xff\xff\xff\xff",
    "long-code": GOOD + b"\xc6\xff\xff\xff\xff",
    "no-code": GOOD,
    "half-a-length": GOOD + b"\xc5\x01",
    "text-for-code": GOOD + b"\xa3abc\xa7imports\x90",
    "code-of-noise": GOOD + b"\xc4\x04\xff\x00\xfeq\xa7imports\x90",
    "nothing": b"\xc0",
    "too-long": bytes(1 << 20),
    "terminal": encode({"t": "\x1b]0;owned\x07\x1b[2J"}),
    "rejected": encode({"t": "rejected", "kind": "compile", "message": "\x1b[31m" * 1000}),
}
DEEDS = {
    "endless": "while True: pass",
    "hungry": "b = [bytes(1 << 20).replace(b'\\0', b'x') for _ in range(900)]\n    while True: pass",
    "exit": "import os; os._exit(3)",
    "abort": "import os; os.abort()",
    "raises": "raise RuntimeError('\\x1b[2J' * 1000)",
    "prints": "print('\\x1b[2J' * 10000); return b''",
    "recurses": "return evil(*a, **k)",
    "no-answer": "return None",
}


def written(name):
    """An answer as the variant's text has it."""
    return "bytes(1 << 20)" if name == "too-long" else repr(ANSWERS[name])


def on_both(names, *few):
    """All of them in a worker, a few in this process too, where they would end it."""
    cases = [pytest.param(1, name, id=f"worker-{name}") for name in names]
    cases += [pytest.param(0, name, id=f"in-process-{name}") for name in few]
    return pytest.mark.parametrize(("engine", "name"), cases, indirect=["engine"], scope="module")


@pytest.fixture(scope="module", params=[0, 1], ids=["in-process", "worker"])
def engine(request):
    with evocell.Engine(Config.load(workers=request.param)) as made:
        yield made
        assert made.list_sandboxes() == []


def healthy(engine):
    with engine.create_sandbox(source="def f(): return [1, (2, 3)]") as sandbox:
        assert sandbox.run("f").unwrap() == [1, (2, 3)]


def refused(engine, source, *, goes_on=True):
    """Freeze a sandbox whose `plant` shapes it; the sandbox goes on, and no image is there."""
    with engine.create_sandbox(source=source, limits=LIMITS) as sandbox:
        assert sandbox.run("plant").ok
        with pytest.raises(evocell.ImageError, match="does not answer as it should") as error:
            engine.freeze(sandbox, NAME, replace=True)
        assert len(str(error.value)) < 400
        assert str(error.value).isprintable()
        assert ImageCache().id_of(NAME) is None
        assert sandbox.run("plant").ok == goes_on
    healthy(engine)


@on_both(ANSWERS, "nested", "objects")
def test_an_answer_to_the_rehearsal_is_not_decoded(engine, name):
    source = f"{AGENT}ANSWER = {written(name)}\ndef plant():\n    A.encode = lambda *a, **k: ANSWER\n"
    refused(engine, source)


@on_both(["objects", "terminal", "too-long", "nothing"], "nested")
def test_an_answer_to_the_second_call_is_not_decoded_either(engine, name):
    source = f"{AGENT}ANSWER = {written(name)}\ndef plant():\n    A._call = lambda request: ANSWER\n"
    refused(engine, source, goes_on=False)


@on_both(DEEDS, "endless")
def test_the_rehearsal_runs_within_the_sandboxes_limits(engine, name):
    source = f"{AGENT}def plant():\n    def evil(*a, **k):\n        {DEEDS[name].replace(chr(10), chr(10) + '    ')}\n"
    refused(engine, f"{source}    A.encode = evil\n")


@on_both(["nested", "terminal"], "objects")
def test_a_copy_that_lies_while_it_is_prepared_is_not_sealed(engine, name):
    source = f"{AGENT}ANSWER = {written(name)}\ndef plant():\n    A._settle = lambda code: ANSWER\n"
    with engine.create_sandbox(source=source, limits=LIMITS) as sandbox:
        assert sandbox.run("plant").ok
        with pytest.raises(evocell.SandboxBusy):
            engine.freeze(sandbox, NAME, replace=True)
    healthy(engine)


def test_an_unprintably_large_message_is_not_shown(engine):
    """As text it would have 150,000 digits, which Python refuses to write."""
    answer = encode({"t": "raised", "message": 1 << 500_000})
    head, zeros, tail = answer.partition(bytes(62_000))
    source = f"{AGENT}ANSWER = {head!r} + bytes({len(zeros)}) + {tail!r}\ndef plant():\n    A._settle = lambda code: ANSWER\n"
    with engine.create_sandbox(source=source, limits=LIMITS) as sandbox:
        assert sandbox.run("plant").ok
        with pytest.raises(evocell.SandboxBusy):
            engine.freeze(sandbox, NAME, replace=True)
    healthy(engine)


def test_a_sandbox_with_small_limits_can_be_frozen(engine):
    limits = Limits(fuel=10_000_000, memory_bytes=1 << 20, timeout_s=0.1)
    with engine.create_sandbox(source="def f(): return 1", limits=limits) as sandbox:
        assert sandbox.run("f").unwrap() == 1
        image = engine.freeze(sandbox, NAME, replace=True)
    try:
        with engine.create_sandbox(image=image.id) as sandbox:
            assert sandbox.run("f").unwrap() == 1
    finally:
        ImageCache().remove(image.id)


@pytest.mark.parametrize("engine", [0], indirect=True)
def test_other_builds_do_not_wait_for_a_rehearsal(engine, monkeypatch):
    """The lock is free while the image's own code runs."""
    from evocell_runtime import derive

    honest, seen = derive.find_hot_pages, []

    def watched(*args, **options):
        taken = threading.Event()

        def take():
            with ImageCache().lock():
                taken.set()

        thread = threading.Thread(target=take)
        thread.start()
        seen.append(taken.wait(60))
        thread.join()
        return honest(*args, **options)

    monkeypatch.setattr(derive, "find_hot_pages", watched)
    with engine.create_sandbox(source="X = 5\ndef f(): return X") as sandbox:
        image = engine.freeze(sandbox, NAME, replace=True)
    ImageCache().remove(image.id)
    assert seen == [True]


def test_limits_of_sealing_are_the_sandboxes_own_where_an_honest_image_needs_less():
    default = RehearsalLimits()
    assert default.within(fuel=10**9, growth_bytes=16 << 20, timeout_s=5) == RehearsalLimits(
        fuel=10**9, growth_bytes=16 << 20, timeout_s=5
    )
    assert default.within(fuel=1 << 62, growth_bytes=1 << 32, timeout_s=1e9) == default
    least = default.within(fuel=1, growth_bytes=1, timeout_s=1e-9)
    assert 0 < least.fuel < default.fuel
    assert 0 < least.growth_bytes < default.growth_bytes
    settle = limits_to_settle(
        Limits(memory_bytes=16 << 20, fuel=7 * 10**10, timeout_s=30, scratch_bytes=1 << 30)
    )
    assert (settle.memory_bytes, settle.fuel, settle.timeout_s, settle.scratch_bytes) == (
        48 << 20, 7 * 10**10, 30, 0,
    )  # fmt: skip


# ---------------------------------------------------------------- what the guest says is lasting


@on_both(
    [
        "none + one * (100 << 18)",
        "none + one * (1 << 18)",
        "none + bytes(1 << 20)",
        "none + b'\\xff' * (1 << 20)",
        "b'\\xff' * 4",
        "b'\\x01'",
        "b''",
        "one + none",
    ],
    "nested",
)
def test_addresses_of_lasting_objects_harm_their_own_image_alone(engine, name):
    source = (
        f"{AGENT}X = [1.5]\ndef plant():\n    none = id(None).to_bytes(4, 'little')\n"
        f"    one = id(X).to_bytes(4, 'little')\n    nested = {nested(100)!r}\n"
        f"    A.lasting_objects = lambda: {name}\n"
    )
    with engine.create_sandbox(source=source) as sandbox:
        assert sandbox.run("plant").ok
        image = engine.freeze(sandbox, NAME, replace=True)
        assert sandbox.run("plant").ok
    ImageCache().remove(image.id)
    healthy(engine)


class Memory:
    """A memory of a guest, as far as `make_immortal` looks at it; counts what is read."""

    def __init__(self, words):
        self.data = bytearray(b"".join(word.to_bytes(4, "little") for word in words))
        self.size_bytes = len(self.data)

    def words(self):
        return memoryview(self.data).cast("I")


def test_addresses_are_bounded_and_none_counts_twice():
    memory = Memory([0, 0xC0000000, *([1] * 62)])
    told = [4, *([8] * 1000)]
    addresses = GuestBytes(b"".join(address.to_bytes(4, "little") for address in told))
    assert make_immortal(memory, addresses, strict=False) == 1
    assert memory.words()[2] == 0xC0000000
    # 256 bytes hold 16 objects at most: what is listed after them is not looked at.
    late = GuestBytes(b"".join(address.to_bytes(4, "little") for address in [4, *([8] * 16), 16]))
    assert make_immortal(memory, late, strict=False) == 0


@pytest.mark.parametrize("told", [[0], [3], [5, 8], [1 << 31], [4, 9], [4, 1 << 31], [4, 256], [4, 0]])
def test_addresses_that_cannot_be_are_left_alone_or_named(told):
    memory = Memory([0, 0xC0000000, *([1] * 62)])
    before = bytes(memory.data)
    addresses = GuestBytes(b"".join(address.to_bytes(4, "little") for address in told))
    assert make_immortal(memory, addresses, strict=False) == 0
    assert bytes(memory.data) == before
    with pytest.raises(ImageError):
        make_immortal(memory, addresses)


# ---------------------------------------------------------------- an image from elsewhere


@on_both(["objects", "terminal"], "nested")
def test_an_imported_image_that_answers_for_itself_is_refused(engine, name, tmp_path):
    cache = ImageCache()
    image = Image(cache, cache.get(engine.image_id))
    guest = image.fork()
    program = f"{AGENT}ANSWER = {written(name)}\nA.encode = lambda *a, **k: ANSWER\n"
    from evocell_runtime.calls import CallLimits

    call = guest.start(program.encode(), b"", CallLimits(fuel=10**10))
    while not call.poll():
        pass
    assert call.finish().status == 0
    snapshot = freeze(guest)
    guest.close()
    honest = read_archive(
        engine.export_image(engine.image_id, tmp_path / "honest"),
        "image",
        {"snapshot": 1 << 30, "tree": 1 << 28},
    )
    facts = {
        **honest.facts,
        "pages": snapshot.pages,
        "offset": snapshot.offset,
        "state": dict(snapshot.state),
        "snapshot_sha256": snapshot.sha256,
    }
    write_archive(tmp_path / "file", Archive("image", facts, {"snapshot": snapshot.data}))
    with pytest.raises(evocell.ImageError, match="does not answer as it should") as error:
        engine.import_image(tmp_path / "file", NAME)
    assert str(error.value).isprintable()
    assert cache.id_of(NAME) is None
    image.close()
    healthy(engine)


# ---------------------------------------------------------------- the types


def test_bytes_of_a_guest_are_no_bytes():
    from evocell_guest.decoding import decode

    data = GuestBytes(encode({"a": [1, 2]}))
    assert not isinstance(data, bytes)
    for take in (
        decode,
        msgpack.unpackb,
        memoryview,
        bytes,
        bytearray,
        lambda d: b"" + d,
        lambda d: f"{d:s}",
    ):
        with pytest.raises(TypeError):
            take(data)
    assert "a" not in repr(GuestBytes(b"aaaa")).replace("a guest", "")
    assert repr(GuestBytes(b"\x1b")).isprintable()


def test_mypy_refuses_bytes_of_a_guest_where_bytes_are_trusted(tmp_path):
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    text = (
        "from evocell_guest.decoding import decode\nfrom evocell_runtime.untrusted import GuestBytes\n"
        "def wrong(data: GuestBytes) -> object:\n    return decode(data)\n"
    )
    (tmp_path / "wrong.py").write_text(text)
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=silent", str(tmp_path / "wrong.py")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert 'incompatible type "GuestBytes"; expected "bytes"' in " ".join(ran.stdout.split())


def test_plain_bytes_are_taken_out_in_few_places():
    """Where the bytes of a guest become plain ones; a new place wants a look."""
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("engine", "wasi-runtime", "guest")
        for path in (ROOT / folder).rglob("*.py")
        if ".unchecked()" in path.read_text(encoding="utf-8")
    }
    assert found == {
        "engine/evocell/execution/messages.py",
        "engine/evocell/guests/family.py",
        "engine/evocell/guests/questions.py",
        "engine/evocell/wire/values.py",
        "wasi-runtime/evocell_runtime/boot.py",
        "wasi-runtime/evocell_runtime/rehearsal.py",
    }


@pytest.mark.parametrize(
    "dtype", ["O", "|O", "|O8", "<O8", "object", "O,i4", "i4,O", "V8", "|V8", "M8[ns]", "p", "P"]
)
@pytest.mark.parametrize("numpy", ["there", "not there"])
def test_arrays_of_objects_are_refused_by_both_readers(dtype, numpy, monkeypatch):
    from evocell.wire.values import decode_hostile
    from evocell_guest import decoding

    made = []
    stand_in = SimpleNamespace(ndarray=lambda *args: made.append(args))
    monkeypatch.setattr(decoding, "_numpy", lambda: stand_in if numpy == "there" else None)
    data = array(dtype)
    with pytest.raises(ValueError, match="cannot travel"):
        decoding.decode(data)
    with pytest.raises(evocell.ProtocolError, match="cannot travel"):
        decode_hostile(data, max_bytes=1000, max_items=10, max_depth=3)
    assert made == []
