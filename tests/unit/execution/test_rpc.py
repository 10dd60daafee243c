"""Requests over a pair of streams: answered in any order, cancelled for certain, lost by name."""

import pytest
import trio
import trio.testing
from tests.unit.execution.handler import Handler

from evocell.execution.rpc import Connection, ConnectionLost, RequestFailed
from evocell.wire.frames import Notification, Request, encode_message

pytestmark = pytest.mark.trio


def ends():
    here, there = trio.testing.memory_stream_pair()
    return here, there


@pytest.fixture
async def pair():
    here, there = ends()
    handler = Handler()
    client, server = Connection(here, here), Connection(there, there, handler)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.serve)
        nursery.start_soon(server.serve)
        yield client, server, handler, here
        nursery.cancel_scope.cancel()


async def test_answers_come_in_any_order(pair):
    client, _, handler, _ = pair
    seen = []

    async def ask(method, value):
        seen.append(await client.request(method, {"value": value}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "wait", "late")
        await trio.testing.wait_all_tasks_blocked()
        await ask("echo", "early")
        handler.gate.set()
    assert seen == ["early", "late"]
    assert client.waiting == 0


async def test_an_error_is_told(pair):
    with pytest.raises(RequestFailed, match="it cannot be"):
        await pair[0].request("fail", {})
    assert await pair[0].request("echo", {"value": 1}) == 1


async def test_a_cancelled_request_is_stopped_over_there(pair):
    client, _, handler, _ = pair
    with trio.move_on_after(0.01):
        await client.request("wait", {})
    assert (handler.cancelled, client.waiting) == (1, 0)
    assert await client.request("echo", {"value": 2}) == 2


async def test_a_cancellation_that_arrives_with_its_request_is_not_lost():
    """Both in one read: the task that answers has not run when the cancellation is seen."""
    here, there = ends()
    handler = Handler()
    server = Connection(there, there, handler)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve)
            await here.send_all(
                encode_message(Request(7, "wait", {})) + encode_message(Notification("cancel", {"msgid": 7}))
            )
            answer = await here.receive_some(1000)
            assert b"cancelled" in answer
            nursery.cancel_scope.cancel()


async def test_what_waits_when_the_other_side_goes_is_lost_by_name(pair):
    client, _, _, here = pair
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def ask():
                with pytest.raises(ConnectionLost):
                    await client.request("wait", {})

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert not client.is_lost
            await here.aclose()
    assert client.is_lost
    with pytest.raises(ConnectionLost):
        await client.request("echo", {})


async def test_a_request_that_was_answered_at_once_leaves_nothing_to_stop():
    here, there = ends()
    taken = []

    def quick(method, params, answer):
        taken.append(method)
        answer(None, "at once")
        return bool

    client, server = Connection(here, here), Connection(there, there, Handler(), quick=quick)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.serve)
        nursery.start_soon(server.serve)
        for _ in range(3):
            assert await client.request("run", {}) == "at once"
        assert taken == ["run"] * 3
        assert server.stoppable == 0
        nursery.cancel_scope.cancel()
