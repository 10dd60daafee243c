import threading
import time
from itertools import groupby

import pytest

from evocell.guests.run_queue import QUANTUM_SLICES, STARTED_PER_THREAD
from evocell.guests.thread_scheduler import ThreadScheduler

PATIENCE_S = 30


class Scripted:
    """A job of so many slices that writes down what is done with it; it can be held at its first slice."""

    def __init__(self, log, name, slices=1, *, held=False):
        self.log, self.name, self.slices = log, name, slices
        self.gate, self.entered, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.cancelled = False
        self.wake = None
        if not held:
            self.gate.set()

    def begin(self):
        self.log.append(("begin", self.name))
        return self.cancelled or self.slices == 0

    def step(self):
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        self.log.append(("step", self.name))
        self.slices -= 1
        return self.cancelled or self.slices <= 0

    def wake_at(self):
        return None if self.cancelled else self.wake

    def cancel(self):
        self.cancelled = True

    def end(self):
        self.log.append(("end", self.name))
        self.ended.set()


class Sleeper(Scripted):
    """Sleeps at its second slice until the time given."""

    def __init__(self, log, name, until):
        super().__init__(log, name, slices=3)
        self.until = until

    def step(self):
        self.wake = self.until if self.slices == 2 else None
        return super().step()


@pytest.fixture
def log():
    return []


@pytest.fixture
def drive():
    made = []

    def drive(threads=1):
        made.append(ThreadScheduler(threads))
        return made[-1]

    yield drive
    for driver in made:
        driver.close()


def wait(*jobs):
    for job in jobs:
        assert job.ended.wait(PATIENCE_S), job.name


def happened(log, what):
    return [name for kind, name in log if kind == what]


def test_short_jobs_run_whole_and_in_order(drive, log):
    driver, jobs = drive(), [Scripted(log, n, slices=3) for n in range(5)]
    for job in jobs:
        driver.submit(job)
    wait(*jobs)

    assert happened(log, "end") == [0, 1, 2, 3, 4]
    assert [name for _, name in log] == [n for n in range(5) for _ in range(5)]
    assert driver.switches == 0


def test_a_job_with_nothing_to_run_is_ended_unstepped(drive, log):
    driver, job = drive(), Scripted(log, "a", slices=0)
    driver.submit(job)
    wait(job)

    assert log == [("begin", "a"), ("end", "a")]


def test_fresh_jobs_go_before_a_long_one_that_has_had_its_quantum(drive, log):
    driver, long = drive(), Scripted(log, "long", slices=10 * QUANTUM_SLICES, held=True)
    short = [Scripted(log, f"short{n}", slices=2) for n in range(3)]
    driver.submit(long)
    assert long.entered.wait(PATIENCE_S)
    for job in short:
        driver.submit(job)
    long.gate.set()
    wait(long, *short)

    before = log[: log.index(("begin", "short0"))]
    assert before.count(("step", "long")) <= QUANTUM_SLICES
    assert happened(log, "end") == ["short0", "short1", "short2", "long"]
    between = log[log.index(("begin", "short0")) : log.index(("end", "short2"))]
    assert ("step", "long") not in between
    assert driver.switches >= 1


def test_long_jobs_take_turns_and_none_starves(drive, log):
    driver = drive()
    jobs = [Scripted(log, n, slices=5 * QUANTUM_SLICES, held=True) for n in range(3)]
    driver.submit(jobs[0])
    assert jobs[0].entered.wait(PATIENCE_S)
    for job in jobs[1:]:
        driver.submit(job)
    for job in jobs:
        job.gate.set()
    wait(*jobs)

    turns = [(name, len(list(run))) for name, run in groupby(happened(log, "step"))]
    alone_at_last = turns.pop()
    assert max(size for _, size in turns) <= QUANTUM_SLICES
    assert [name for name, _ in turns[:6]] == [0, 1, 2, 0, 1, 2]
    assert alone_at_last[0] == 2


def test_a_job_alone_is_never_put_aside(drive, log):
    driver, job = drive(), Scripted(log, "a", slices=5 * QUANTUM_SLICES)
    driver.submit(job)
    wait(job)

    assert driver.switches == 0


def test_only_so_many_jobs_are_under_way(drive, log):
    driver = drive()
    first = Scripted(log, 0, slices=2 * QUANTUM_SLICES, held=True)
    rest = [Scripted(log, n, slices=2 * QUANTUM_SLICES) for n in range(1, 3 * STARTED_PER_THREAD)]
    driver.submit(first)
    assert first.entered.wait(PATIENCE_S)
    for job in rest:
        driver.submit(job)
    assert driver.waiting == len(rest)
    first.gate.set()
    wait(first, *rest)

    under_way = most = 0
    for kind, _ in log:
        under_way += {"begin": 1, "end": -1}.get(kind, 0)
        most = max(most, under_way)
    assert most == STARTED_PER_THREAD
    assert sorted(happened(log, "end")) == list(range(3 * STARTED_PER_THREAD))


def test_two_threads_run_two_long_jobs_at_once(drive, log):
    driver = drive(threads=2)
    one, two = Scripted(log, 1, held=True), Scripted(log, 2, held=True)
    driver.submit(one)
    driver.submit(two)

    assert one.entered.wait(PATIENCE_S)
    assert two.entered.wait(PATIENCE_S)
    one.gate.set()
    two.gate.set()
    wait(one, two)


# ---------------------------------------------------------------------- sleep and cancel


def test_a_sleeper_gives_its_thread_away_and_goes_on_in_time(drive, log):
    driver, until = drive(), time.monotonic() + 0.2
    sleeper, other = Sleeper(log, "sleeper", until), Scripted(log, "other", slices=5)
    driver.submit(sleeper)
    driver.submit(other)
    wait(other, sleeper)

    assert happened(log, "end") == ["other", "sleeper"]
    assert time.monotonic() >= until


def test_a_sleeper_that_is_cancelled_ends_at_once(drive, log):
    driver, sleeper = drive(), Sleeper(log, "sleeper", time.monotonic() + 10_000)
    driver.submit(sleeper)
    assert sleeper.entered.wait(PATIENCE_S)

    driver.cancel(sleeper)
    driver.cancel(sleeper)

    wait(sleeper)
    assert happened(log, "end") == ["sleeper"]


def test_a_job_cancelled_while_it_runs_ends_at_its_next_slice(drive, log):
    driver, job = drive(), Scripted(log, "a", slices=10**9, held=True)
    driver.submit(job)
    assert job.entered.wait(PATIENCE_S)
    driver.cancel(job)
    job.gate.set()
    wait(job)

    assert log == [("begin", "a"), ("step", "a"), ("end", "a")]


def test_a_job_cancelled_while_it_waits_is_ended_at_once_whoever_holds_the_threads(drive, log):
    driver, busy, queued = drive(), Scripted(log, "busy", held=True), Scripted(log, "queued", slices=10**9)
    driver.submit(busy)
    assert busy.entered.wait(PATIENCE_S)
    driver.submit(queued)

    driver.cancel(queued)
    driver.cancel(queued)

    assert log == [("begin", "busy"), ("end", "queued")]
    assert driver.waiting == 0
    busy.gate.set()
    wait(busy)
    assert happened(log, "end") == ["queued", "busy"]


# ---------------------------------------------------------------------- close


def test_close_ends_queued_jobs_unbegun_and_lets_the_running_one_finish(log):
    driver, busy = ThreadScheduler(1), Scripted(log, "busy", slices=2, held=True)
    queued = [Scripted(log, n, slices=10**9) for n in range(20)]
    driver.submit(busy)
    assert busy.entered.wait(PATIENCE_S)
    for job in queued:
        driver.submit(job)
    closer = threading.Thread(target=driver.close)
    closer.start()
    while not driver._closing:
        time.sleep(0.001)
    busy.gate.set()
    closer.join(PATIENCE_S)

    assert not closer.is_alive()
    assert happened(log, "begin") == ["busy"]
    assert sorted(happened(log, "end"), key=str) == sorted(["busy", *range(20)], key=str)


def test_close_ends_the_threads_and_may_be_repeated(log):
    driver = ThreadScheduler(3)

    driver.close()
    driver.close()

    assert not any(thread.is_alive() for thread in driver._threads)
    with pytest.raises(RuntimeError, match="the driver is closing"):
        driver.submit(Scripted(log, "late"))
    assert log == []
