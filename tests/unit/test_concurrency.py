"""Bounded concurrency: order, bound, and bare exceptions."""

from functools import partial

import pytest
import trio

from evocell.concurrency import Deadline, Turns, both, map_bounded

pytestmark = pytest.mark.trio


async def test_results_come_in_order_and_never_too_many_at_once(autojump_clock):
    running = most = 0

    async def work(item):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(10 - item)
        running -= 1
        return item * 2

    assert await map_bounded(work, range(8), at_once=3) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert most == 3


async def test_the_first_failure_arrives_bare_and_cancels_the_rest(autojump_clock):
    cancelled = []

    async def work(item):
        if item == 1:
            raise ValueError("one")
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(item)

    with pytest.raises(ValueError, match="one"):
        await map_bounded(work, range(5), at_once=2)
    assert cancelled == [0]


async def test_nothing_to_do():
    assert await map_bounded(trio.sleep, [], at_once=4) == []


async def test_two_run_at_once_and_either_failure_arrives_bare(autojump_clock):
    begun = []

    async def work(name, seconds, error=None):
        begun.append(name)
        await trio.sleep(seconds)
        if error is not None:
            raise error
        return name

    start = trio.current_time()
    assert await both(partial(work, "a", 3), partial(work, "b", 2)) == ("a", "b")
    assert (begun, trio.current_time() - start) == (["a", "b"], 3)
    for first, second in ((ValueError("one"), None), (None, ValueError("one"))):
        start = trio.current_time()
        with pytest.raises(ValueError, match="one"):
            await both(
                partial(work, "a", 1 if first else 9, first), partial(work, "b", 1 if second else 9, second)
            )
        assert trio.current_time() - start == 1, "the other went on"
    with trio.move_on_after(1) as scope:
        await both(partial(work, "a", 9), partial(work, "b", 9))
    assert scope.cancelled_caught


class Slots:
    """A number that may change."""

    def __init__(self, slots):
        self.slots = slots
        self._changed = trio.Event()

    def become(self, slots):
        self.slots = slots
        self._changed.set()
        self._changed = trio.Event()

    async def wait_slots(self, seen):
        while self.slots == seen:
            await self._changed.wait()
        return self.slots


async def test_more_run_at_once_when_there_are_more_slots(autojump_clock):
    slots = Slots(2)
    turns = Turns(slots)
    running, most = 0, []

    async def work(item):
        nonlocal running
        async with turns:
            running += 1
            most.append(running)
            if item == 3:
                slots.become(5)
            if item == 20:
                slots.become(1)
            await trio.sleep(1)
            running -= 1
        return item

    assert await map_bounded(work, range(40), at_once=3, grows_with=slots) == list(range(40))
    assert max(most[:4]) == 2
    assert max(most) == 5
    assert max(most[-10:]) == 1


@pytest.mark.parametrize("_again", range(20))
async def test_slots_may_grow_as_the_last_item_ends(_again):
    slots = Slots(1)

    async def work(item):
        if item == 2:
            slots.become(5)
        return item

    assert await map_bounded(work, range(3), at_once=1, grows_with=slots) == [0, 1, 2]


async def test_a_deadline_moves_while_its_clock_is_stopped(autojump_clock):
    deadline, over = Deadline(10), []

    async def wait(seconds):
        with deadline.scope():
            await trio.sleep(seconds)
            over.append(seconds)

    async def stop(begin, seconds):
        await trio.sleep(begin)
        with deadline.stopped():
            await trio.sleep(seconds)

    async with trio.open_nursery() as nursery:
        for seconds in (9, 39, 41):
            nursery.start_soon(wait, seconds)
        nursery.start_soon(stop, 5, 20)
        nursery.start_soon(stop, 15, 20)
    assert over == [9, 39]
    with deadline.scope() as late:
        await trio.sleep(1)
    assert late.cancelled_caught


async def test_a_deadline_without_end_never_cancels(autojump_clock):
    deadline = Deadline(float("inf"))
    with deadline.scope() as scope, deadline.stopped():
        await trio.sleep(10_000)
    assert not scope.cancelled_caught
