"""Byte code of compiled files in a store, so that a later engine need not compile them again."""

from __future__ import annotations

import hashlib
import math
import sqlite3
import threading
import time
from collections.abc import Mapping
from functools import partial

from evocell.store.store import Store

__all__ = ["ByteCode"]

MOST_BYTES = 256 << 20
"""Bytes of the newest files that are kept."""

MOST_UNIT_BYTES = 16 << 20
"""Bytes of a file beyond which it is not kept."""

MOST_KNOWN = 50_000
"""Files up to which it is known in memory which there are."""

LOOK_S = 1.0
"""Seconds after which it is looked what other engines have put."""

_ENTRY_BYTES = 256
_TRIM_EVERY_BYTES = 16 << 20
_DIGEST_BYTES = 32

# `seq` counts the bytes ever put, so that the oldest ones beyond the bound are found without a scan.
_PUT = "INSERT OR REPLACE INTO byte_code SELECT coalesce(max(seq), 0) + ?, ?, ? FROM byte_code"
_KEYS = """
    SELECT key, seq FROM byte_code
    WHERE seq > ? AND typeof(key) = 'blob' AND length(key) = ? ORDER BY seq LIMIT ?
"""
_GET = "SELECT CAST(unit AS BLOB) FROM byte_code WHERE key = ? AND length(unit) <= ?"
_TRIM = "DELETE FROM byte_code WHERE seq <= (SELECT max(seq) FROM byte_code) - ?"


class ByteCode:
    """Encoded compiled files by key; the newest 256 MiB are kept.

    Args:
        store: The store. No caller waits for what is put into it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: set[bytes] = set()
        self._last_seq = 0
        self._looked_at = -math.inf
        self._put_since_trim = _TRIM_EVERY_BYTES

    def get(self, key: str) -> bytes | None:
        """Return the file under a key; None if it is missing or damaged.

        A small store is asked only for what is known to be in it: what this object put, and what others had
        put when that was last looked at, at most a second ago.

        Args:
            key: A SHA-256 in hex, see `evocell.code.compiler.code_key`.

        Raises:
            StoreError: The store cannot be read.
        """
        asked = _key(key)
        if not self._may_hold(asked):
            return None
        rows = self._store.query(_GET, (asked, _DIGEST_BYTES + MOST_UNIT_BYTES))
        if not rows or not isinstance(rows[0][0], bytes):
            return None
        digest, unit = rows[0][0][:_DIGEST_BYTES], rows[0][0][_DIGEST_BYTES:]
        return unit if digest == hashlib.sha256(unit).digest() else None

    def put(self, units: Mapping[str, bytes]) -> None:
        """Store files by key, replacing existing entries; nothing while the store cannot be written.

        Args:
            units: Bytes that are opaque to the host.

        Raises:
            StoreError: The store is closed.
        """
        if self._store.trouble:
            return  # what waits for a full disk is in memory; these are only recompiled
        rows = [
            (_ENTRY_BYTES + len(unit), _key(key), hashlib.sha256(unit).digest() + unit)
            for key, unit in units.items()
            if len(unit) <= MOST_UNIT_BYTES
        ]
        if not rows:
            return
        n_bytes = sum(size for size, _, _ in rows)
        with self._lock:
            self._known.update(key for _, key, _ in rows)
            self._put_since_trim += n_bytes
            trims = self._put_since_trim >= _TRIM_EVERY_BYTES
            if trims:
                self._put_since_trim = 0
        self._store.write_later(partial(_write, rows, trims=trims), n_bytes)

    def _may_hold(self, key: bytes) -> bool:
        """Return whether the store may hold a key, without asking it each time."""
        with self._lock:
            if key in self._known or len(self._known) > MOST_KNOWN:
                return True
            now = time.monotonic()
            if now - self._looked_at < LOOK_S:
                return False
            self._looked_at = now
            for found, seq in self._store.query(_KEYS, (self._last_seq, _DIGEST_BYTES, MOST_KNOWN + 1)):
                self._known.add(found)
                self._last_seq = seq
            return key in self._known or len(self._known) > MOST_KNOWN


def _write(rows: list[tuple[int, bytes, bytes]], connection: sqlite3.Connection, *, trims: bool) -> None:
    connection.executemany(_PUT, rows)
    if trims:
        connection.execute(_TRIM, (MOST_BYTES,))


def _key(key: str) -> bytes:
    try:
        found = bytes.fromhex(key)
    except ValueError:
        found = b""
    if len(found) != _DIGEST_BYTES:
        raise ValueError(f"{key!r} is no key of byte code, which is a SHA-256 in hex")
    return found
