"""The doors into a trio loop: what a call that is cancelled in it comes to."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from evocell import EngineClosed
from evocell.api.portal import TrioThread


@pytest.fixture
def thread():
    @asynccontextmanager
    async def nothing():
        yield None

    made = TrioThread(nothing, name="test")
    yield made
    made.close()


async def in_nurseries(begun):
    """As a batch waits: the cancellation comes out of it in a group."""
    async with trio.open_nursery() as outer:
        outer.start_soon(trio.sleep_forever)
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            inner.start_soon(trio.sleep_forever)
            begun.set()


async def failing_as_it_is_cancelled(begun):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")


def start(thread, function):
    async def make():
        return trio.Event()

    begun = thread.call(make)
    task = thread.submit(lambda: function(begun))
    thread.call(begun.wait)
    return task


def test_a_cancelled_call_is_no_failure_of_nurseries(thread):
    task = start(thread, in_nurseries)
    task.cancel()
    with pytest.raises(EngineClosed):
        task.future.result(10)


def test_a_call_under_way_when_the_loop_is_closed(thread):
    task = start(thread, in_nurseries)
    thread.close()
    with pytest.raises(EngineClosed):
        task.future.result(10)


def test_what_fails_on_the_way_out_is_told(thread):
    task = start(thread, failing_as_it_is_cancelled)
    task.cancel()
    with pytest.raises(ExceptionGroup) as raised:
        task.future.result(10)
    assert raised.group_contains(ValueError, match="on the way out")
    assert not raised.group_contains(trio.Cancelled)
