"""The host of guests on nodes, over the smallest pool there is: nodes in this process, without any transport."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import msgpack
import pytest
import trio
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.call_results import ended_call

import evocell
from evocell import Case, Config, Evaluation, Limits
from evocell.errors import ClusterLost, ProtocolError
from evocell.execution.messages import GuestResult
from evocell.integrations.cluster.holdings import Arriving
from evocell.integrations.cluster.messages import pack, read_answer, read_result, row_of, unpack
from evocell.integrations.cluster.node import Machine, NodeDoor
from evocell.integrations.cluster.opening import open_cluster_worker
from evocell.integrations.cluster.pace import RECENT, Pace
from evocell.integrations.cluster.protocol import NodeFailed, NodeLost
from evocell_runtime.untrusted import GuestBytes

GOOD = "def solve(n):\n    return n * n"
SECRET = 123_456_789_012
TASK = Evaluation(
    "solve", [Case((351_364,), expected=SECRET)], score=lambda case, value: float(value == case.expected)
)
SQUARES = Evaluation("solve", [Case((n,), expected=n * n) for n in range(3)], score="equal")


class Link:
    """Nodes in this process.

    Args:
        names: What they are called.
        change: Makes of each answer what is told instead.
    """

    label = "the pool of this test"
    trouble = None

    def __init__(self, names, change):
        self._token = trio.lowlevel.current_trio_token()
        self._doors = {name: NodeDoor(Machine(name=name, threads=1)) for name in names}
        self._change = change
        self._changed = trio.Event()
        self.members = {name: name for name in names}
        self.carried = []
        self.withheld = None
        """Address of a node whose guests have been started, as the engine does not learn yet."""
        self.withholds = False
        self.released = trio.Event()

    async def wait_change(self):
        await self._changed.wait()

    def left_in_order(self, address):
        return False

    async def want(self, nodes):
        pass

    def lose(self, address):
        del self.members[address]
        self._tell()

    def call_soon(self, function, *args):
        """Call a function in the engine's loop, from any thread."""
        self._token.run_sync_soon(function, *args)

    def _tell(self):
        self._changed.set()
        self._changed = trio.Event()

    async def ask(self, addresses, message):
        answers = {}
        for address in addresses:
            try:
                answers[address] = await self.work(address, message)
            except (NodeLost, NodeFailed) as error:
                answers[address] = error
        return answers

    async def work(self, address, message):
        if address not in self.members:
            raise NodeLost(f"{address} is gone")
        over = trio.Event()
        pending = self._doors[address].answer(message)
        pending.add_done_callback(lambda _: self._token.run_sync_soon(over.set))
        await over.wait()
        operation = unpack(message)["op"]
        if (address, operation) == (self.withheld, "open"):
            self.withholds = True
            await self.released.wait()
        answer = self._change(address, operation, pending.result())
        self.carried += [message, answer]
        return answer

    def close(self):
        for door in self._doors.values():
            door.close()


class Pool:
    """A pool of nodes in this process."""

    processes = None
    images_dir = None

    def __init__(self, *names, change=lambda _address, _op, answer: answer, patience_s=20.0, withheld=None):
        self.names, self.change, self.patience_s, self.withheld = names, change, patience_s, withheld

    @asynccontextmanager
    async def link(self):
        self.reached = Link(self.names, self.change)
        self.reached.withheld = self.withheld
        try:
            yield self.reached
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self.reached.close)

    def open_worker(self, config, snapshots, *, progress=None):
        return open_cluster_worker(self, config, snapshots, progress=progress)


def wait_for_status(engine, **wanted):
    """Wait until nodes are as they should be."""
    ends_at = time.monotonic() + 30
    while {one.name: one.status for one in engine.workers() if one.name in wanted} != wanted:
        assert time.monotonic() < ends_at, engine.workers()
        time.sleep(0.02)


def wait_for(condition):
    """Wait until a condition holds."""
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.005)


def engine_on(pool):
    return evocell.Engine(Config.load(workers=1), cluster=pool)


def test_any_pool_will_do_and_no_expected_value_travels():
    pool = Pool("one")
    with engine_on(pool) as engine:
        wrong, right = engine.evaluate([GOOD, f"def solve(n):\n    return {SECRET - 1} + 1"], TASK)
    assert (wrong.fitness_score, right.fitness_score) == (0, 1)
    written = b"".join(part for part in pool.reached.carried if b"work" in part[:20] or b"runs" in part)
    assert b"solve" in written
    sent = [unpack(part) for part in pool.reached.carried[::2]]
    for message in sent:
        assert str(SECRET).encode() not in msgpack.packb(message)
        assert msgpack.packb(SECRET) not in msgpack.packb(message)


def lie(what):
    """A pool whose node `liar` tells lies about its work."""

    def change(address, op, answer):
        return what(unpack(answer)) if address == "liar" and op == "work" else answer

    return Pool("liar", "honest", change=change)


def with_fuel(answer, fuel):
    for row in answer["seen"]:
        if "result" in row[1]:
            row[1]["result"][0][10] = fuel
    return pack(answer)


@pytest.mark.parametrize(
    "what",
    [
        lambda _: b"\xc1 no message",
        lambda _: pack({"seen": [[1, {"result": [None] * 8}]], "later": [], "kills": []}),
        lambda _: pack({"seen": [[10**6, {}]], "later": [], "kills": []}),
        lambda _: msgpack.packb([[]] * 300_000),
        lambda answer: pack({**answer, "seen": [[row[0], {"back": True}] for row in answer["seen"]]}),
        partial(with_fuel, fuel="-5"),
        partial(with_fuel, fuel=5),
    ],
    ids=["bytes", "nothing", "another", "much", "back", "negative", "type"],
)
def test_a_node_that_answers_nonsense_gets_no_work_any_more(what):
    with engine_on(lie(what)) as engine:
        wait_for_status(engine, liar="up", honest="up")
        results = engine.evaluate([f"{GOOD}\n# {n}" for n in range(12)], SQUARES)
        assert [one.valid for one in results] == [True] * 12
        seen = {one.name: one for one in engine.workers()}
    assert seen["liar"].status == "refused"
    assert "nonsense" in seen["liar"].problem
    assert seen["honest"].finished > 36  # all calls, and the compilations


def test_an_engine_does_not_open_on_nodes_that_are_all_of_another_kind():
    def change(_address, op, answer):
        return pack({**unpack(answer), "evocell": "0.0.1"}) if op == "hello" else answer

    with pytest.raises(ClusterLost, match=r"no node .* can be used: one .* has evocell 0\.0\.1"):
        engine_on(Pool("one", change=change))


def test_a_node_with_another_snapshot_is_refused():
    def change(address, op, answer):
        if op != "open" or address == "honest":
            return answer
        return pack({**unpack(answer), "snapshot_sha256": "0" * 64})

    with engine_on(Pool("other", "honest", change=change)) as engine:
        wait_for_status(engine, other="refused", honest="up")
        assert engine.evaluate_one(GOOD, SQUARES).valid
        seen = {one.name: one for one in engine.workers()}
    assert seen["other"].status == "refused"
    assert "its snapshot is 000" in seen["other"].problem


def test_a_pool_without_nodes_is_an_error_that_says_so():
    with pytest.raises(ClusterLost, match=r"has had no node that takes work for 0\.2 s; start some"):
        engine_on(Pool(patience_s=0.2))


def test_what_is_missing_on_a_node_is_sent_again():
    long = b"x" * 10_000
    task = Evaluation("solve", [Case((long,), expected=10_000)], score="equal")
    pool = Pool("one")
    with engine_on(pool) as engine:
        source = "def solve(data):\n    return len(data)"
        assert engine.evaluate_one(source, task).valid
        # As after a bound was reached there, and not here.
        service = pool.reached._doors["one"]._thread.resource
        for held in (service._holdings._blobs, service._holdings._trees):
            for name in list(held._held):
                held.forget(name)
        assert engine.evaluate_one(source, task).valid
        assert engine.workers()[0].status == "up"


RESULT = ended_call(
    response=GuestBytes(b"answer"),
    response_bytes=6,
    stdout=GuestBytes(b"out"),
    fuel_used=12_345_678_901_234,
    ran_s=0.5,
    memory_bytes=1 << 20,
)


@pytest.mark.parametrize(
    "result",
    [
        GuestResult(result=RESULT, session_alive=True, loaded=False),
        GuestResult(
            result=evolve(
                RESULT, trap="OUT_OF_FUEL", message="all fuel consumed", response=None, returned=False
            )
        ),
        GuestResult(lost="it died"),
        GuestResult(undelivered="memory"),
    ],
)
def test_a_result_arrives_as_it_was(result):
    row = read_answer(pack({"row": row_of(result)}))["row"]
    assert read_result(row, Limits()) == result


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 20), value=PLAIN)
def test_a_changed_result_is_one_or_is_refused(place, value):
    row = row_of(GuestResult(result=RESULT))
    where, index = (row, place) if place < len(row) else (row[0], place - len(row))
    where[index] = value
    try:
        found = read_result(row, Limits())
    except ProtocolError:
        return
    assert isinstance(found, GuestResult)
    assert read_result(row_of(found), Limits()) == found


@pytest.mark.parametrize(
    ("index", "value"),
    [(6, b"x" * (40 << 20)), (8, b"x" * (2 << 20)), (11, float("nan")), (11, -1.0), (10, "9" * 30)],
)
def test_a_result_that_no_limits_allow_is_refused(index, value):
    row = row_of(GuestResult(result=RESULT))
    row[0][index] = value
    with pytest.raises(ProtocolError):
        read_result(row, Limits())


def test_pieces_must_follow_one_another():
    arriving = Arriving(6)
    assert not arriving.take(0, b"abc")
    with pytest.raises(ProtocolError, match="does not follow"):
        arriving.take(4, b"ef")
    with pytest.raises(ProtocolError, match="does not follow"):
        arriving.take(3, b"defg")
    assert arriving.take(3, b"def")


def test_short_runs_travel_together_and_long_ones_alone():
    pace = Pace(2)
    assert (pace.window, pace.batch) == (8, 4)
    for _ in range(100):
        pace.saw(0.0002)
    assert (pace.window, pace.batch) == (128, 64)
    assert pace.hold_s(0) == 0  # a node without work is not kept waiting
    assert 0 < pace.hold_s(8) < pace.hold_s(16)
    for _ in range(RECENT):
        pace.saw(0.5)
    assert (pace.window, pace.batch, pace.hold_s(4)) == (4, 2, 0)


def test_long_runs_wait_where_they_can_be_taken_back():
    pace = Pace(3)
    assert pace.at_once > 3
    for at_once, took_s in ((12, 0.001), (6, 0.1), (3, 0.5)):
        for _ in range(RECENT):
            pace.saw(took_s)
        assert pace.at_once == at_once


def test_a_node_without_work_gets_what_others_have_not_begun():
    slow = "def solve(n):\n    for i in range(8_000_000): pass\n    return n * n\n# {}"
    one_case = Evaluation("solve", [Case((3,), expected=9)], score="equal", limits=Limits(fuel=10**12))
    pool = Pool("one", "two", withheld="two")
    with engine_on(pool) as engine:
        # Brief ones, so that a node gets 64 at a time from here on.
        engine.evaluate([f"{GOOD}\n# {n}" for n in range(RECENT)], SQUARES)
        with ThreadPoolExecutor(1) as thread:
            wait_for(lambda: pool.reached.withholds)
            batch = thread.submit(engine.evaluate, [slow.format(n) for n in range(8)], one_case)
            wait_for(lambda: engine.workers()[0].calls == 8)
            pool.reached.call_soon(pool.reached.released.set)
            results = batch.result()
        assert [one.fitness_score for one in results] == [1.0] * 8
        finished = {one.name: one.finished for one in engine.workers()}
    rows = [row for part in pool.reached.carried[1::2] for row in unpack(part).get("seen", ())]
    back = {number for number, answer in rows if "back" in answer}
    ended = [number for number, answer in rows if "result" in answer]
    assert back
    assert finished["two"] >= len(back)
    assert back <= set(ended)
    assert len(ended) == len(set(ended))  # none was made twice
