"""Messages into a pipe: in order and whole, also when it is full and when its reader is gone."""

import os

import pytest
import trio
import trio.testing

from evocell.execution.rpc import Outgoing

pytestmark = pytest.mark.trio


@pytest.fixture
async def pipe():
    source, sink = os.pipe()
    async with (
        trio.lowlevel.FdStream(source) as receive,
        trio.lowlevel.FdStream(sink) as send,
        trio.open_nursery() as nursery,
    ):
        outgoing = Outgoing(send)
        nursery.start_soon(outgoing.serve)
        yield outgoing, receive
        nursery.cancel_scope.cancel()


async def read(stream, size):
    data = b""
    while len(data) < size:
        data += await stream.receive_some(size - len(data))
    return data


async def test_a_pipe_with_room_takes_a_message_at_once(pipe):
    outgoing, receive = pipe
    outgoing.put(b"one")
    outgoing.put(b"two")
    assert os.read(receive.fileno(), 10) == b"onetwo"
    assert outgoing.put_bytes == 6


async def test_what_is_held_goes_out_with_the_next_or_when_it_is_released(pipe):
    outgoing, receive = pipe
    outgoing.hold(b"one")
    outgoing.hold(b"two")
    with pytest.raises(BlockingIOError):
        os.read(receive.fileno(), 10)
    outgoing.put(b"three")
    assert os.read(receive.fileno(), 20) == b"onetwothree"
    outgoing.hold(b"four")
    outgoing.release()
    outgoing.release()
    assert os.read(receive.fileno(), 20) == b"four"
    assert outgoing.put_bytes == 15


async def test_messages_stay_in_order_when_the_pipe_is_full(pipe):
    outgoing, receive = pipe
    messages = [bytes([n]) * 50_000 for n in range(20)]
    for message in messages:
        outgoing.put(message)

    with trio.fail_after(10):
        assert await read(receive, 50_000 * 20) == b"".join(messages)
        await outgoing.written()
        outgoing.put(b"after")
        assert await read(receive, 5) == b"after"


async def test_waiting_for_room_may_be_cancelled_and_the_message_goes_out(pipe):
    outgoing, receive = pipe
    outgoing.put(bytes(1 << 20))
    with trio.move_on_after(0.01) as scope:
        await outgoing.written()
    assert scope.cancelled_caught
    with trio.fail_after(10):
        assert len(await read(receive, 1 << 20)) == 1 << 20


async def test_a_reader_that_is_gone_keeps_nobody_waiting(pipe):
    outgoing, receive = pipe
    outgoing.put(bytes(1 << 20))
    await receive.aclose()
    with trio.fail_after(10):
        await outgoing.written()
        outgoing.put(b"more")
        await outgoing.written()


async def test_other_streams_are_written_to_by_the_loop():
    near, far = trio.testing.memory_stream_pair()
    outgoing = Outgoing(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outgoing.serve)
        outgoing.put(b"one")
        await outgoing.written()
        assert await far.receive_some(10) == b"one"
        nursery.cancel_scope.cancel()


async def test_nobody_waits_for_what_will_not_be_written_any_more():
    source, sink = os.pipe()
    async with trio.lowlevel.FdStream(source), trio.lowlevel.FdStream(sink) as send:
        outgoing = Outgoing(send)
        outgoing.put(bytes(1 << 20))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outgoing.written)
            async with trio.open_nursery() as serving:
                serving.start_soon(outgoing.serve)
                await trio.testing.wait_all_tasks_blocked()
                serving.cancel_scope.cancel()
            with trio.fail_after(60):
                await outgoing.written()
                outgoing.put(b"more")
                await outgoing.written()
