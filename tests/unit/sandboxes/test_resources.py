"""Readings on an interval."""

import sqlite3

import msgpack
import pytest
import trio

from evocell import AsyncEngine, Config
from evocell.telemetry.catalogue import problems
from evocell.telemetry.events import Telemetry

pytestmark = pytest.mark.trio

SQUARE = "def solve(n): return n * n"


@pytest.fixture
def telemetry():
    return Telemetry()


async def heard(telemetry, prefix, n):
    """Wait for so many events under a prefix."""
    events = []
    enough = trio.Event()

    def hear(event):
        events.append(event)
        if len(events) == n:
            enough.set()

    telemetry.attach(prefix, prefix, hear)
    with trio.fail_after(10):
        await enough.wait()
    telemetry.detach(prefix)
    assert [problem for event in events for problem in problems(event)] == []
    return events


async def test_workers_are_read_on_the_interval(fake_workers, telemetry):
    config = Config(enforcement_poll_interval_ms=10)
    async with AsyncEngine(config, open_worker=fake_workers, telemetry=telemetry):
        events = await heard(telemetry, "worker.resources", 3)
        assert {event.metadata["status"] for event in events} == {"up"}


async def test_a_sandbox_is_told_of_when_it_was_at_work(fake_workers, telemetry):
    config = Config(enforcement_poll_interval_ms=10)
    async with AsyncEngine(config, open_worker=fake_workers, telemetry=telemetry) as engine:
        await engine.create_sandbox("busy", source=SQUARE)
        await engine.create_sandbox("idle", source=SQUARE)
        events = []
        telemetry.attach("sandboxes", "sandbox.resources", events.append)
        await engine.run("busy", "solve", args=(2,))
        await engine.run("busy", "solve", args=(2,))
        await heard(telemetry, "worker.resources", 3)
    assert {event.metadata["sandbox_id"] for event in events} == {"busy"}
    assert events[-1].measurements["calls"] == 2
    assert events[-1].measurements["fuel_used"] == 14
    assert events[-1].measurements["run_s"] == 0.5
    assert len(events) <= 2


async def test_readings_can_be_switched_off(fake_workers, telemetry):
    config = Config(enforcement_poll_interval_ms=5, emit_resource_telemetry=False)
    async with AsyncEngine(config, open_worker=fake_workers, telemetry=telemetry):
        events = []
        telemetry.attach("test", "worker", events.append)
        await trio.sleep(0.05)
    assert events == []


async def test_the_latest_readings_are_in_a_lasting_store(fake_workers, telemetry, tmp_path):
    config = Config(enforcement_poll_interval_ms=10, state_dir=tmp_path)
    async with AsyncEngine(config, open_worker=fake_workers, telemetry=telemetry) as engine:
        await engine.create_sandbox("one", source=SQUARE)
        await heard(telemetry, "worker.resources", 2)
    with sqlite3.connect(tmp_path / "evocell.db") as connection:
        rows = dict(connection.execute("SELECT name, reading FROM readings").fetchall())
    connection.close()
    assert msgpack.unpackb(rows["engine"]) == {"sandboxes": {"running": 1}}
    assert len(rows) == 2
