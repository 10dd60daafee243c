"""The event stream: numbers, resumption, queues that drop, and the log."""

import resource
import threading
import time

import msgpack
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from evocell.errors import ConfigurationError
from evocell.telemetry import stream as stream_module
from evocell.telemetry.event_log import EventLog, log_files, read_events
from evocell.telemetry.events import Telemetry
from evocell.telemetry.stream import EventStream, unpack_event


@pytest.fixture
def telemetry():
    return Telemetry()


@pytest.fixture
def stream(telemetry):
    made = EventStream(telemetry)
    yield made
    made.close()


def seqs(events):
    return [event.seq for event in events]


def emit(telemetry, n, name="x.y"):
    for number in range(n):
        telemetry.emit(name, {"n": number})


def test_nothing_is_numbered_before_somebody_listens(telemetry, stream):
    emit(telemetry, 3)
    assert not telemetry.active
    with stream.subscribe() as subscription:
        emit(telemetry, 2)
        assert seqs(subscription.take()) == [1, 2]
    assert stream.last_seq == 2


def test_an_event_is_a_msgpack_map(telemetry, stream):
    subscription = stream.subscribe()
    telemetry.emit(
        "sandbox.x", {"fuel_used": 3}, {"sandbox_id": "s", "parent_ids": ("a", "b"), "valid": None}
    )
    (streamed,) = subscription.take()
    found = msgpack.unpackb(streamed.packed)
    assert found["seq"] == 1
    assert found["name"] == "sandbox.x"
    assert found["measurements"] == {"fuel_used": 3}
    assert found["metadata"] == {"sandbox_id": "s", "parent_ids": ["a", "b"], "valid": None}
    assert streamed.event.metadata["parent_ids"] == ("a", "b")
    assert streamed.event.at == streamed.at


def test_a_subscriber_gets_its_prefix_only(telemetry, stream):
    subscription = stream.subscribe("sandbox.evaluate")
    emit(telemetry, 2, "sandbox.evaluate.stop")
    emit(telemetry, 1, "sandbox.evaluated")
    emit(telemetry, 1, "sandbox.evaluate.stop")
    assert seqs(subscription.take()) == [1, 2, 4]


def test_who_is_slow_misses_the_oldest_and_knows_how_many(telemetry, stream):
    slow, fast = stream.subscribe(capacity=3), stream.subscribe(capacity=100)
    emit(telemetry, 10)
    assert slow.dropped == 7
    assert seqs(slow.take()) == [8, 9, 10]
    emit(telemetry, 2)
    assert seqs(slow.take()) == [11, 12]
    assert slow.dropped == 7
    assert len(fast.take()) == 12
    assert fast.dropped == 0


def test_a_queue_is_bounded_in_bytes_too(telemetry, stream, monkeypatch):
    monkeypatch.setattr(stream_module, "KEPT_BYTES", 10_000)
    subscription = stream.subscribe(capacity=1000)
    for _ in range(100):
        telemetry.emit("x", {}, {"big": "a" * 1000})
    taken = subscription.take(1000)
    assert len(taken) < 10
    assert subscription.dropped + len(taken) == 100
    assert sum(len(one.packed) for one in stream._kept) <= 10_000


def test_resuming_behind_a_number(telemetry, stream):
    first = stream.subscribe()
    emit(telemetry, 5)
    first.close()
    emit(telemetry, 5)
    again = stream.subscribe(after=3, capacity=2)
    assert again.missed == 0
    emit(telemetry, 2)
    assert seqs(again.take(4)) == [4, 5, 6, 7]
    assert seqs(again.take()) == [8, 9, 10, 11, 12]
    assert again.dropped == 0


def test_resuming_behind_what_is_no_longer_kept_says_how_much_is_missing(telemetry, stream, monkeypatch):
    monkeypatch.setattr(stream_module, "KEPT", 4)
    stream.subscribe()
    emit(telemetry, 10)
    again = stream.subscribe(after=2)
    assert again.missed == 4
    assert seqs(again.take()) == [7, 8, 9, 10]
    assert stream.subscribe(after=10).missed == 0


def test_resuming_with_a_number_from_elsewhere_is_refused(stream):
    with pytest.raises(ConfigurationError, match="another engine"):
        stream.subscribe(after=5)


def logged(directory):
    """The numbers of the events in each file of a log."""
    return {
        path.name: [unpack_event(packed)[0] for packed in read_events(path)]
        for _, _, path in log_files(directory)
    }


def test_the_log_has_what_memory_has_not(telemetry, tmp_path, monkeypatch):
    monkeypatch.setattr(stream_module, "KEPT", 4)
    stream = EventStream(telemetry, EventLog(tmp_path / "run" / "events", 3))
    emit(telemetry, 10)
    again = stream.subscribe(after=2)
    assert again.missed == 0
    assert seqs(again.take()) == list(range(3, 11))
    stream.close()
    assert logged(tmp_path / "run" / "events") == {"3.msgpack": list(range(1, 11))}


def test_a_log_is_bounded_in_size_and_number(telemetry, tmp_path, monkeypatch):
    monkeypatch.setattr(stream_module, "KEPT", 4)
    for name in ("1.msgpack", "2.msgpack", "2-2.msgpack", "3.msgpack", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    log = EventLog(tmp_path, 4, max_bytes=250, max_files=3, is_alive=lambda run: run == 2)
    assert [path.name for _, _, path in log_files(tmp_path)] == [
        *("1.msgpack", "2.msgpack", "2-2.msgpack", "3.msgpack", "4.msgpack")
    ]
    stream = EventStream(telemetry, log)
    emit(telemetry, 20)
    files = logged(tmp_path)
    assert list(files) == ["2.msgpack", "2-2.msgpack", "4-3.msgpack", "4-4.msgpack", "4-5.msgpack"]
    written = [seq for seqs in files.values() for seq in seqs]
    assert written == list(range(written[0], 21))
    assert written[0] > 5
    assert all(path.stat().st_size <= 250 for path in log.files())

    again = stream.subscribe(after=0)
    assert again.missed == written[0] - 1
    assert seqs(again.take()) == list(range(written[0], 21))
    middle = stream.subscribe(after=written[0] + 1)
    assert middle.missed == 0
    assert seqs(middle.take()) == list(range(written[0] + 2, 21))
    stream.close()


def test_what_is_removed_before_a_replay_comes_to_it_is_missed(telemetry, tmp_path, monkeypatch):
    monkeypatch.setattr(stream_module, "KEPT", 1)
    log = EventLog(tmp_path, 1, max_bytes=250, max_files=3)
    stream = EventStream(telemetry, log)
    emit(telemetry, 6)
    replay = stream.subscribe(after=0, capacity=100)
    assert replay.missed == 0
    emit(telemetry, 12)
    found = seqs(replay.take())
    assert found[-12:] == list(range(7, 19))
    assert replay.missed + len(found) == 18
    assert replay.missed > 0
    stream.close()


def test_files_of_another_run_of_that_number_are_left_alone(telemetry, tmp_path):
    for _ in range(2):
        stream = EventStream(telemetry, EventLog(tmp_path, 1))
        emit(telemetry, 3)
        assert seqs(stream.subscribe(after=0).take()) == [1, 2, 3]
        stream.close()
    assert logged(tmp_path) == {"1.msgpack": [1, 2, 3], "1-2.msgpack": [1, 2, 3]}


@given(st.integers(0, 200))
def test_a_log_that_was_cut_off_is_read_up_to_there(tmp_path_factory, cut):
    log = EventLog(tmp_path_factory.mktemp("log"), 1)
    events = [msgpack.packb({"seq": number, "name": "x" * number}) for number in range(10)]
    for packed in events:
        log.append(packed)
    log.close()
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[: max(0, len(whole) - cut)])
    found = list(read_events(log.path))
    assert found == events[: len(found)]
    left = len(whole) - cut
    assert len(found) == max((n for n in range(11) if sum(map(len, events[:n])) <= left), default=0)


def test_a_full_disk_leaves_events_out_of_the_log_and_nobody_else_without(telemetry, tmp_path, caplog):
    log = EventLog(tmp_path, 1)
    stream = EventStream(telemetry, log)
    listener = stream.subscribe()
    emit(telemetry, 2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (5, 0):  # a part of an event, and nothing at all
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + room, before[1]))
        try:
            emit(telemetry, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    emit(telemetry, 2)
    assert seqs(listener.take()) == list(range(1, 9))
    assert logged(tmp_path) == {"1.msgpack": [1, 2, 7, 8]}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "cannot be written: there is no room for a whole event" in said[0]
    assert "it lacks 4 events" in said[1]
    stream.close()


def test_getting_waits_in_a_thread(telemetry, stream):
    subscription = stream.subscribe()
    assert subscription.get(timeout_s=0.01) == []
    taken = []
    thread = threading.Thread(target=lambda: taken.append(subscription.get()))
    thread.start()
    emit(telemetry, 1)
    thread.join(5)
    assert seqs(taken[0]) == [1]
    thread = threading.Thread(target=lambda: taken.append(subscription.get()))
    thread.start()
    time.sleep(0.01)
    subscription.close()
    thread.join(5)
    assert taken[1] == []


@pytest.mark.trio
async def test_waiting_in_a_trio_loop(telemetry, stream):
    subscription = stream.subscribe()
    with trio.move_on_after(0.01) as scope:
        await subscription.wait()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscription.wait)
        await trio.testing.wait_all_tasks_blocked()
        emit(telemetry, 1)
    assert seqs(subscription.take()) == [1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscription.wait)
        await trio.testing.wait_all_tasks_blocked()
        subscription.close()
    assert subscription.closed
    with trio.fail_after(5):
        await subscription.wait()


@pytest.mark.trio
async def test_waiting_with_something_to_replay_returns_at_once(telemetry, stream):
    stream.subscribe()
    emit(telemetry, 2)
    again = stream.subscribe(after=0)
    with trio.fail_after(5):
        await again.wait()
    assert seqs(again.take()) == [1, 2]


def test_threads_that_emit_and_take_lose_nothing_uncounted(telemetry, stream):
    subscription = stream.subscribe(capacity=50)
    over = threading.Event()
    taken = []

    def reader():
        while not over.is_set() or subscription._queue:
            taken.extend(subscription.take(7))

    threads = [threading.Thread(target=emit, args=(telemetry, 2000)) for _ in range(3)]
    reading = threading.Thread(target=reader)
    reading.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    reading.join()
    assert len(taken) + subscription.dropped == 6000
    assert seqs(taken) == sorted(set(seqs(taken)))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"prefix": "a."}, "prefix"),
        ({"after": -1}, "after"),
        ({"after": "7"}, "after"),
        ({"capacity": 0}, "capacity"),
        ({"capacity": True}, "capacity"),
    ],
)
def test_what_cannot_be_subscribed_is_refused_by_name(stream, arguments, key):
    with pytest.raises(ConfigurationError) as caught:
        stream.subscribe(**arguments)
    assert caught.value.key == key


@pytest.mark.parametrize("packed", [b"", b"\xc1", b"\x90", b"\x80", msgpack.packb({"metadata": 3})])
def test_what_is_no_event_is_refused(packed):
    with pytest.raises(ValueError, match="no event"):
        unpack_event(packed)
