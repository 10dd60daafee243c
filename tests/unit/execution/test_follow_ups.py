"""Requests sent without waiting, and calls behind compilations as the engine follows them."""

from contextlib import asynccontextmanager
from pathlib import Path

import msgpack
import pytest
import trio
import trio.testing
from attrs import evolve
from tests.unit.execution.handler import Handler

from evocell.execution.follow_ups import FOLLOW_UP, CompiledFile, FollowUp, FollowUpRequest, Splice
from evocell.execution.messages import GuestRequest, GuestResult
from evocell.execution.payload_cache import BLOB, BLOB_BYTES, PayloadCache, RequestSender, packed
from evocell.execution.rpc import Connection, ConnectionLost, RequestFailed
from evocell.lru import LruCache
from evocell.models.limits import Limits

pytestmark = pytest.mark.trio

LONG = bytes(range(256)) * 64
SEEN = GuestResult(undelivered="memory")


class Far(Handler):
    """The other side: answers, fails, or waits to be told; and keeps blobs."""

    def __init__(self, keeps=1 << 20):
        super().__init__()
        self.shelf = PayloadCache(keeps)
        self.blobs = 0
        self.taken = []

    def notified(self, method, params):
        assert method == BLOB
        self.blobs += 1
        self.shelf.take(params)

    async def __call__(self, method, params):
        if method == "run":
            return (
                packed(SEEN) if isinstance(self.shelf.run(params), GuestRequest) else self.shelf.run(params)
            )
        if method == FOLLOW_UP:
            self.taken.append(self.shelf.follow_up(params))
            return packed(SEEN) if self.taken[-1] is not None else None
        return await super().__call__(method, params)


class Connected:
    """A connection, its other side, and the number of posted requests that have ended."""

    def __init__(self, near, far, stream):
        self.near, self.far, self.stream = near, far, stream
        self.ended = 0

    def post(self, method="echo", **params):
        return self.near.post(method, params, ended=self.end)

    def end(self):
        self.ended += 1


@asynccontextmanager
async def connected(**more):
    near_stream, far_stream = trio.testing.memory_stream_pair()
    far = Far(**more)
    near = Connection(near_stream, near_stream)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.serve)
            nursery.start_soon(Connection(far_stream, far_stream, far, notified=far.notified).serve)
            yield Connected(near, far, near_stream)
            nursery.cancel_scope.cancel()


# ---------------------------------------------------------------------- requests sent without waiting


async def test_a_posted_request_is_answered():
    async with connected() as one:
        posted = one.post(value=1)
        assert one.near.waiting == 1
        assert [await posted.wait(), await posted.wait()] == [1, 1]
        await posted.close()
        await posted.close()
        assert (one.ended, one.near.waiting) == (1, 0)


async def test_it_ends_without_anyone_waiting_for_it():
    async with connected() as one:
        posted = one.post(value=1)
        await trio.testing.wait_all_tasks_blocked()
        assert one.ended == 1
        await posted.close()
        assert (one.ended, one.near.waiting, await one.near.request("echo", {"value": 2})) == (1, 0, 2)


async def test_a_posted_request_that_fails():
    async with connected() as one:
        posted = one.post("fail")
        with pytest.raises(RequestFailed, match="it cannot be"):
            await posted.wait()
        await posted.close()
        assert (one.ended, one.near.waiting) == (1, 0)


async def test_one_posted_before_the_other_side_goes():
    async with connected() as one:
        posted = one.post("wait")
        await trio.testing.wait_all_tasks_blocked()
        assert one.ended == 0
        await one.stream.aclose()
        with pytest.raises(ConnectionLost):
            await posted.wait()
        assert one.ended == 1
        await posted.close()
        assert (one.ended, one.near.waiting) == (1, 0)


async def test_one_posted_after_the_other_side_went():
    async with connected() as one:
        await one.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert one.near.is_lost
        posted = one.post()
        assert one.ended == 1
        with pytest.raises(ConnectionLost):
            await posted.wait()
        await posted.close()
        assert (one.ended, one.near.waiting) == (1, 0)


async def test_an_answer_that_came_before_the_loss_is_kept():
    async with connected() as one:
        posted = one.post(value=3)
        await trio.testing.wait_all_tasks_blocked()
        await one.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (one.near.is_lost, await posted.wait(), one.ended) == (True, 3, 1)
        await posted.close()


async def test_closing_one_under_way_stops_it_over_there():
    async with connected() as one:
        posted = one.post("wait")
        await trio.testing.wait_all_tasks_blocked()
        await posted.close()
        assert (one.far.cancelled, one.ended, one.near.waiting) == (1, 1, 0)
        await posted.close()
        assert (one.far.cancelled, one.ended) == (1, 1)


async def test_closing_it_at_once_stops_it_too():
    async with connected() as one:
        await one.post("wait").close()
        assert (one.ended, one.near.waiting) == (1, 0)
        assert await one.near.request("echo", {"value": 2}) == 2


async def test_a_cancelled_task_closes_it_all_the_same():
    async with connected() as one:
        posted = one.post("wait")
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await posted.close()
        assert (one.far.cancelled, one.ended, one.near.waiting) == (1, 1, 0)


async def test_a_cancelled_wait_does_not_stop_it():
    async with connected() as one:
        posted = one.post("wait", value=4)
        with trio.move_on_after(0.01):
            await posted.wait()
        one.far.gate.set()
        assert (await posted.wait(), one.far.cancelled) == (4, 0)
        await posted.close()


# ---------------------------------------------------------------------- calls behind compilations, on the wire

SPLICE = Splice(
    before=b"{before",
    between=b"between",
    middle=b"middle",
    after=(b"after", LONG, b"0"),
    n_around=12,
    module="m",
)
REQUEST = GuestRequest(
    parts=SPLICE.after,
    limits=Limits(fuel=123),
    seed=2**63,
    app=Path("/versions/d"),
    harness=Path("/versions/h"),
    sandbox_id="one",
)
WANTED = FollowUpRequest("program.py", SPLICE, REQUEST)


def follow_up_of(wanted):
    return FollowUp(lambda: wanted, wanted=wanted)


def called(code=b"code", **more):
    return evolve(REQUEST, parts=SPLICE.filled(CompiledFile(code)), **more)


async def test_long_parts_are_sent_once():
    async with connected() as one:
        sender = RequestSender(one.near, LruCache(1 << 20))
        for behind in range(3):
            posted = sender.post(follow_up_of(WANTED), behind, ended=one.end)
            assert GuestResult.from_wire(msgpack.unpackb(await posted.wait())) == SEEN
            await posted.close()
        await sender.run(called())
        assert (one.far.blobs, sender.missed, one.ended) == (1, 0, 3)
        assert one.near.sent_bytes < 2 * len(LONG)
        plain = evolve(WANTED, request=evolve(REQUEST, sandbox_id=""))  # which is not sent
        assert one.far.taken == [(behind, plain) for behind in range(3)]
        assert one.far.taken[0][1].with_code(CompiledFile(b"code")) == called(sandbox_id="")


async def test_short_parts_go_along():
    async with connected() as one:
        short = evolve(REQUEST, parts=(b"x" * BLOB_BYTES,))
        posted = RequestSender(one.near, LruCache(1 << 20)).post(
            follow_up_of(evolve(WANTED, request=short)), 1, ended=one.end
        )
        await posted.wait()
        await posted.close()
        ((_, taken),) = one.far.taken
        assert (one.far.blobs, taken.splice.after) == (0, (b"x" * BLOB_BYTES,))


async def test_a_call_whose_parts_were_lost_is_not_made():
    async with connected(keeps=10) as one:
        posted = RequestSender(one.near, LruCache(1 << 20)).post(follow_up_of(WANTED), 1, ended=one.end)
        assert await posted.wait() is None
        await posted.close()
        assert (one.far.blobs, one.far.taken, one.ended) == (1, [None], 1)


async def test_a_call_with_a_missing_blob_is_not_assembled():
    sent = {}

    def refer(part):
        sent[str(len(sent))] = part
        return str(len(sent) - 1)

    params = {"follow_up": WANTED.to_wire(7, refer)}
    shelf = PayloadCache()
    for name in ("0", "1"):
        shelf.take({"name": name, "data": sent[name]})
        assert shelf.follow_up(params) is None
    shelf.take({"name": "2", "data": sent["2"]})
    found = shelf.follow_up(params)
    assert found == (7, evolve(WANTED, request=evolve(REQUEST, sandbox_id="")))


# ---------------------------------------------------------------------- calls behind compilations, followed


class Answering:
    """What the other side answers a call behind a compilation with, and how often it was sent."""

    def __init__(self, one, method="echo", value=None):
        self.one, self.method, self.value = one, method, value
        self.posts = 0

    def __call__(self):
        self.posts += 1
        return self.one.post(self.method, value=self.value)


def placed(answering):
    follow_up = follow_up_of(WANTED)
    follow_up.sent_with(answering)
    follow_up.tree_placed()
    return follow_up


@pytest.mark.parametrize("order", ["sent placed", "placed sent"])
async def test_it_is_sent_once_the_tree_is_there_and_the_process_known(order):
    async with connected() as one:
        answering, other = Answering(one, value=packed(SEEN)), Answering(one)
        follow_up = follow_up_of(WANTED)
        for step in order.split():
            assert (answering.posts, follow_up.posted) == (0, None)
            follow_up.sent_with(answering) if step == "sent" else follow_up.tree_placed()
        assert answering.posts == 1
        follow_up.sent_with(other)  # the compilation was repeated in another process
        follow_up.tree_placed()
        assert (answering.posts, other.posts) == (1, 0)
        await follow_up.close()


async def test_if_the_compilation_moves_before_it_is_sent_it_goes_to_the_later_process():
    async with connected() as one:
        answering, later = Answering(one), Answering(one)
        follow_up = follow_up_of(WANTED)
        follow_up.sent_with(answering)
        follow_up.sent_with(later)
        follow_up.tree_placed()
        assert (answering.posts, later.posts) == (0, 1)
        await follow_up.close()


async def test_its_result_is_that_of_one_call():
    async with connected() as one:
        noted = []
        follow_up = placed(Answering(one, value=packed(SEEN)))
        follow_up.note = noted.append
        assert await follow_up.result_of(called()) == SEEN
        assert await follow_up.result_of(called()) is None
        assert (noted, one.ended, one.near.waiting) == ([SEEN], 1, 0)
        await follow_up.close()


async def test_of_two_equal_calls_at_a_time_one_gets_it():
    async with connected() as one:
        follow_up = placed(Answering(one, "wait", packed(SEEN)))
        got = []

        async def ask():
            got.append(await follow_up.result_of(called()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            one.far.gate.set()
        assert got == [None, SEEN]


OTHERS = {
    "session": {"session": "s"},
    "seed": {"seed": 1},
    "limits": {"limits": Limits(fuel=124)},
    "image": {"image": "i"},
    "app": {"app": Path("/versions/e")},
    "harness": {"harness": None},
    "sandbox": {"sandbox_id": "two"},
    "passing": {"passing": True},
    "again": {"parts_again": (b"",)},
    "processes": {"child_parts": (b"",)},
    "arguments": {"parts": evolve(SPLICE, after=(b"after", LONG, b"1")).filled(CompiledFile(b"code"))},
    "head": {"parts": evolve(SPLICE, before=b"{befere").filled(CompiledFile(b"code"))},
    "nothing": {"parts": ()},
}


@pytest.mark.parametrize("other", OTHERS)
async def test_another_call_does_not_get_its_result(other):
    async with connected() as one:
        follow_up = placed(Answering(one, value=packed(SEEN)))
        assert await follow_up.result_of(evolve(called(), **OTHERS[other])) is None
        assert await follow_up.result_of(called()) == SEEN  # it is still there for its own


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("fail", None),
        ("echo", None),
        ("echo", b""),
        ("echo", b"\xc1"),
        ("echo", b"\x80"),
        ("echo", b"\xc0"),
        ("echo", b"\x01"),
        ("echo", packed(SEEN) + b"\x00"),
        ("echo", packed(SEEN)[:-1]),
        ("echo", msgpack.packb({"result": {"stop_reason": 99, "fuel_used": "1"}})),
        ("echo", msgpack.packb({"result": None, "other": 1})),
        ("echo", "text"),
        ("echo", {"missing": []}),
        ("echo", packed(GuestResult(unforked="there is no room"))),
        ("echo", packed(GuestResult(no_image="it is gone"))),
    ],
)
async def test_an_answer_of_no_use(method, answer):
    async with connected() as one:
        follow_up = placed(Answering(one, method, answer))
        assert await follow_up.result_of(called()) is None
        assert (one.ended, one.near.waiting, follow_up.posted) == (1, 0, None)


async def test_the_process_is_lost_while_its_result_is_waited_for():
    async with connected() as one:
        follow_up = placed(Answering(one, "wait"))
        got, noted = [], []
        follow_up.note = noted.append

        async def ask():
            got.append(await follow_up.result_of(called()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await one.stream.aclose()
        assert [seen.lost for seen in got] == ["the connection broke"]
        assert (one.ended, one.near.waiting, noted) == (1, 0, [])


async def test_one_that_was_never_sent_has_no_result():
    follow_up = follow_up_of(WANTED)
    assert await follow_up.result_of(called()) is None
    follow_up.tree_placed()
    assert await follow_up.result_of(called()) is None
    await follow_up.close()


async def test_a_cancelled_task_stops_it():
    async with connected() as one:
        follow_up = placed(Answering(one, "wait"))
        with trio.move_on_after(0.01):
            await follow_up.result_of(called())
        assert (one.far.cancelled, one.ended, one.near.waiting) == (1, 1, 0)
        await follow_up.close()


async def test_closing_stops_it():
    async with connected() as one:
        follow_up = placed(Answering(one, "wait"))
        await trio.testing.wait_all_tasks_blocked()
        await follow_up.close()
        await follow_up.close()
        assert (one.far.cancelled, one.ended, one.near.waiting) == (1, 1, 0)
        assert await follow_up.result_of(called()) is None


async def test_after_closing_it_is_not_sent():
    async with connected() as one:
        answering = Answering(one, "wait")
        follow_up = follow_up_of(WANTED)
        follow_up.tree_placed()
        await follow_up.close()
        follow_up.sent_with(answering)
        assert (answering.posts, one.near.waiting) == (0, 0)
