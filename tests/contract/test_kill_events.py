"""Every kill is an event: whose, which limit, how far it had come; over each kind of worker."""

from __future__ import annotations

import threading
import time

import pytest

import evocell
from evocell import Case, Evaluation, Limits
from evocell.telemetry.catalogue import problems

SOURCE = """
def spin():
    while True: pass
def hoard():
    held = []
    while True: held.append(bytearray(1 << 20))
def nest():
    return nest()
def shout():
    while True: print("x" * 10_000)
def fill():
    with open("/tmp/full", "w") as out:
        while True: out.write("x" * 10_000)
def much():
    return bytes(1 << 20)
def one():
    return 1
"""
KILLS = {
    "fuel": ("spin", Limits(fuel=50_000_000), 50_000_000),
    "timeout": ("spin", Limits(timeout_s=0.2), 0.2),
    "memory": ("hoard", Limits(memory_bytes=16 << 20), 16 << 20),
    "output": ("shout", Limits(output_bytes=100_000), 100_000),
    "files": ("fill", Limits(scratch_bytes=200_000), 200_000),
    "payload": ("much", Limits(payload_bytes=100_000), 100_000),
}
WITHOUT_READING = {"payload"}
"""The guest stops packing where it is over: nobody knows how long it would have become."""


@pytest.fixture
def heard(engine):
    """The kills of an engine, and nothing else."""
    events = []
    engine.telemetry.attach("kills", "sandbox.killed", events.append)
    yield events
    engine.telemetry.detach("kills")
    assert [problem for event in events for problem in problems(event)] == []


def check(event, kind, sandbox_id):
    _, _, limit = KILLS[kind]
    assert event.name == ("sandbox.killed.timeout" if kind == "timeout" else "sandbox.killed.resource_limit")
    assert event.metadata["sandbox_id"] == sandbox_id
    assert event.metadata.get("kind", "timeout") == kind
    assert event.measurements["limit"] == limit
    if kind not in WITHOUT_READING:
        assert event.measurements["reached"] >= 0.9 * limit


@pytest.mark.parametrize("isolation", ["session", "call"])
@pytest.mark.parametrize("kind", KILLS)
def test_a_killed_call(engine, heard, kind, isolation):
    entry, limits, _ = KILLS[kind]
    with engine.create_sandbox(source=SOURCE) as sandbox:
        assert sandbox.run("one", limits=limits, isolation=isolation).ok
        assert heard == []
        assert sandbox.run(entry, limits=limits, isolation=isolation).kind == kind
        (event,) = heard
        check(event, kind, sandbox.id)
        assert sandbox.run("one", isolation=isolation).ok


@pytest.mark.parametrize("kind", KILLS)
def test_a_killed_case_of_an_evaluation(engine, heard, kind):
    entry, limits, _ = KILLS[kind]
    task = Evaluation(entry, [Case(), Case()], score=lambda case, value: 1.0, limits=limits)
    (result,) = engine.evaluate([SOURCE], task)
    assert result.reason == kind
    assert len(heard) == 2
    for event in heard:
        check(event, kind, result.sandbox_id)


def test_a_deadline_that_passes(engine, heard):
    with engine.create_sandbox(source=SOURCE) as sandbox:
        assert sandbox.run("spin", deadline_s=0.3).kind == "timeout"
    task = Evaluation("spin", [Case(expected=1)], limits=Limits(fuel=10**15))
    (result,) = engine.evaluate([SOURCE], task, deadline_s=0.4)
    assert [(event.name, event.metadata, event.measurements) for event in heard] == [
        ("sandbox.killed.timeout", {"sandbox_id": sandbox.id}, {"limit": 0.3}),
        ("sandbox.killed.timeout", {"sandbox_id": result.sandbox_id}, {"limit": 0.4}),
    ]


def test_what_waited_was_not_killed(engine, heard):
    """Of the calls in one session only the first had begun when their deadlines passed."""
    with engine.create_sandbox(source=SOURCE) as sandbox:

        def call(deadline_s):
            thread = threading.Thread(target=sandbox.run, args=("spin",), kwargs={"deadline_s": deadline_s})
            thread.start()
            return thread

        first = call(2.5)
        while not any(worker.calls for worker in engine.workers()):  # it runs
            time.sleep(0.01)
        for waiting in [call(0.2) for _ in range(4)]:
            waiting.join()
        assert heard == []
        first.join()
    assert [event.name for event in heard] == ["sandbox.killed.timeout"]


def test_what_ends_otherwise_is_no_kill(engine, heard):
    source = "import os\ndef fail(): raise ValueError\ndef leave(): os._exit(3)"
    with engine.create_sandbox(source=source) as sandbox:
        assert [sandbox.run(entry).kind for entry in ("fail", "leave", "absent")] == [
            "raised",
            "crashed",
            "load",
        ]
    assert heard == []


@pytest.mark.parametrize("workers", [0, 1])
def test_a_backlog_that_is_too_long(workers):
    config = evocell.Config.load(workers=workers, default_max_message_queue=3, backlog_policy="kill")
    events, ends = [], []
    with evocell.Engine(config) as engine:
        engine.telemetry.attach("kills", "sandbox.killed", events.append)
        sandbox = engine.create_sandbox(source=SOURCE)

        def call():
            try:
                ends.append(sandbox.run("spin", limits=Limits(fuel=10**15)))
            except evocell.CapacityError as error:
                ends.append(error)

        calls = [threading.Thread(target=call) for _ in range(5)]
        calls[0].start()
        while not engine.workers()[0].calls:  # it runs, and does not wait
            time.sleep(0.01)
        for thread in calls[1:]:
            thread.start()
        for thread in calls:
            thread.join(60)
        assert [type(end).__name__ for end in ends] == ["CapacityError"] * 5
        assert sandbox.run("one").unwrap() == 1
    (event,) = events
    assert problems(event) == []
    assert event.metadata == {"sandbox_id": sandbox.id, "kind": "backlog"}
    assert event.measurements == {"limit": 3, "reached": 4}


def test_a_worker_that_holds_too_much_takes_sandboxes_along():
    """The one that runs, and the one that keeps state in the same process."""
    bound = 300 << 20
    config = evocell.Config.load(workers=1, worker_max_memory=bound, enforcement_poll_interval_ms=20)
    hungry = "def solve(n):\n    held = b'x' * (600 << 20)\n    for i in range(n): pass\n    return n"
    large = Limits(memory_bytes=1 << 30, fuel=30_000_000_000)
    events = []
    with evocell.Engine(config) as engine:
        engine.telemetry.attach("kills", "sandbox.killed", events.append)
        keeps = engine.create_sandbox("keeps", source=SOURCE)
        engine.create_sandbox("holds nothing", source=SOURCE)
        assert keeps.run("one").ok
        eats = engine.create_sandbox("eats", source=hungry)
        assert eats.run("solve", args=(20_000_000,), limits=large).kind == "worker_lost"
    assert [problem for event in events for problem in problems(event)] == []
    assert sorted(event.metadata["sandbox_id"] for event in events) == ["eats", "keeps"]
    for event in events:
        assert event.name == "sandbox.killed.resource_limit"
        assert event.metadata["kind"] == "worker_memory"
        assert event.measurements["limit"] == bound < event.measurements["reached"]
