"""Answers that a guest forged whole: what they cost the host is bounded, and the call after them works."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from tests.unit.wire import colliding

import evocell
from evocell.models.outcome import Completed

FORGE = """
import sys
agent = sys.modules["evocell_guest.agent"]
def f(answer):
    agent._COMPLETED = b""
    agent._encode_value = lambda *a, **k: answer
    return 1
"""
TASK = evocell.Evaluation("f", [evocell.Case()], score=lambda *_: 1.0)
COMPLETED = b"\x82\xa1t\xa9completed\xa1v"


def packed(count, *parts, head=0xDD):
    return bytes([head]) + count.to_bytes(4, "big") + b"".join(parts)


def extension(code, data):
    return b"\xc9" + len(data).to_bytes(4, "big") + bytes([code]) + data


def array(dtype, shape, data=b""):
    return msgpack.packb(msgpack.ExtType(5, msgpack.packb([dtype, list(shape), data])))


def keyed(keys):
    return packed(len(keys), *(msgpack.packb(key) + b"\xc0" for key in keys), head=0xDF)


CHAIN = colliding.ints_for_a_dict(14)
PAIRS = [msgpack.packb(msgpack.ExtType(2, msgpack.packb(pair))) for pair in colliding.tuples(2500)]
FORGED = {
    "keys in a chain": (keyed(CHAIN), "collide"),
    "floats in a chain": (keyed([float(key) for key in CHAIN]), "collide"),
    "keys in a chain, deep inside": (b"\x91" * 20 + keyed(CHAIN), "collide"),
    "keys in a chain, as ints of the same hash": (keyed([key + 2**61 - 1 for key in CHAIN]), "collide"),
    "tuples of one hash in a set": (extension(3, packed(len(PAIRS), *PAIRS)), "collide"),
    "tuples of one hash as keys": (packed(len(PAIRS), *(p + b"\xc0" for p in PAIRS), head=0xDF), "collide"),
    "rows of an empty array": (array("|u1", (1 << 20, 0)), "more than 1000064 values"),
    "rows of many empty arrays": (packed(40, array("<f8", (1 << 17, 0)) * 40), "more than 1000064 values"),
    "rows of empty rows": (array("|u1", (1 << 9, 1 << 9, 4, 0)), "more than 1000064 values"),
    "an array of objects": (array("|O", (1,), bytes(8)), "cannot travel"),
}
TEXTS = {
    "a long message": {"t": "raised", "type": "X", "traceback": "T", "message": "z" * 14_000_000},
    "a long traceback": {"t": "raised", "type": "X", "traceback": "T" * 14_000_000, "message": "z"},
    "a long type": {"t": "raised", "type": "X" * 10_000, "traceback": "T", "message": "z"},
    "a long refusal": {
        "t": "rejected",
        "kind": "load",
        "message": "m" * 10_000_000,
        "path": None,
        "line": None,
        "column": None,
        "text": None,
    },
    "a long limit": {"t": "limit", "kind": "memory", "message": "m" * 10_000_000},
}


@pytest.fixture(scope="module")
def engine():
    with evocell.Engine(evocell.Config.load(workers=1)) as opened:
        yield opened


def forged(engine, answer):
    sandbox = engine.create_sandbox(source=FORGE, security_profile="low")
    try:
        return engine.run(sandbox, "f", args=(answer,), isolation="call")
    finally:
        engine.destroy_sandbox(sandbox)


def check_health(engine):
    assert isinstance(engine.evaluate_one("def f(): return 1", TASK).test_results[0].outcome, Completed)


@pytest.mark.parametrize("name", FORGED)
def test_an_answer_that_costs_more_than_its_length_is_refused(engine, name):
    value, words = FORGED[name]

    outcome = forged(engine, COMPLETED + value)

    assert outcome.kind == "crashed", outcome
    assert words in outcome.error
    assert len(outcome.error) < 500
    check_health(engine)


@pytest.mark.parametrize("name", TEXTS)
def test_texts_of_a_forged_answer_are_held_to_the_agents_own_caps(engine, name):
    outcome = forged(engine, msgpack.packb(TEXTS[name]))

    assert outcome.kind == "crashed", outcome
    assert "longer than" in outcome.error
    assert len(outcome.error) < 500
    check_health(engine)


def test_forged_messages_do_not_fill_the_store(tmp_path):
    with evocell.Engine(evocell.Config.load(workers=1, state_dir=tmp_path)) as engine:
        source = """
import sys, msgpack
A = sys.modules['evocell_guest.agent']
def f():
    data = msgpack.packb({"t": "raised", "type": "X", "traceback": "T", "message": "z" * 14_000_000})
    A._COMPLETED = b''; A._encode_value = lambda *a, **k: data
    return 1
"""
        for result in engine.evaluate([f"{source}# {n}" for n in range(3)], TASK):
            assert result.reason == "crashed"
            assert len(result.error) < 1000

    size = sum(path.stat().st_size for path in tmp_path.glob("evocell.db*"))
    assert size < 4 << 20


def test_what_the_callers_own_code_says_is_cut_in_the_store(tmp_path):
    def score(case, value):
        if value == 1:
            raise ValueError("z" * 5_000_000)
        return 1.0

    task = evocell.Evaluation("f", [evocell.Case()], score=score)
    with evocell.Engine(evocell.Config.load(workers=1, state_dir=tmp_path)) as engine:
        engine.evaluate(["def f(): return 1", "def f(): return 2"], task)

    assert sum(path.stat().st_size for path in tmp_path.glob("evocell.db*")) < 4 << 20


def test_an_honest_guest_learns_that_rows_of_empty_arrays_count(engine):
    source = "import numpy as np\ndef f(n): return [np.zeros((1 << 17, 0)) for _ in range(n)]"
    sandbox = engine.create_sandbox(source=source)

    few, many = engine.run(sandbox, "f", args=(2,)), engine.run(sandbox, "f", args=(40,))

    engine.destroy_sandbox(sandbox)
    assert [one.shape for one in few.unwrap()] == [(1 << 17, 0)] * 2
    assert many.kind == "payload"
    assert "items" in many.error


@pytest.mark.parametrize(
    "expression",
    [
        "{i: i for i in range(100_000)}",
        "{i << 40: i for i in range(100_000)}",
        "{i * 2654435761 % 2**64: i for i in range(100_000)}",
        "{i / 8: i for i in range(100_000)}",
        "set(range(100_000))",
        "frozenset(i << 32 for i in range(100_000))",
        "{(i, -i): i for i in range(4000)}",
    ],
)
def test_large_honest_maps_and_sets_come_back(engine, expression):
    sandbox = engine.create_sandbox(source=f"def f(): return {expression}")

    value = engine.run(sandbox, "f").unwrap()

    engine.destroy_sandbox(sandbox)
    assert value == eval(expression)


def test_arrays_of_any_shape_come_back(engine):
    sandbox = engine.create_sandbox(source="def f(x): return x")
    for made in (
        np.zeros((3, 0)),
        np.zeros((0, 3)),
        np.zeros(()),
        np.zeros((2, 0, 5)),
        np.zeros((500, 500, 1, 1)),
    ):
        back = engine.run(sandbox, "f", args=(made,)).unwrap()
        assert back.shape == made.shape
    engine.destroy_sandbox(sandbox)


def test_more_code_than_the_fuel_of_a_call_is_for_is_refused_and_not_compiled(engine):
    source = "x = 1\n" * 60_000 + "def f(): return 1"
    task = evocell.Evaluation("f", [evocell.Case()], score=lambda *_: 1.0, limits=evocell.Limits(fuel=10**9))

    result = engine.evaluate_one(source, task)
    sandbox = engine.create_sandbox(source=source, limits=task.limits)
    outcome = engine.run(sandbox, "f")
    engine.destroy_sandbox(sandbox)

    for found in (result, outcome):
        assert "bytes of Python take some" in found.error
    assert result.reason == outcome.kind == "compile"
    check_health(engine)
