"""A process that cannot answer is told from one that is slow, by what the kernel says of its threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import trio

from evocell.workers import hang_detector
from evocell.workers.hang_detector import HangDetector, Sample, diagnose, sample

READY = "import sys; print('ready', flush=True);"
DEADLOCK = READY + (
    "import threading; a = threading.Lock(); a.acquire();"
    "[threading.Thread(target=a.acquire, daemon=True).start() for _ in range(3)]; a.acquire()"
)
SPIN = READY + "\nwhile True: pass"
ALIVE = READY + "\nimport time\nwhile True: time.sleep(0.005)"


@pytest.fixture
def start():
    started = []

    def run(program):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_there_is_nothing_to_see_of_a_process_that_is_gone(start):
    process = start(READY)
    process.wait()
    assert sample(process.pid) is None


def test_a_look_sees_every_thread(start):
    process = start(DEADLOCK)
    while len((seen := sample(process.pid)).states) < 4:
        pass
    assert seen.switches > 0
    assert seen.core_s >= 0


def test_a_look_sees_core_time():
    begin = sample(os.getpid())
    while sample(os.getpid()).core_s - begin.core_s < 0.02:
        sum(range(10_000))


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (Sample("TT", 5, 0.1), Sample("TT", 5, 0.1), "it was stopped by a signal"),
        (Sample("SS", 5, 0.1), Sample("SS", 5, 0.1), "all its threads wait for each other"),
        (Sample("SS", 5, 0.1), Sample("SS", 6, 0.1), None),
        (Sample("SS", 5, 0.1), Sample("SS", 5, 0.2), None),
        (Sample("SR", 5, 0.1), Sample("SS", 5, 0.1), None),
        (Sample("SS", 5, 0.1), Sample("RS", 5, 0.1), None),
        (Sample("SD", 5, 0.1), Sample("SD", 5, 0.1), None),
        (Sample("TS", 5, 0.1), Sample("TT", 5, 0.1), None),
        (Sample("", 0, 0.0), Sample("", 0, 0.0), None),
    ],
)
def test_the_verdict(before, after, why):
    assert diagnose(before, after) == why


@pytest.mark.trio
async def test_an_answer_ends_the_wait():
    answered = trio.Event()
    answered.set()
    assert await HangDetector(os.getpid()).wait(answered) is None


@pytest.mark.trio
async def test_a_late_answer_ends_the_wait(start):
    answered = trio.Event()
    process = start(SPIN)

    async def answer():
        await trio.sleep(hang_detector.SUSPECT_S + 3 * hang_detector.SAMPLE_S)
        answered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await HangDetector(process.pid).wait(answered) is None


@pytest.mark.trio
async def test_a_stopped_process_is_found_out(start):
    process = start(ALIVE)
    process.send_signal(signal.SIGSTOP)
    assert await HangDetector(process.pid).wait(trio.Event()) == "it was stopped by a signal"


@pytest.mark.trio
async def test_nobody_is_judged_for_a_question_that_has_not_reached_him_or_an_answer_that_nobody_read(start):
    """As when the loop that asks is held up: the one asked sleeps soundly."""
    process = start(DEADLOCK)
    late = [True] * 20
    began = trio.current_time()

    def excused():
        return bool(late and late.pop())

    assert (
        await HangDetector(process.pid).wait(trio.Event(), excused=excused)
        == "all its threads wait for each other"
    )
    assert late == []
    assert trio.current_time() - began > 20 * hang_detector.SAMPLE_S


@pytest.mark.trio
async def test_a_deadlock_is_found_out(start):
    process = start(DEADLOCK)
    assert await HangDetector(process.pid).wait(trio.Event()) == "all its threads wait for each other"


@pytest.mark.trio
async def test_a_process_that_runs_now_and_then_is_given_time(start, monkeypatch):
    monkeypatch.setattr(hang_detector, "HANG_S", 0.6)
    process = start(ALIVE)
    assert await HangDetector(process.pid).wait(trio.Event()) == "it did not answer for 0.6 s"


@pytest.mark.trio
async def test_a_process_that_spins_is_judged_by_its_core_time(start, monkeypatch):
    monkeypatch.setattr(hang_detector, "SPIN_S", 0.2)
    process = start(SPIN)
    assert "0.2 s of core time" in await HangDetector(process.pid).wait(trio.Event())


@pytest.mark.trio
async def test_a_process_that_ended_is_not_waited_for(start):
    process = start(READY)
    process.wait()
    with trio.move_on_after(0.5) as patience:
        await HangDetector(process.pid).wait(trio.Event())
    assert patience.cancelled_caught  # its end is seen where its output is read
