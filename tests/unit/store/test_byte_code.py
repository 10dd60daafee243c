"""Byte code in a store: found by a later engine, bounded, and never a reason to fail."""

import sqlite3

import pytest

from evocell.store import byte_code as byte_code_module
from evocell.store.byte_code import ByteCode
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
    store.flush_blocking()

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
    store.flush_blocking()
    with sqlite3.connect(path) as raw:
        raw.execute(f"UPDATE byte_code SET unit = {damage}")
    raw.close()

    assert kept.get(ONE) is None
    kept.put({ONE: b"again"})
    store.flush_blocking()
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
    store.flush_blocking()

    found = [key for key in keys if kept.get(key)]

    assert found == keys[-len(found) :]
    total = len(found) * 1_000
    assert 30_000 < total <= 60_000


def test_a_file_that_is_too_large_is_not_kept(store, monkeypatch):
    monkeypatch.setattr(byte_code_module, "MOST_UNIT_BYTES", 10)
    kept = ByteCode(store)
    kept.put({ONE: bytes(11), TWO: bytes(10)})
    store.flush_blocking()

    assert (kept.get(ONE), kept.get(TWO)) == (None, bytes(10))


def test_nothing_more_waits_for_a_store_that_cannot_be_written(store):
    kept = ByteCode(store)
    store.trouble = "the disk is full"
    kept.put({ONE: b"one"})
    assert not store._waiting
    store.trouble = ""
    kept.put({ONE: b"one"})
    store.flush_blocking()
    assert kept.get(ONE) == b"one"
