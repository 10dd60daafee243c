"""The watch over workers' memory, on processes that only sleep."""

import logging
import os
import subprocess
import sys

import psutil
import pytest
import trio

from evocell.config import Config
from evocell.workers.memory_watch import machine_memory, memory_bound, own_memory, watch_memory


class Place:
    def __init__(self, pid):
        self.name = "worker-7"
        self.pid = pid
        self.why = None

    def note_memory_kill(self, *, limit, reached):
        self.why = limit, reached


@pytest.fixture
def sleeper():
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def ended():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


async def watch(places, bound, looks):
    with trio.move_on_after(looks + 0.5):
        await watch_memory(places, bound=bound, interval_s=1.0)


@pytest.mark.trio
async def test_a_worker_over_the_bound_is_killed_and_named(sleeper, autojump_clock, caplog):
    place = Place(sleeper.pid)
    with caplog.at_level(logging.WARNING, "evocell"):
        await watch([Place(None), place], 1 << 10, 1)
    assert sleeper.wait(10) == -9
    limit, reached = place.why
    assert limit == 1024 < reached
    (line,) = caplog.messages
    assert line.startswith(f"worker-7 (process {sleeper.pid}) killed: its memory reached ")
    assert line.endswith("worker_max_memory is 1024")


@pytest.mark.trio
async def test_others_are_left_alone_and_the_dead_do_no_harm(sleeper, ended, autojump_clock, caplog):
    place, dead = Place(sleeper.pid), Place(None)
    dead.pid = ended
    await watch([dead, place], 1 << 40, 3)
    assert (sleeper.poll(), place.why, dead.why, caplog.messages) == (None, None, None, [])


def test_pages_of_files_do_not_count():
    process = psutil.Process(os.getpid())
    assert 0 < own_memory(process) < process.memory_info().rss


def test_the_bound(tmp_path):
    assert memory_bound(Config(worker_max_memory=5 << 20)) == 5 << 20
    assert memory_bound(Config(workers=4)) == int(machine_memory() * 0.6 / 4)
    group = tmp_path / "memory.max"
    assert machine_memory(group) == psutil.virtual_memory().total
    group.write_text("max\n")
    assert machine_memory(group) == psutil.virtual_memory().total
    group.write_text("1048576\n")
    assert machine_memory(group) == 1 << 20
