"""Calls that do not pause are ended at their deadline, and others are left alone."""

import threading

import pytest

from evocell.guests.deadline_watch import DeadlineWatch


class Loop:
    """A call that does not pause: its fuel has to be taken away so many times before it ends."""

    def __init__(self, takes):
        self._left = threading.Semaphore(0)
        self._takes = takes
        self.exhausted = 0

    def poll(self):
        for _ in range(self._takes):
            assert self._left.acquire(timeout=30)
        return True

    def exhaust(self):
        self.exhausted += 1
        self._left.release()


@pytest.fixture
def watch():
    made = DeadlineWatch()
    yield made
    made.close()


@pytest.mark.parametrize("takes", [1, 3])
def test_a_call_past_its_deadline_loses_its_fuel_until_it_ends(watch, takes):
    call = Loop(takes)

    assert watch.poll(call, 0.0) == (True, True)
    assert call.exhausted >= takes


def test_a_call_within_its_deadline_is_left_alone(watch):
    call = Loop(0)

    assert watch.poll(call, 60.0) == (True, False)
    assert watch.poll(call, 60.0) == (True, False)
    assert call.exhausted == 0


def test_a_call_that_was_ended_is_not_held_against_its_next_slice(watch):
    call = Loop(1)
    assert watch.poll(call, 0.0) == (True, True)

    call._takes = 0
    assert watch.poll(call, 60.0) == (True, False)


def test_each_of_several_calls_has_its_own_deadline(watch):
    late, early = Loop(1), Loop(1)
    answers = {}
    thread = threading.Thread(target=lambda: answers.update(late=watch.poll(late, 60.0)))
    thread.start()

    answers["early"] = watch.poll(early, 0.0)
    assert late.exhausted == 0
    late.exhaust()
    thread.join(timeout=30)

    assert answers == {"early": (True, True), "late": (True, False)}


def test_the_thread_ends_with_the_watch_also_while_it_sleeps(monkeypatch):
    monkeypatch.setattr("evocell.guests.deadline_watch._LINGER_TICKS", 0)
    watch = DeadlineWatch()
    watch.poll(Loop(0), 60.0)
    thread = watch._thread
    while not watch._hibernated:
        threading.Event().wait(0.001)

    assert watch.poll(Loop(1), 0.0) == (True, True)  # it wakes for the next
    watch.close()
    watch.close()

    assert not thread.is_alive()
