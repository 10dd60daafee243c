"""Jobs on the event loop's own thread: the loop gets its turns, and nothing is left."""

import pytest
import trio
import trio.testing

from evocell.guests.loop_scheduler import MOST_ENDED, LoopScheduler
from evocell.guests.run_queue import QUANTUM_SLICES, STARTED_PER_THREAD

pytestmark = pytest.mark.trio


class Scripted:
    """A job of so many slices that writes down what is done with it."""

    def __init__(self, log, name, slices=1, sleep_until=None):
        self.log, self.name, self.slices = log, name, slices
        self.sleep_until = sleep_until
        self.cancelled = False
        self.ended = trio.Event()

    def begin(self):
        self.log.append(("begin", self.name))
        return self.cancelled or self.slices == 0

    def step(self):
        self.log.append(("step", self.name))
        self.slices -= 1
        self.sleep_until = None if self.slices == 1 else self.sleep_until
        return self.cancelled or self.slices <= 0

    def wake_at(self):
        return None if self.cancelled or self.slices != 1 else self.sleep_until

    def cancel(self):
        self.cancelled = True

    def end(self, *, frees_later=False):
        self.log.append(("end", self.name))
        self.ended.set()


class Sleeper(Scripted):
    def step(self):
        until = self.sleep_until
        over = super().step()
        self.sleep_until = until if self.slices == 1 else None
        return over


@pytest.fixture
def log():
    return []


@pytest.fixture
async def driver():
    made = LoopScheduler()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.serve)
            yield made
            nursery.cancel_scope.cancel()
    await made.aclose()


def happened(log, what):
    return [name for kind, name in log if kind == what]


async def test_short_jobs_run_whole_and_in_order(driver, log):
    jobs = [Scripted(log, n) for n in range(5)]
    for job in jobs:
        driver.submit(job)
    assert log == []
    await jobs[-1].ended.wait()

    assert [name for _, name in log] == [n for n in range(5) for _ in range(3)]
    assert (driver.switches, driver.waiting) == (0, 0)


async def test_a_job_with_nothing_to_run_is_ended_unstepped(driver, log):
    job = Scripted(log, "a", slices=0)
    driver.submit(job)
    await job.ended.wait()

    assert log == [("begin", "a"), ("end", "a")]


async def test_the_loop_gets_a_turn_between_two_slices_of_a_long_job(driver, log):
    job = Scripted(log, "a", slices=50)
    driver.submit(job)
    turns = 0
    while not job.ended.is_set():
        await trio.lowlevel.checkpoint()
        turns += 1

    assert turns >= 49


async def test_a_fresh_job_goes_before_a_long_one_that_has_had_its_quantum(driver, log):
    long, short = Scripted(log, "long", slices=10 * QUANTUM_SLICES), Scripted(log, "short", slices=2)
    driver.submit(long)
    await trio.lowlevel.checkpoint()
    driver.submit(short)
    await long.ended.wait()

    assert happened(log, "end") == ["short", "long"]
    assert log[: log.index(("begin", "short"))].count(("step", "long")) <= QUANTUM_SLICES
    assert driver.switches >= 1


async def test_only_so_many_jobs_are_under_way(driver, log):
    jobs = [Scripted(log, n, slices=2 * QUANTUM_SLICES) for n in range(3 * STARTED_PER_THREAD)]
    for job in jobs:
        driver.submit(job)
    for job in jobs:
        await job.ended.wait()

    under_way = most = 0
    for kind, _ in log:
        under_way += {"begin": 1, "end": -1}.get(kind, 0)
        most = max(most, under_way)
    assert most == STARTED_PER_THREAD


async def test_a_sleeper_lets_others_run_and_goes_on_in_time(log):
    now = [100.0]
    driver = LoopScheduler(clock=lambda: now[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.serve)
        sleeper, other = Sleeper(log, "sleeper", 2, sleep_until=100.5), Scripted(log, "other")
        driver.submit(sleeper)
        driver.submit(other)
        await other.ended.wait()
        assert not sleeper.ended.is_set()
        now[0] = 101.0
        with trio.fail_after(10):
            await sleeper.ended.wait()
        nursery.cancel_scope.cancel()
    await driver.aclose()
    assert happened(log, "end") == ["other", "sleeper"]


async def test_a_job_cancelled_while_it_waits_ends_at_once(driver, log):
    job = Scripted(log, "a")
    driver.submit(job)
    driver.cancel(job)
    driver.cancel(job)

    assert log == [("end", "a")]


async def test_a_running_or_sleeping_job_that_is_cancelled_ends_at_its_next_slice(driver, log):
    long, sleeper = Scripted(log, "long", slices=10**9), Sleeper(log, "sleeper", 2, sleep_until=1e12)
    driver.submit(sleeper)
    driver.submit(long)
    while ("step", "long") not in log:
        await trio.lowlevel.checkpoint()
    driver.cancel(long)
    driver.cancel(sleeper)
    await long.ended.wait()
    await sleeper.ended.wait()

    assert sorted(happened(log, "end")) == ["long", "sleeper"]


async def test_closing_ends_all_jobs_wherever_they_are(log):
    driver = LoopScheduler()
    running, queued = Scripted(log, "running", slices=10**9), Scripted(log, "queued")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.serve)
        driver.submit(Sleeper(log, "sleeper", 2, sleep_until=1e12))
        driver.submit(running)
        while log.count(("step", "running")) < 2:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    driver.submit(queued)
    await driver.aclose()
    await driver.aclose()

    assert sorted(happened(log, "end")) == ["queued", "running", "sleeper"]
    with pytest.raises(RuntimeError, match="the driver is closing"):
        driver.submit(Scripted(log, "late"))


async def test_closing_while_it_runs_ends_the_running_job_once(log):
    driver = LoopScheduler()
    running = Scripted(log, "running", slices=10**9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.serve)
        driver.submit(running)
        while ("step", "running") not in log:
            await trio.lowlevel.checkpoint()
        await driver.aclose()

    assert happened(log, "end") == ["running"]


async def test_what_ended_is_told_before_the_last_waiting_job_and_before_every_pause(driver, log):
    driver.on_pause = lambda: log.append(("pause", ""))
    jobs = [Scripted(log, n) for n in range(3)]
    for job in jobs:
        driver.submit(job)
    await jobs[-1].ended.wait()
    await trio.testing.wait_all_tasks_blocked()

    kinds = [kind for kind, name in log if kind == "pause" or (kind, name) in {("end", n) for n in range(3)}]
    assert kinds == ["end", "end", "pause", "end", "pause", "pause"]


class Wiped(Scripted):
    """A job whose fork is wiped after its result was delivered."""

    def end(self, *, frees_later=False):
        super().end()
        if frees_later:
            return lambda: self.log.append(("wipe", self.name))
        self.log.append(("wipe", self.name))
        return None


async def test_a_job_that_comes_with_a_result_goes_before_the_wiping(driver, log):
    first, second = Wiped(log, "first"), Wiped(log, "second")
    unread = [second]
    driver.expects_job = lambda: True
    driver.has_input = lambda: bool(unread)

    async def reader():
        await first.ended.wait()
        driver.submit(unread.pop())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        driver.submit(first)
        await second.ended.wait()
    await trio.testing.wait_all_tasks_blocked()

    order = [entry for entry in log if entry[0] in {"begin", "wipe"}]
    assert order == [("begin", "first"), ("begin", "second"), ("wipe", "first"), ("wipe", "second")]


async def test_where_none_is_expected_each_is_wiped_at_once(driver, log):
    one = Wiped(log, "one")
    driver.submit(one)
    await one.ended.wait()

    assert log[-1] == ("wipe", "one")


async def test_where_jobs_wait_each_is_wiped_at_once_and_never_many_are_left(driver, log):
    driver.expects_job = lambda: True
    jobs = [Wiped(log, number) for number in range(3)]
    for job in jobs:
        driver.submit(job)
    await jobs[-1].ended.wait()
    for number in range(3, 10):
        one = Wiped(log, number)
        driver.submit(one)
        await one.ended.wait()
        left = sum(kind == "end" for kind, _ in log) - sum(kind == "wipe" for kind, _ in log)
        assert left <= MOST_ENDED + 1
    await trio.testing.wait_all_tasks_blocked()

    assert log.index(("wipe", 0)) < log.index(("begin", 1))
    assert sorted(name for kind, name in log if kind == "wipe") == list(range(10))


async def test_closing_wipes_what_has_ended(driver, log):
    driver.expects_job = lambda: True
    one = Wiped(log, "one")
    driver.submit(one)
    await one.ended.wait()
    await driver.aclose()

    assert log[-1] == ("wipe", "one")
    assert log.count(("wipe", "one")) == 1
