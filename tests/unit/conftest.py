"""A worker on the real image, and a variant to call."""

from __future__ import annotations

import gc
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise
from evocell.config import Config
from evocell.execution.interface import CallJob, CompileJob
from evocell.models.limits import Limits
from evocell.workers.open_worker import open_local_worker
from evocell_guest.values import encode

VARIANT = """
import os, time

count = 0

def add(n=1):
    global count
    count += n
    return count

def endless():
    while True:
        pass

def sleep(seconds):
    time.sleep(seconds)
    return "slept"

def leave():
    os._exit(3)

def echo(value):
    return value

def scratch():
    with open("/tmp/file", "w") as stream:
        stream.write("x" * 1000)
    return os.listdir("/tmp")
"""


class Caller:
    """A worker with the variant compiled."""

    def __init__(self, worker, code):
        self.worker, self.code = worker, code

    async def report(self, entry, *args, session=None, reload=False, code=None, seed=0, **limits):
        job = CallJob(
            session=session,
            code=code or self.code,
            entry=f"program:{entry}",
            payload=encode([list(args), {}]),
            seed=seed,
            limits=Limits(**limits),
            reload=reload,
        )
        return await self.worker.call(job)

    async def __call__(self, entry, *args, **options):
        return (await self.report(entry, *args, **options)).outcome

    async def compile(self, source):
        return await self.worker.compile(CompileJob(tree=normalise(source)))


@pytest.fixture
def open_caller(tmp_path):
    @asynccontextmanager
    async def open_caller(**settings):
        config = Config.load(**{"threads": 1} | settings)
        async with open_local_worker(config, SnapshotStore(tmp_path / "snapshots")) as worker:
            yield Caller(worker, await worker.compile(CompileJob(tree=normalise(VARIANT))))

    return open_caller


@pytest.fixture
async def call(open_caller):
    async with open_caller() as made:
        yield made


@pytest.fixture
def descriptors():
    """How many directories this process has open: each fork holds four."""

    def count():
        gc.collect()  # what earlier tests left is not counted against this one
        return sum(path.is_dir() for path in Path("/proc/self/fd").iterdir())

    return count


@pytest.fixture
def scratch_left(tmp_path, monkeypatch):
    """The scratch directories there are; they are made in a place of the test's own."""
    home = tmp_path / "scratch"
    home.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    return lambda: len(list(home.glob("*/tmp-*")))
