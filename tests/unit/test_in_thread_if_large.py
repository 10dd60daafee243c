import threading

import pytest
import trio

from evocell.concurrency import FEW_BYTES, in_thread_if_large

pytestmark = pytest.mark.trio


async def test_few_bytes_are_worked_on_at_once():
    assert await in_thread_if_large(FEW_BYTES, lambda one, two: (one + two, threading.get_ident()), 1, 2) == (
        3,
        threading.get_ident(),
    )


async def test_work_on_many_bytes_lets_the_loop_go_on():
    loop_went_on = threading.Event()

    async def elsewhere():
        loop_went_on.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(elsewhere)
        assert await in_thread_if_large(FEW_BYTES + 1, loop_went_on.wait, 20)


async def test_what_it_raises_comes_out():
    for size in (0, 1 << 20):
        with pytest.raises(ZeroDivisionError):
            await in_thread_if_large(size, divmod, 1, 0)
