"""Guests that do nothing but ask the host: stopped by fuel and by time, and nobody else's call notices."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise
from evocell.config import Config
from evocell.execution.interface import CallJob, CompileJob
from evocell.models.limits import Limits
from evocell.models.outcome import Completed, LimitExceeded
from evocell.workers.open_worker import open_local_worker
from evocell_guest.values import encode

VARIANT = """
import os

ZIP = "/usr/local/lib/python315.zip"

def read():
    with open(ZIP, "rb", buffering=0) as stream:
        while True:
            stream.seek(0)
            stream.read(50_000_000)

def stat():
    while True:
        os.stat(ZIP)

def write_nothing():
    while True:
        os.write(1, b"")

def write():
    for _ in range(1000):
        os.write(1, b"0123456789")
    write_nothing()

def open_and_close():
    while True:
        os.close(os.open(ZIP, os.O_RDONLY))

def listdir():
    while True:
        os.listdir("/usr/local/lib")

def scratch():
    file = os.open("/tmp/flood", os.O_RDWR | os.O_CREAT)
    while True:
        os.pwrite(file, b"x" * 65536, 0)

def entropy():
    while True:
        os.urandom(1 << 20)

def neighbour():
    return sum(n * n for n in range(100_000))
"""
pytestmark = pytest.mark.trio

FLOODS = ("read", "stat", "write_nothing", "write", "open_and_close", "listdir", "scratch", "entropy")
LIMITS = Limits(scratch_bytes=1 << 20)


@asynccontextmanager
async def open_worker(folder, **settings):
    config = Config.load(threads=1, **settings)
    async with open_local_worker(config, SnapshotStore(folder / "snapshots")) as worker:
        code = await worker.compile(CompileJob(tree=normalise(VARIANT)))

        async def call(entry, limits=LIMITS):
            job = CallJob(
                code=code, entry=f"program:{entry}", payload=encode([[], {}]), seed=3, limits=limits
            )
            return (await worker.call(job)).outcome

        yield call


@pytest.fixture
async def call(tmp_path):
    async with open_worker(tmp_path) as made:
        yield made


async def beside(call, entry, limits):
    """Run a flood with three neighbours on the same thread; the flood's outcome and theirs."""
    neighbours = []

    async def neighbour():
        neighbours.append(await call("neighbour"))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(neighbour)
        flood = await call(entry, limits)
    return flood, neighbours


@pytest.mark.parametrize("entry", FLOODS)
async def test_a_flood_is_stopped_at_its_fuel(call, entry):
    alone = await call("neighbour")

    flood, neighbours = await beside(call, entry, LIMITS.evolve(fuel=150_000_000))

    assert isinstance(flood, LimitExceeded), flood.error
    assert (flood.kind, flood.reached, flood.deterministic) == ("fuel", 150_000_000, True)
    assert neighbours == [alone] * 3
    assert isinstance(alone, Completed)
    assert alone.value == 333328333350000


@pytest.mark.parametrize("entry", FLOODS)
async def test_a_flood_is_stopped_at_its_deadline(call, entry):
    alone = await call("neighbour")

    flood, neighbours = await beside(call, entry, LIMITS.evolve(fuel=10**15, timeout_s=0.1))

    assert isinstance(flood, LimitExceeded), flood.error
    assert (flood.kind, flood.deterministic) == ("timeout", False)
    assert neighbours == [alone] * 3


async def test_a_flood_of_the_real_clock_and_entropy_is_stopped_too(tmp_path):
    async with open_worker(tmp_path, profile="realtime") as call:
        by_fuel = await call("entropy", LIMITS.evolve(fuel=150_000_000))
        by_time = await call("entropy", LIMITS.evolve(fuel=10**15, timeout_s=0.1))
        after = await call("neighbour")

    assert (by_fuel.kind, by_time.kind) == ("fuel", "timeout")
    assert after.unwrap() == 333328333350000
