"""Long parts of requests go over a connection once, and again only if they were lost."""

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from evocell.code.compiler import CompiledVersion
from evocell.errors import ProtocolError
from evocell.execution.interface import CallJob
from evocell.execution.messages import GuestRequest, GuestResult
from evocell.execution.payload_cache import (
    BLOB,
    BLOB_BYTES,
    PayloadCache,
    RequestSender,
    name_of,
    packed,
)
from evocell.execution.rpc import Connection
from evocell.lru import LruCache
from evocell.models.limits import Limits
from evocell.workers.requests import call_request
from evocell_guest.requests import read_request

LONG = bytes(range(256)) * 64
OTHER = LONG[::-1]


def run_of(*parts, again=None):
    return GuestRequest(parts=parts, parts_again=again, limits=Limits(), seed=2**63)


class Far:
    """The worker's end: notes the runs it is asked for."""

    def __init__(self, max_bytes):
        self.shelf = PayloadCache(max_bytes)
        self.runs = []
        self.arrived = 0

    def notified(self, method, params):
        assert method == BLOB
        self.arrived += 1
        self.shelf.take(params)

    async def handle(self, method, params):
        run = self.shelf.run(params)
        if isinstance(run, GuestRequest):
            self.runs.append(run)
            return packed(GuestResult(undelivered="memory"))
        return run


@asynccontextmanager
async def connected(*, keeps=1 << 20, believed=1 << 20):
    near_stream, far_stream = trio.testing.memory_stream_pair()
    far = Far(keeps)
    near = Connection(near_stream, near_stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.serve)
        nursery.start_soon(Connection(far_stream, far_stream, far.handle, notified=far.notified).serve)
        yield RequestSender(near, LruCache(1 << 20), believed), far, near
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_what_many_runs_hold_is_sent_once():
    async with connected() as (sender, far, near):
        for index in range(20):
            run = run_of(b"%d" % index, LONG, b"", again=(b"again", LONG))
            assert (await sender.run(run)).undelivered == "memory"
            assert far.runs[-1] == run
            assert far.runs[-1].body == b"%d" % index + LONG
            assert far.runs[-1].body_again == b"again" + LONG
        assert (far.arrived, sender.missed) == (1, 0)
        assert near.sent_bytes < 2 * len(LONG)


@pytest.mark.trio
async def test_runs_at_the_same_time_send_it_once():
    async with connected() as (sender, far, _):
        async with trio.open_nursery() as nursery:
            for index in range(10):
                nursery.start_soon(sender.run, run_of(b"%d" % index, LONG))
        assert (far.arrived, sender.missed, len(far.runs)) == (1, 0, 10)


@pytest.mark.trio
async def test_short_parts_go_along():
    async with connected() as (sender, far, _):
        await sender.run(run_of(b"x" * BLOB_BYTES))
        assert (far.arrived, far.runs[0].body) == (0, b"x" * BLOB_BYTES)


@pytest.mark.trio
async def test_what_was_lost_is_sent_again():
    async with connected(keeps=len(LONG)) as (sender, far, _):
        for part in (LONG, OTHER, LONG):
            await sender.run(run_of(part))
        assert [run.body for run in far.runs] == [LONG, OTHER, LONG]
        assert (far.arrived, sender.missed) == (3, 1)


@pytest.mark.trio
async def test_what_cannot_be_kept_goes_in_one_piece():
    async with connected(keeps=10) as (sender, far, _):
        await sender.run(run_of(b"head", LONG))
        assert far.runs[0].body == b"head" + LONG
        assert (far.arrived, sender.missed) == (2, 2)


@pytest.mark.trio
async def test_what_is_too_long_for_the_shelf_goes_in_one_piece():
    async with connected(believed=4 * len(LONG) - 1) as (sender, far, _):
        await sender.run(run_of(LONG))
        assert (far.arrived, far.runs[0].body) == (0, LONG)


@pytest.mark.trio
async def test_an_answer_that_makes_no_sense():
    async with connected() as (sender, far, _):
        far.shelf.run = lambda params: {"missing": [name_of(LONG)]}
        with pytest.raises(ProtocolError):
            await sender.run(run_of(LONG))


def test_the_bound_in_bytes_drops_what_was_not_used_for_longest():
    recent: LruCache[str, int] = LruCache(10)
    recent.put("a", 1, 4)
    recent.put("b", 2, 4)
    assert recent.get("a") == 1
    recent.put("c", 3, 4)
    assert ("a" in recent, "b" in recent, "c" in recent) == (True, False, True)
    recent.put("c", 4, 6)
    assert (recent.get("c"), recent.held_bytes, len(recent)) == (4, 10, 2)
    recent.put("d", 5, 11)
    assert (len(recent), recent.held_bytes) == (0, 0)
    recent.forget("d")


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536])
def test_the_parts_of_a_request_make_up_a_map(tmp_path, size):
    payload = bytes(size)
    job = CallJob(
        code=CompiledVersion("d", tmp_path, b"code"),
        entry="program:f",
        payload=payload,
        seed=(1 << 64) - 1,
        limits=Limits(),
        harness=CompiledVersion("h", tmp_path, b"harness"),
    )
    loading, again = call_request(job, load=True), call_request(job, load=False)
    asked = read_request(b"".join(loading))
    assert asked == {
        "op": "call",
        "code": b"code",
        "harness": b"harness",
        "entry": "program:f",
        "args": payload,
        "seed": (1 << 64) - 1,
        "payload_bytes": Limits().payload_bytes,
        "payload_items": Limits().payload_items,
        "payload_depth": Limits().payload_depth,
    }
    assert read_request(b"".join(again)) == asked | {"code": None, "harness": None}
    assert b"".join(loading).endswith(payload + b"0")
    if size:
        assert any(part is payload for part in loading)
