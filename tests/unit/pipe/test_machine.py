"""The rules of a connection, without one: what may come when, and what is said when it may not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evocell.errors import ProtocolError, SandboxNotFound
from evocell.pipe.codec import TypeOptions
from evocell.pipe.errors import Busy, ConnectionClosed
from evocell.pipe.limits import PipeLimits
from evocell.pipe.machine import (
    Answered,
    Greeted,
    Machine,
    NotificationReceived,
    Phase,
    Refused,
    RequestReceived,
    RequestWithdrawn,
)
from evocell.wire.frames import Notification, Request, Response, encode_message

FEW = PipeLimits(max_in_flight=2, max_in_flight_bytes=1000)


def pair(limits=None, framing="stream"):
    """A client and a server that have said hello."""
    client, server = Machine("client", limits, framing=framing), Machine("server", limits, framing=framing)
    _, data = client.request("hello", {"protocol": 1})
    (greeted,) = server.receive(data)
    assert isinstance(greeted, Greeted)
    (answered,) = client.receive(server.accept(greeted.msgid, {"protocol": 1}, TypeOptions()))
    assert answered == Answered(greeted.msgid, None, {"protocol": 1})
    assert client.phase is server.phase is Phase.OPEN
    return client, server


def frames(*messages):
    return b"".join(map(encode_message, messages))


@pytest.mark.parametrize("framing", ["stream", "packet4"])
def test_a_request_is_answered(framing):
    client, server = pair(framing=framing)
    msgid, data = client.request("run", {"x": (1, 2)})

    assert list(server.receive(data)) == [RequestReceived(msgid, "run", {"x": (1, 2)})]
    assert (client.waiting, server.in_flight) == (1, 1)
    assert list(client.receive(server.respond(msgid, [1]))) == [Answered(msgid, None, [1])]
    assert (client.waiting, server.in_flight) == (0, 0)


def test_an_error_comes_back_as_what_it_was():
    client, server = pair()
    msgid, data = client.request("run", {})
    list(server.receive(data))

    (answered,) = client.receive(server.fail(msgid, SandboxNotFound("a", "try b")))
    assert isinstance(answered.error, SandboxNotFound)
    assert (answered.error.sandbox_id, answered.error.hint) == ("a", "try b")


def test_both_ends_ask():
    client, server = pair()
    msgid, data = server.request("call", {"function": "f"})
    assert list(client.receive(data)) == [RequestReceived(msgid, "call", {"function": "f"})]
    assert list(server.receive(client.respond(msgid, 1.5))) == [Answered(msgid, None, 1.5)]


def test_a_withdrawn_request_is_answered_all_the_same():
    client, server = pair()
    msgid, data = client.request("run", {})
    assert list(server.receive(data + client.cancel(msgid)))[1] == RequestWithdrawn(msgid)
    assert client.waiting == server.in_flight == 1


def test_one_request_too_many_is_refused_and_the_next_one_is_not():
    client, server = pair(FEW)
    sent = [client.request("run", {}) for _ in range(3)]
    events = list(server.receive(b"".join(data for _, data in sent)))

    assert [type(event) for event in events] == [RequestReceived, RequestReceived, Refused]
    assert isinstance(events[2].error, Busy)
    server.fail(events[2].msgid, events[2].error)
    server.respond(events[0].msgid, None)
    assert isinstance(next(server.receive(client.request("run", {})[1])), RequestReceived)


def test_the_bytes_that_requests_came_in_are_bounded_too():
    client, server = pair(FEW)
    first = client.request("run", {"x": b"x" * 900})[1]
    second = client.request("run", {"x": b"x" * 900})[1]
    assert [type(event) for event in server.receive(first + second)] == [RequestReceived, Refused]


def test_a_peer_that_does_not_heed_busy_is_cut_off():
    _, server = pair(FEW)
    asking = frames(*(Request(100 + n, "run", {}) for n in range(5)))
    with pytest.raises(ProtocolError, match="refused as Busy"):
        list(server.receive(asking))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Request(1, "run", {}), "must be the request 'hello'"),
        (Notification("cancel", {"msgid": 1}), "must be the request 'hello'"),
        (Response(1, None, None), "no request 1"),
        (Request(1, "hello", {"token": "x" * 70_000}), "longer than 65,536 bytes"),
    ],
)
def test_before_the_hello_nothing_else_may_come(message, why):
    with pytest.raises(ProtocolError, match=why):
        list(Machine("server").receive(encode_message(message)))


def test_nothing_may_follow_a_hello_before_it_is_answered():
    server = Machine("server")
    with pytest.raises(ProtocolError, match="before it is answered"):
        list(server.receive(frames(Request(1, "hello", {}), Request(2, "hello", {}))))


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([Request(9, "hello", {})], "one hello"),
        ([Request(9, "a", {}), Request(9, "a", {})], "9 is in use"),
        ([Response(9, None, None)], "no request 9"),
        ([Notification("cancel", {"msgid": "x"})], "needs the id"),
        ([Notification("cancel", {})], "needs the id"),
    ],
)
def test_what_breaks_a_rule_ends_the_connection_and_nothing_follows(messages, why):
    _, server = pair()
    with pytest.raises(ProtocolError, match=why):
        list(server.receive(frames(*messages)))
    with pytest.raises(ProtocolError, match=why):
        list(server.receive(frames(Notification("a"))))


def test_an_answer_comes_once():
    client, server = pair()
    msgid, data = client.request("run", {})
    list(server.receive(data))
    answer = server.respond(msgid, None)
    list(client.receive(answer))
    with pytest.raises(ProtocolError, match="no request"):
        list(client.receive(answer))
    with pytest.raises(ProtocolError, match="this end is at fault"):
        server.respond(msgid, None)


def test_the_end_inside_a_message_is_a_fault_and_between_two_is_none():
    client, server = pair()
    server.receive_end()
    _, other = pair()
    list(other.receive(client.request("run", {"x": 1})[1][:-1]))
    with pytest.raises(ProtocolError, match="ended inside a message"):
        other.receive_end()


def test_whoever_closes_says_why():
    client, server = pair()
    (told,) = client.receive(server.close(ConnectionClosed("enough")))
    assert told == NotificationReceived(
        "closing", {"code": "ConnectionClosed", "message": "enough", "data": {}}
    )
    assert server.phase is Phase.CLOSED
    assert list(server.receive(b"anything")) == []


def test_an_answer_without_an_encoding_leaves_the_request_open():
    client, server = pair()
    msgid, data = client.request("run", {})
    list(server.receive(data))
    with pytest.raises(ProtocolError):
        server.respond(msgid, object())
    (answered,) = client.receive(server.fail(msgid, ProtocolError("it cannot be sent")))
    assert isinstance(answered.error, ProtocolError)


acts = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(["client", "server"])),
        st.tuples(st.just("answer"), st.integers(0, 3)),
        st.tuples(st.just("fail"), st.integers(0, 3)),
        st.tuples(st.just("cancel"), st.integers(0, 3)),
        st.tuples(st.just("tell"), st.sampled_from(["client", "server"])),
    ),
    max_size=30,
)


@given(acts, st.sampled_from(["stream", "packet4"]), st.booleans())
@settings(max_examples=150)
def test_two_machines_agree_on_what_is_open_whatever_they_do(script, framing, cut):
    """A model of the conversation: what was asked and not answered is in flight at one end and waits at the other."""
    ends = dict(zip(("client", "server"), pair(framing=framing), strict=True))
    open_requests = []

    def deliver(to, data):
        pieces = [bytes([byte]) for byte in data] if cut else [data]
        return [event for piece in pieces for event in ends[to].receive(piece)]

    other = {"client": "server", "server": "client"}
    for act, what in script:
        if act == "ask":
            msgid, data = ends[what].request("m", {"n": len(open_requests)})
            assert deliver(other[what], data) == [RequestReceived(msgid, "m", {"n": len(open_requests)})]
            open_requests.append((what, msgid))
        elif act == "tell":
            assert deliver(other[what], ends[what].notify("t", {})) == [NotificationReceived("t", {})]
        elif open_requests:
            asker, msgid = open_requests[what % len(open_requests)]
            if act == "cancel":
                assert deliver(other[asker], ends[asker].cancel(msgid)) == [RequestWithdrawn(msgid)]
                continue
            open_requests.remove((asker, msgid))
            answerer = ends[other[asker]]
            data = answerer.respond(msgid, 1) if act == "answer" else answerer.fail(msgid, Busy("no", 1))
            (answered,) = deliver(asker, data)
            assert (answered.msgid, answered.error is None) == (msgid, act == "answer")
        for name, end in ends.items():
            assert end.waiting == sum(asker == name for asker, _ in open_requests)
            assert ends[other[name]].in_flight == end.waiting


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_to_an_open_end_are_events_or_a_protocol_error_however_they_are_cut(data, to_client):
    def attempt(pieces):
        client, server = pair()
        end = client if to_client else server
        try:
            return [event for piece in pieces for event in end.receive(piece)]
        except ProtocolError:
            return "refused"

    cut, at_once = attempt([bytes([byte]) for byte in data]), attempt([data])
    assert (cut == "refused") == (at_once == "refused")
    if at_once != "refused":
        assert repr(cut) == repr(at_once)
