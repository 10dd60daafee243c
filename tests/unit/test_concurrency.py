"""Bounded concurrency: order, bound, and bare exceptions."""

import pytest
import trio

from evocell.concurrency import map_bounded

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
