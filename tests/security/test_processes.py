"""What a guest asks for, and what its processes answer, is believed by nobody; killed calls leave nothing."""

from __future__ import annotations

import gc
import random
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import evocell
from evocell.errors import ProtocolError
from evocell.guests.questions import read_child_answer, read_question
from evocell.integrations.stand_ins import stand_ins
from evocell_guest.values import encode
from evocell_runtime.body import Body
from evocell_runtime.untrusted import GuestBytes

LIMITS = evocell.Limits(fuel=20 * 10**9, scratch_bytes=1 << 20, payload_bytes=1 << 16, processes=4)
HARNESS = stand_ins()
SEEDS = [
    ["start", b"payload", b"stdin"],
    ["fork"],
    ["wait", [2, 3], 10],
    ["kill", 2, 9],
    ["channel"],
    ["send", 1, b"data"],
    ["receive", 1, None, True, [2]],
    ["size", 1],
]


@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False))
def test_a_mangled_question_is_one_or_an_error(seed, chance):
    data = bytearray(b"\xc1" + encode(seed))
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(1, len(data))] = chance.randrange(256)
    try:
        read_question(GuestBytes(bytes(data)), LIMITS)
    except ProtocolError as error:
        assert str(error)  # noqa: PT017 - either is right


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"\xc1",
        b"\xc1\xc1",
        b"\xc1" + encode({"start": b""}),
        b"\xc1" + encode(["wait", [2**62], None]),
        b"\xc1" + encode(["wait", [2], 2.5]),
        b"\xc1" + encode(["wait", [True], 1]),
        b"\xc1" + encode(["kill", 2, -9]),
        b"\xc1" + encode(["kill", 2, 1 << 40]),
        b"\xc1" + encode(["start", "text", b""]),
        b"\xc1" + encode(["start", b"x" * (1 << 18), b""]),
        b"\xc1" + encode(["wait", list(range(20_000)), 1]),
        b"\xc1" + b"\x91" * 100_000,
        b"\xc1\x93\xa4wait\xdd\xff\xff\xff\xff",
    ],
)
def test_what_is_no_question_is_refused(raw):
    with pytest.raises(ProtocolError):
        read_question(None if raw is None else GuestBytes(raw), LIMITS)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xc1",
        encode(5),
        encode({"t": "completed", "v": [0]}),
        encode({"t": "completed", "v": [10**9, b""]}),
        encode({"t": "completed", "v": [True, b""]}),
        encode({"t": "completed", "v": [0, b"x" * (1 << 18)]}),
        encode({"t": "raised", "type": "T" * 10_000, "message": "", "traceback": ""}),
        b"\x91" * 100_000,
    ],
)
def test_an_answer_of_a_process_that_is_none_is_an_abort(answer):
    assert read_child_answer(GuestBytes(answer), LIMITS)[0] == -6


FORGER = """
import sys
agent = sys.modules["evocell_guest.agent"]
agent._encode_value = lambda *a, **k: FORGED
"""

DRIVER = (
    """
import subprocess, sys
import evocell_stand_ins
from evocell_guest import processes
evocell_stand_ins.install()

def questions(many):
    told = 0
    for question in many:
        try:
            processes._call(bytes([0xC1]) + question)
        except OSError:
            pass
        told += 1
    return told

def forged(bodies):
    found = []
    for body in bodies:
        code = FORGER.replace("FORGED", repr(body))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True)
        found.append(done.returncode)
    return found

def floods():
    channel = processes.ask("channel")
    said = []
    for question in [("send", channel, b"x" * 50_000)] * 3:
        try:
            processes.ask(*question)
            said.append("done")
        except processes.Refused as refused:
            said.append(refused.why)
    try:
        while True:
            processes.ask("channel")
    except processes.Refused as refused:
        said.append(refused.why)
    return said

def many():
    children = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    open("/tmp/left-behind", "w").write("x")
    while True:
        pass

FORGER = """
    + repr(FORGER)
    + "\n"
)


@pytest.fixture(scope="module", params=[0, 1], ids=["in-process", "processes"])
def engine(request):
    free = {"security_profile": "low", "blocked_modules": ()}
    with evocell.Engine(evocell.Config.load(workers=request.param, **free)) as shared:
        yield shared


def ask(engine, function, *args):
    task = evocell.Evaluation(
        f"driver:{function}", [evocell.Case(args)], lambda case, value: 1.0,
        harness={**HARNESS, "driver.py": DRIVER}, limits=LIMITS,
    )  # fmt: skip
    result = engine.evaluate_one("pass", task)
    assert result.valid, result.feedback()
    return result.test_results[0].outcome.unwrap()


def test_a_guest_that_asks_nonsense_is_answered_and_goes_on(engine):
    chance = random.Random(1)
    many = [chance.randbytes(chance.randint(0, 40)) for _ in range(100)]
    many += [bytes(encode(seed)[: chance.randint(1, 8)]) for seed in SEEDS]
    many += [encode(["kill", 1, 9]), encode(["wait", [1], None]), encode(["receive", 1, None, True, [1]])]
    assert ask(engine, "questions", many) == len(many)


def test_a_process_that_forges_its_answer_ends_by_a_signal(engine):
    bodies = [b"", b"\xc1", encode([0, 5]), encode([999, b""]), b"\x91" * 5000, encode([7, b"fine"])]
    assert ask(engine, "forged", bodies) == [-6, -6, -6, -6, -6, 7]


def test_messages_and_channels_are_capped(engine):
    assert ask(engine, "floods") == ["done", "full", "full", "full"]


def left_behind(directory: Path) -> list[Path]:
    return list(directory.rglob("left-behind"))


async def until(wanted: bool, directory: Path) -> None:
    with trio.fail_after(20):
        while bool(left_behind(directory)) is not wanted:  # noqa: ASYNC110 - files tell nobody
            await trio.sleep(0.01)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_call_cancelled_while_its_processes_run_leaves_nothing(tmp_path, monkeypatch, workers):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    limits = LIMITS.evolve(fuel=10**15, timeout_s=600)
    task = evocell.Evaluation(
        "driver:many", [evocell.Case()], _any, harness={**HARNESS, "driver.py": DRIVER}, limits=limits
    )
    small = evocell.Evaluation("f", [evocell.Case(expected=1)])

    async def main() -> None:
        config = evocell.Config.load(workers=workers, threads=1)
        async with evocell.AsyncEngine(config) as engine:
            for _ in range(3):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(engine.evaluate_one, "pass", task)
                    await until(True, tmp_path)
                    nursery.cancel_scope.cancel()
                await until(False, tmp_path)
            gc.collect()
            if not workers:  # four processes and the call, three times
                assert sum(type(one) is Body for one in gc.get_objects()) < 10
            assert (await engine.evaluate_one("def f(): return 1", small)).valid

    trio.run(main)


def _any(case: evocell.Case, value: object) -> float:
    return 1.0
