"""Byte code in a store: found by a later engine, bounded, and never a reason to fail."""

import sqlite3
import time
from contextlib import closing

import pytest

from evocell.store import byte_code as byte_code_module
from evocell.store import queued
from evocell.store import store as store_module
from evocell.store.byte_code import ByteCode
from evocell.store.database import open_reader
from evocell.store.store import Store

ONE, TWO, THREE = ("1" * 64, "2" * 64, "3" * 64)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "evocell.db"


@pytest.fixture
def store(path):
    with Store(path) as made:
        yield made


def test_it_is_kept_by_key(store):
    kept = ByteCode(store)
    assert kept.get(ONE) is None
    kept.put({ONE: b"one", TWO: b""})
    kept.put({TWO: b"two"})
    store.catch_up()

    assert (kept.get(ONE), kept.get(TWO), kept.get(THREE)) == (b"one", b"two", None)


def test_a_later_store_finds_it(path):
    with Store(path) as store:
        ByteCode(store).put({ONE: b"one"})
    with Store(path) as store:
        assert ByteCode(store).get(ONE) == b"one"


@pytest.mark.parametrize(
    "damage", ["substr(unit, 1, length(unit) - 1)", "unit || x'00'", "x''", "'text'", "zeroblob(40)"]
)
def test_what_was_damaged_is_missing(store, path, damage):
    kept = ByteCode(store)
    kept.put({ONE: b"one"})
    store.catch_up()
    with sqlite3.connect(path) as raw:
        raw.execute(f"UPDATE byte_code SET unit = {damage}")
    raw.close()

    assert kept.get(ONE) is None
    kept.put({ONE: b"again"})
    store.catch_up()
    assert kept.get(ONE) == b"again"


@pytest.mark.parametrize("key", ["", "1" * 63 + "x", "../x", "1" * 63])
def test_a_key_is_a_digest(store, key):
    kept = ByteCode(store)
    with pytest.raises(ValueError, match="key"):
        kept.get(key)
    with pytest.raises(ValueError, match="key"):
        kept.put({key: b""})


def test_the_oldest_go_first(store, monkeypatch):
    monkeypatch.setattr(byte_code_module, "MOST_BYTES", 50_000)
    monkeypatch.setattr(byte_code_module, "_TRIM_EVERY_BYTES", 10_000)
    kept = ByteCode(store)
    keys = [f"{number:064x}" for number in range(200)]
    for key in keys:
        kept.put({key: bytes(1_000)})
    store.catch_up()

    found = [key for key in keys if kept.get(key)]

    assert found == keys[-len(found) :]
    total = len(found) * 1_000
    assert 30_000 < total <= 60_000


def test_a_file_that_is_too_large_is_neither_kept_nor_read(store, monkeypatch):
    kept = ByteCode(store)
    kept.put({THREE: bytes(11)})
    monkeypatch.setattr(byte_code_module, "MOST_UNIT_BYTES", 10)
    kept.put({ONE: bytes(11), TWO: bytes(10)})
    store.catch_up()

    assert (kept.get(ONE), kept.get(TWO), kept.get(THREE)) == (None, bytes(10), None)


def test_nothing_more_waits_for_a_store_that_cannot_be_written(store):
    kept = ByteCode(store)
    store.trouble = "the disk is full"
    kept.put({ONE: b"one"})
    store.catch_up()
    assert kept.get(ONE) is None
    store.trouble = ""
    kept.put({ONE: b"one"})
    store.catch_up()
    assert kept.get(ONE) == b"one"


def test_what_others_have_put_is_found_within_a_second(path, monkeypatch):
    monkeypatch.setattr(byte_code_module, "LOOK_S", 0.0)
    with Store(path) as store, Store(path) as other:
        kept, theirs = ByteCode(store), ByteCode(other)
        assert kept.get(ONE) is None
        theirs.put({ONE: b"one"})
        other.catch_up()
        assert kept.get(ONE) == b"one"
        assert kept.get(TWO) is None
        monkeypatch.setattr(byte_code_module, "LOOK_S", 1_000.0)
        theirs.put({TWO: b"two"})
        other.catch_up()
        assert kept.get(TWO) is None
        assert ByteCode(store).get(TWO) == b"two"


def test_a_large_store_is_asked_each_time(path, monkeypatch):
    monkeypatch.setattr(byte_code_module, "MOST_KNOWN", 2)
    monkeypatch.setattr(byte_code_module, "LOOK_S", 1_000.0)
    with Store(path) as store, Store(path) as other:
        kept = ByteCode(store)
        kept.put({ONE: b"one", TWO: b"two", THREE: b"three"})
        ByteCode(other).put({"4" * 64: b"four"})
        store.catch_up()
        other.catch_up()
        assert [kept.get(key) for key in (ONE, THREE, "4" * 64)] == [b"one", b"three", b"four"]


def count_in(reader):
    return reader.execute("SELECT count(*) FROM byte_code").fetchone()[0]


def test_what_was_put_is_written_when_the_store_rests_and_when_it_is_closed(path, monkeypatch):
    monkeypatch.setattr(store_module, "LATER_S", 0.01)
    with Store(path) as store, closing(open_reader(path)) as reader:
        store.flush_blocking()  # the writer sleeps
        ByteCode(store).put({ONE: b"one"})
        for _ in range(1_000):
            if count_in(reader):
                break
            time.sleep(0.01)
        assert count_in(reader) == 1
    monkeypatch.setattr(store_module, "LATER_S", 1_000)
    with Store(path) as store:
        ByteCode(store).put({TWO: b"two"})
    with closing(open_reader(path)) as reader:
        assert count_in(reader) == 2


def test_no_result_waits_for_it(path, monkeypatch):
    monkeypatch.setattr(store_module, "LATER_S", 1_000)
    monkeypatch.setattr(queued, "LATER_BYTES", 9 * (1_000 + byte_code_module._ENTRY_BYTES))
    with Store(path) as store, closing(open_reader(path)) as reader:
        kept = ByteCode(store)
        for number in range(9):
            kept.put({f"{number:064x}": bytes(1_000)})
            store.execute("UPDATE runs SET pid = 1")
            store.flush_blocking()
        assert count_in(reader) == 0
        kept.put({ONE: bytes(1_000)})
        store.execute("UPDATE runs SET pid = 1")
        store.flush_blocking()
        store.flush_blocking()  # the writer has turned to what may wait
        assert count_in(reader) == 10


def test_what_waits_is_bounded(path, monkeypatch):
    monkeypatch.setattr(queued, "MOST_LATER_BYTES", 10_000)
    with Store(path) as store:
        kept = ByteCode(store)
        with store._writing:  # the writer is held up
            for number in range(100):
                kept.put({f"{number:064x}": bytes(1_000)})
            assert store._later._n_bytes <= 10_000
        store.catch_up()
        assert 1 <= store.query("SELECT count(*) FROM byte_code")[0][0] <= 10


def test_what_cannot_be_kept_holds_up_no_result_and_counts_as_no_loss(path, caplog):
    with Store(path) as store:
        store.flush_blocking()
        pages = store.query("PRAGMA page_count")[0][0]
        kept = ByteCode(store)
        kept.put({ONE: bytes(1 << 20)})
        store.ask(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 20}").fetchall())
        store.execute("INSERT INTO sources VALUES ('v', 1, x'00')")
        store.flush_blocking()
        store.catch_up()
        store.flush_blocking()
        assert (store.trouble, store.losses, kept.get(ONE)) == ("", 0, None)
        assert store.query("SELECT version FROM sources") == [("v",)]
    assert caplog.text.count("could not keep what it may lose") == 1


def test_a_row_after_which_none_can_be_put_does_no_harm(store, path):
    kept = ByteCode(store)
    store.execute("INSERT INTO byte_code VALUES (9223372036854775807, x'00', x'00')")
    store.flush_blocking()
    kept.put({ONE: b"one"})
    store.catch_up()
    store.flush_blocking()
    assert (store.losses, kept.get(ONE)) == (0, None)


def test_short_runs_keep_the_bound_too(path, monkeypatch):
    monkeypatch.setattr(byte_code_module, "MOST_BYTES", 50_000)
    for run in range(20):
        with Store(path) as store:
            ByteCode(store).put({f"{run:064x}": bytes(10_000)})
    with closing(open_reader(path)) as reader:
        assert count_in(reader) <= 6
