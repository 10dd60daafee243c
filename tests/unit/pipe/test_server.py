"""What a server does with clients, good, bad and stuck, before there is any sandbox."""

import threading
from contextlib import suppress

import msgpack
import numpy as np
import pytest
import trio
import trio.testing

from evocell.errors import ImageError
from evocell.pipe import serving
from evocell.pipe.codec import MessageEncoder
from evocell.pipe.description import describe
from evocell.wire.frames import Response

pytestmark = pytest.mark.trio


async def until(condition):
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.01)


async def test_hello_is_answered_before_the_image_is_ready(connect, gate):
    client = await connect()
    answer = await client.hello(client="test")

    assert answer["protocol"] == 1
    assert answer["image"] == {"ready": False, "image_id": None, "slots": None}
    assert answer["limits"]["max_in_flight"] == 4
    assert answer["session"]["key"] is None
    gate.step.set()
    kind, method, params = await client.get()
    assert (kind, method) == (2, "image.progress")
    assert params[0]["step"] == "compile"
    assert params[0]["eta_s"] == 36.0


async def test_who_comes_after_the_image_has_failed_is_told_so(connect, gate, server):
    gate.fail = ImageError("no room on the disk", "/cache")
    gate.step.set()
    while server.failure is None:
        await trio.testing.wait_all_tasks_blocked()
    client = await connect()
    greeting = await client.hello()
    assert not greeting["image"]["ready"]
    _, method, params = await client.get()
    assert (method, params[0]["code"]) == ("image.failed", "ImageError")


async def test_requests_wait_for_the_image_and_fail_with_what_it_failed_of(connect, gate):
    client = await connect()
    await client.hello()
    await client.send(0, 1, "list_sandboxes", [{}])
    assert (await client.ask("ping", 2))[:3] == [1, 2, None]  # others are answered meanwhile
    gate.fail = ImageError("no room on the disk", "/cache")
    gate.step.set()
    found = [await client.get() for _ in range(3)]

    assert [one[1] for one in found[:2]] == ["image.progress", "image.failed"]
    assert found[1][2][0]["code"] == "ImageError"
    assert found[2][:3] == [
        1,
        1,
        {"code": "ImageError", "message": "no room on the disk", "data": {"path": "/cache"}},
    ]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xc1", "begins no value"),
        (b"GET / HTTP/1.1\r\n\r\n", "none of"),
        (msgpack.packb([0, 1, "run", [{}]]), "first message must be the request 'hello'"),
        (msgpack.packb([2, "cancel", [{"msgid": 1}]]), "first message must be"),
        (b"\xc6\x7f\xff\xff\xff", "longer than 65,536 bytes"),
    ],
)
async def test_a_malformed_frame_ends_that_connection_with_a_reason_and_no_other(connect, data, why):
    good, bad = await connect(), await connect()
    await good.hello()
    await bad.stream.send_all(data)
    kind, method, (reason,) = await bad.get()

    assert (kind, method, reason["code"]) == (2, "closing", "ProtocolError")
    assert why in reason["message"]
    assert await bad.get() is None
    assert (await good.ask("ping"))[2] is None


async def test_a_message_cut_short_is_named(connect):
    client = await connect()
    await client.hello()
    await client.stream.send_all(b"\x94\x00\x01")
    await client.stream.send_eof()
    assert (await client.get())[2][0]["message"].startswith("the stream ended inside a message")


async def test_silence_is_not_waited_for(connect):
    client = await connect()
    assert "no hello within" in (await client.get())[2][0]["message"]
    assert await client.get() is None


async def test_another_protocol_is_refused_with_the_ones_there_are(connect):
    client = await connect()
    answer = await client.ask("hello", protocol=99)
    assert answer[2]["code"] == "UnsupportedProtocol"
    assert answer[2]["data"] == {"supported": [1]}
    assert (await client.get())[1] == "closing"
    assert await client.get() is None


@pytest.mark.parametrize("given", [{}, {"token": "wrong"}, {"token": "séquence"}])
async def test_a_wrong_token_is_refused(connect, given):
    client = await connect(token="a" * 20)
    assert (await client.ask("hello", protocol=1, **given))[2]["code"] == "Unauthorized"
    assert (await client.get())[1] == "closing"


async def test_the_right_token_is_let_in(connect):
    client = await connect(token="a" * 20)
    assert (await client.hello(token="a" * 20))["protocol"] == 1


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"protocl": 1}, "hello.protocl"),
        ({"types": {"tuples": "tuple"}}, "hello.types.tuples"),
        ({"namespace": "../x"}, "hello.namespace"),
        ({"attach": "nothing"}, "attach"),
    ],
)
async def test_a_bad_hello_names_its_part(connect, given, key):
    client = await connect()
    answer = await client.ask("hello", **given)
    assert (answer[2]["code"], answer[2]["data"]["key"]) == ("ConfigurationError", key)


async def test_errors_are_answers_and_the_connection_goes_on(connect):
    client = await connect()
    await client.hello()
    assert (await client.ask("nothing"))[2]["code"] == "MethodNotFound"
    assert (await client.ask("ping", x=1))[2]["code"] == "ConfigurationError"
    assert (await client.ask("run", id="a"))[2]["data"] == {"key": "entry"}
    assert (await client.ask("ping"))[2] is None


async def test_one_request_too_many_is_busy(connect):
    client = await connect()
    await client.hello()
    for msgid in range(5):
        await client.send(0, msgid, "list_sandboxes", [{}])
    answer = await client.get()
    assert answer[:2] == [1, 4]
    assert answer[2]["code"] == "Busy"
    assert answer[2]["data"] == {"limit": 4}


async def test_requests_that_keep_threads_waiting_are_bounded(connect):
    client = await connect()
    await client.hello()
    evaluation = {"entry": "f", "cases": [{}], "score": {"function": "f"}}
    for msgid in range(3):
        await client.send(0, msgid, "evaluate_one", [{"source": "", "evaluation": evaluation}])
    answer = await client.get()
    assert answer[0] == 1  # any of the three: requests run at the same time
    assert (answer[2]["code"], answer[2]["data"]) == ("Busy", {"limit": 2})


async def test_a_request_is_cancelled(connect):
    client = await connect()
    await client.hello()
    await client.send(0, 1, "list_sandboxes", [{}])
    await client.send(2, "cancel", [{"msgid": 1}])
    assert (await client.get())[2]["code"] == "RequestCancelled"
    await client.send(2, "cancel", [{"msgid": 1}])  # too late, or never there: nothing happens
    assert (await client.ask("ping"))[2] is None


async def test_a_stuck_reader_is_bounded_and_cut_off(server):
    """It asks and never reads: what waits for it stays under the bound, and then it is gone."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    raised = []
    async with trio.open_nursery() as nursery:

        async def serve():
            async with theirs:
                raised.append(await server.serve(theirs, theirs))

        most = 0

        async def watch():
            nonlocal most
            while not raised:
                most = max([most, *(c.channel.unsent_bytes for c in server._connections)])
                await trio.sleep(0.005)

        nursery.start_soon(serve)
        nursery.start_soon(watch)
        with trio.fail_after(20):
            await ours.send_all(msgpack.packb([0, 0, "hello", [{}]]))
            await ours.receive_some(4096)
            # Answers of some 30 kB each, to a reader who takes none.
            with suppress(trio.BrokenResourceError):
                for msgid in range(1, 10_000):
                    await ours.send_all(msgpack.packb([0, msgid, "describe", [{}]]))
            await until(lambda: raised)
    size = len(msgpack.packb(describe()))
    assert 0 < most <= (64 << 10) + 2 * size
    assert "has read nothing for 0.2 s" in str(raised[0])
    assert not server.session_names


async def test_there_may_be_so_many_sessions_and_no_more(connect, server):
    clients = [await connect() for _ in range(4)]
    for client in clients[:3]:
        await client.hello()
    assert (await clients[3].ask("hello"))[2]["code"] == "CapacityError"
    await clients[0].stream.aclose()
    await until(lambda: not (len(server.session_names) > 2))
    await (await connect()).hello()


async def test_a_session_ends_with_its_connection(connect, server):
    client = await connect()
    await client.hello()
    assert server.session_names == ["session-1"]
    await client.stream.aclose()
    await until(lambda: not server.session_names)


async def test_a_detached_session_waits_for_its_owner_and_not_for_ever(connect, server):
    client = await connect()
    key = (await client.hello(detach=True))["session"]["key"]
    await client.stream.aclose()
    await trio.testing.wait_all_tasks_blocked()
    again = await connect()
    answer = await again.hello(attach=key)
    assert answer["session"]["attached"]
    assert answer["session"]["name"] == "session-1"
    await trio.sleep(0.3)  # longer than it would wait without an owner
    assert server.session_names == ["session-1"]
    await again.stream.aclose()
    await until(lambda: not server.session_names)


async def test_attaching_twice_ends_the_first_connection(connect):
    first = await connect()
    key = (await first.hello(detach=True))["session"]["key"]
    second = await connect()
    await second.hello(attach=key)
    assert "attached by another" in (await first.get())[2][0]["message"]
    assert (await second.ask("ping"))[2] is None


async def test_a_shutdown_is_answered_when_all_is_gone(connect, server):
    client = await connect()
    await client.hello(detach=True)
    assert (await client.ask("shutdown"))[:3] == [1, 7, None]
    assert server.session_names == []
    assert (await client.get())[1] == "closing"


async def test_packets_have_their_length_before_them(connect):
    client = await connect(framing="packet4")
    message = msgpack.packb([0, 0, "hello", [{}]])
    await client.stream.send_all(len(message).to_bytes(4, "big") + message)
    data = await client.stream.receive_some(65536)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert msgpack.unpackb(data[4:])[:3] == [1, 0, None]


async def test_the_description_is_the_same_over_the_pipe(connect):
    client = await connect()
    await client.hello()
    assert (await client.ask("describe"))[3] == describe()


async def test_idle_connections_keep_no_client_out(patient):
    greeted = await patient()
    await greeted.hello()
    idle = [await patient() for _ in range(12)]
    await trio.sleep(0.3)
    late = await patient()
    assert (await late.hello())["protocol"] == 1
    for one in idle[:9]:
        closing, (reason,) = (await one.get())[1:]
        assert (closing, reason["code"]) == ("closing", "Busy")
    await idle[0].stream.send_all(b"x")
    assert (await greeted.ask("ping"))[2] is None


async def test_a_crowd_is_bounded_at_once(patient):
    idle = [await patient() for _ in range(60)]
    assert (await idle[0].get())[2][0]["code"] == "Busy"
    assert (await idle[-1].hello())["protocol"] == 1


async def test_long_messages_are_made_in_a_thread_and_short_ones_are_not(connect, monkeypatch):
    client = await connect()
    await client.hello()
    made = []
    encode = MessageEncoder.encode

    def noted(self, message):
        made.append((threading.current_thread() is threading.main_thread(), type(message)))
        return encode(self, message)

    monkeypatch.setattr(MessageEncoder, "encode", noted)
    await client.ask("ping", 1)
    assert made == [(True, Response)]
    del made[:]
    assert (await client.ask("describe", 2))[2] is None
    assert made == [(False, Response)]


async def test_an_answer_that_is_too_long_is_an_error_of_the_request(connect, server, monkeypatch):
    client = await connect()
    await client.hello()
    monkeypatch.setattr(serving, "describe", lambda: {"array": np.zeros((1 << 26, 0)), "more": [1] * 9000})
    answer = await client.ask("describe", 3)
    assert answer[:2] == [1, 3]
    assert "more than the limit of 67,108,864 bytes" in answer[2]["message"]
    assert (await client.ask("ping", 4))[2] is None
