from functools import partial

import pytest

from evocell.guests.deadline_watch import DeadlineWatch
from evocell.guests.guest import Fork, GuestJob
from evocell.guests.scratch import Scratch
from evocell.models.limits import Limits
from evocell_guest.decoding import decode
from evocell_guest.values import encode
from evocell_runtime.cache import ImageCache
from evocell_runtime.errors import ImageError
from evocell_runtime.image import open_image
from evocell_runtime.spec import ImageSpec

INFO = encode({"op": "info"})
HOUR_NS = 3_600_000_000_000


@pytest.fixture(scope="module")
def image():
    return open_image(ImageSpec(), ImageCache())


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def make(image):
    """Make jobs whose ends are counted in `job.ends`."""
    jobs = []
    watch = DeadlineWatch()

    def make(request=INFO, *, keep=False, realtime=False, fork=None, program=None, clock=None, **limits):
        bounds = Limits(**limits)
        ends = []

        def make_fork():
            made = Fork(image, app=None, harness=None, limits=bounds, make_scratch=Scratch().make)
            if program is not None:
                real = made.instance.start
                made.instance.start = lambda _, *rest, **options: real(program.encode(), *rest, **options)
            return made

        job = GuestJob(
            fork or make_fork,
            request,
            bounds,
            seed=1,
            realtime=realtime,
            keep=keep,
            done=lambda: ends.append(1),
            watch=watch,
            clock=clock or Clock(),
        )
        jobs.append((job, ends))
        return job, ends

    yield make
    for job, _ in jobs:
        if job.fork is not None:
            job.fork.close()
    watch.close()


def to_end(job):
    over = job.begin()
    while not over:
        over = job.step()
    job.end()


def test_a_request_is_answered_and_the_fork_thrown_away(make):
    job, ends = make()

    to_end(job)

    assert decode(job.result.response.unchecked())["t"] == "info"
    assert (job.fork, job.timed_out, job.unforked, job.undelivered, ends) == (None, False, None, None, [1])


def test_a_fork_that_is_kept_serves_the_next_job(make):
    first, _ = make(keep=True)
    to_end(first)
    second, _ = make(keep=True, fork=lambda: first.fork)
    to_end(second)

    assert second.fork is first.fork
    assert second.fork.instance.sound
    assert second.result.response is not None


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("keep", [False, True])
def test_a_cancelled_job_leaves_no_fork_and_no_result(make, descriptors, steps, keep):
    before = descriptors()
    job, ends = make(program="while True: pass", keep=keep)
    assert not job.begin()
    for _ in range(steps):
        assert not job.step()

    job.cancel()
    job.cancel()
    assert job.step()
    job.end()

    assert (job.fork, job.result, job.timed_out, ends) == (None, None, False, [1])
    assert descriptors() == before


def test_a_job_cancelled_before_it_begins_forks_nothing(make):
    job, ends = make(fork=lambda: pytest.fail("forked"))
    job.cancel()

    assert job.begin()
    job.end()

    assert (job.fork, job.result, ends) == (None, None, [1])


def test_a_job_that_is_ended_unbegun_is_done(make):
    job, ends = make()
    job.end()

    assert (job.fork, job.result, ends) == (None, None, [1])


def test_a_job_past_its_deadline_is_killed_and_marked(make, descriptors):
    before = descriptors()
    job, _ = make(program="while True: pass", keep=True, timeout_s=0.02, fuel=10**15)

    to_end(job)

    assert job.timed_out
    assert (job.result.returned, job.fork) == (False, None)
    assert job.result.ran_s >= 0.02
    assert descriptors() == before


def test_a_job_out_of_fuel_is_not_kept(make):
    job, _ = make(program="while True: pass", keep=True, fuel=20_000_000)

    to_end(job)

    assert (job.result.trap, job.fork, job.timed_out) == ("OUT_OF_FUEL", None, False)


def begin_sleep(job):
    over = job.begin()
    while not over and job.wake_at() is None:
        over = job.step()
    assert not over


def test_a_sleeping_guest_is_left_alone_until_its_time(make):
    clock = Clock()
    job, _ = make(program="import time; time.sleep(5); print('up')", realtime=True, clock=clock)
    begin_sleep(job)
    assert job.wake_at() == pytest.approx(1005.0, abs=0.01)

    clock.now = 1005.0
    while not job.step():
        pass
    job.end()

    assert job.result.stdout == b"up\n"
    assert job.result.ran_s >= 5.0
    assert not job.timed_out


def test_a_sleep_past_the_deadline_is_cut_there(make):
    clock = Clock()
    job, _ = make(program="import time; time.sleep(3600)", realtime=True, clock=clock, timeout_s=2.0)
    begin_sleep(job)
    assert 1000 < job.wake_at() <= 1002.0

    clock.now = 1002.0
    assert job.step()
    job.end()

    assert job.timed_out
    assert job.result.ran_s >= 2.0
    assert not job.result.returned


def test_a_sleeping_guest_that_is_cancelled_wants_to_go_on_at_once(make):
    job, _ = make(program="import time; time.sleep(3600)", realtime=True)
    begin_sleep(job)

    job.cancel()

    assert job.wake_at() is None
    assert job.step()
    job.end()
    assert (job.fork, job.result) == (None, None)


def test_in_the_deterministic_profile_a_sleep_takes_no_time(make):
    job, _ = make(program="import time; time.sleep(3600); print('up')")
    to_end(job)

    assert job.result.stdout == b"up\n"
    assert job.wake_at() is None


@pytest.mark.parametrize("trouble", [ImageError("no room"), OSError(24, "Too many open files")])
def test_no_fork_is_the_engines_trouble(make, trouble):
    def refuse():
        raise trouble

    job, ends = make(fork=refuse)
    to_end(job)

    assert (job.unforked, job.result, ends) == (trouble, None, [1])


def test_a_request_that_does_not_fit_is_not_delivered(make):
    job, _ = make(request=bytes(8 << 20), memory_bytes=1 << 20, keep=True)
    to_end(job)

    assert isinstance(job.undelivered, MemoryError)
    assert (job.fork, job.result) == (None, None)


def test_scratch_space_goes_with_its_fork(image, scratch_left):
    scratch = Scratch()
    make = partial(Fork, image, harness=None, limits=Limits(scratch_bytes=4096), make_scratch=scratch.make)
    fork = make(app=None)
    assert fork.scratch.is_dir()
    assert scratch_left() == 1

    fork.close()
    fork.close()

    assert not fork.scratch.exists()
    with pytest.raises(ImageError):
        make(app=fork.scratch)
    assert scratch_left() == 0
    scratch.close()
