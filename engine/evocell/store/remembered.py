"""Memoised outcomes, by the identity of their call, and records of evaluated calls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from evocell.errors import ConfigurationError
from evocell.lru import LruCache
from evocell.models.recorded import CallIdentity, EvaluationRecord, MemoInfo
from evocell.store.inspection import blaming_store
from evocell.store.store import Store

__all__ = ["Memory", "Records"]

MOST_BYTES = 64 << 20
"""Most bytes cached in this process."""

MOST_ENTRY_BYTES = 1 << 20
"""Most bytes of a memoised outcome."""

MOST_KEPT = 100_000
"""Most outcomes, and most records, in a store."""

MOST_ASKED = 10_000

_TRIM_EVERY = 1_000
_ENTRY_BYTES = 200
_PUT = "INSERT OR REPLACE INTO memo VALUES (?, ?, ?)"
_TRIM_MEMO = "DELETE FROM memo WHERE at <= (SELECT at FROM memo ORDER BY at DESC LIMIT 1 OFFSET ?)"
_RECORD = """
    INSERT OR IGNORE INTO records (key, at, sandbox_id, call, arguments, deterministic, kind, outcome, fuel)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_TRIM_RECORDS = "DELETE FROM records WHERE seq <= (SELECT max(seq) FROM records) - ?"
_TRIM_ARGUMENTS = "DELETE FROM arguments WHERE digest NOT IN (SELECT arguments FROM records)"
_COLUMNS = "seq, at, sandbox_id, call, kind, outcome, fuel, deterministic"


class Memory:
    """Encoded outcomes by key: an LRU cache in this process, backed by a durable store.

    Args:
        store: The durable store; None caches in this process only.
        max_bytes: Most bytes cached in this process.
    """

    def __init__(self, store: Store | None, *, max_bytes: int = MOST_BYTES) -> None:
        self._store = store
        self._entries: LruCache[str, bytes] = LruCache(max_bytes, keeps_last=True)
        self._puts = 0
        self.hits = self.misses = self.refused = 0

    def get(self, key: str) -> bytes | None:
        """Return the encoded outcome under a key; None if there is none."""
        found = self._entries.get(key)
        if found is not None:
            return found
        if self._store is not None:
            rows = self._store.query("SELECT CAST(outcome AS BLOB) FROM memo WHERE key = ?", (key,))
            if rows and isinstance(rows[0][0], bytes):
                self._keep(key, rows[0][0])
                return bytes(rows[0][0])
        return None

    def put(self, key: str, outcome: bytes) -> None:
        """Store an encoded outcome, unless it is too large."""
        if len(outcome) > MOST_ENTRY_BYTES:
            return
        self._keep(key, outcome)
        if self._store is not None:
            self._store.execute(_PUT, (key, time.time(), outcome))
            self._puts += 1
            if self._puts % _TRIM_EVERY == 0:
                self._store.execute(_TRIM_MEMO, (MOST_KEPT,))

    def drop(self, key: str) -> None:
        """Drop an entry that turned out to be damaged."""
        self._entries.forget(key)
        if self._store is not None:
            self._store.execute("DELETE FROM memo WHERE key = ?", (key,))

    def info(self) -> MemoInfo:
        """Return statistics."""
        return MemoInfo(
            hits=self.hits,
            misses=self.misses,
            refused=self.refused,
            entries=len(self._entries),
            bytes=self._entries.held_bytes,
        )

    def _keep(self, key: str, outcome: bytes) -> None:
        self._entries.put(key, outcome, len(outcome) + _ENTRY_BYTES)


class Records:
    """Records of calls in a store; the newest 100,000 are kept.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written: set[str] = set()
        self._n = 0

    def note(
        self,
        call: CallIdentity,
        arguments: bytes,
        *,
        key: str,
        sandbox_id: str,
        kind: str,
        outcome: str,
        fuel_used: int,
        deterministic: bool,
    ) -> None:
        """Store the record of a call; a repetition of the same call is not stored again."""
        row = (
            key,
            time.time(),
            sandbox_id,
            call.to_json(),
            call.arguments,
            deterministic,
            kind,
            outcome,
            fuel_used,
        )
        if call.arguments not in self._written:
            if len(self._written) >= MOST_KEPT:
                self._written.clear()
            self._written.add(call.arguments)
            self._store.execute("INSERT OR IGNORE INTO arguments VALUES (?, ?)", (call.arguments, arguments))
        self._store.execute(_RECORD, row)
        self._n += 1
        if self._n % _TRIM_EVERY == 0:
            self._store.execute(_TRIM_RECORDS, (MOST_KEPT,))
            self._store.execute(_TRIM_ARGUMENTS)
            self._written.clear()

    def find(
        self, *, sandbox_id: str | None = None, key: str | None = None, limit: int = 100
    ) -> list[EvaluationRecord]:
        """Return the newest matching records, oldest first; blocks until all is written.

        Args:
            sandbox_id: Only those of this individual.
            key: Only those whose key has this prefix.
            limit: Most records, from 1 to 10,000.

        Raises:
            ConfigurationError: An argument is invalid, or a record is damaged.
            StoreError: The store cannot be used.
        """
        if type(limit) is not int or not 1 <= limit <= MOST_ASKED:
            raise ConfigurationError(
                f"limit must be a whole number from 1 to {MOST_ASKED:,}, not {limit!r}", "limit"
            )
        terms, given = ["1"], []
        if sandbox_id is not None:
            terms.append("sandbox_id = ?")
            given.append(sandbox_id)
        if key is not None:
            terms.append("substr(key, 1, length(?)) = ?")
            given += [key, key]
        self._store.flush_blocking()
        # Only the constants above become part of the statement.
        newest = f"SELECT {_COLUMNS} FROM records WHERE {' AND '.join(terms)} ORDER BY seq DESC LIMIT ?"  # noqa: S608
        with blaming_store(self._store.path):
            return _records(self._store.query(f"SELECT * FROM ({newest}) ORDER BY seq", [*given, limit]))  # noqa: S608

    def arguments(self, digest: str) -> bytes | None:
        """Return the encoded arguments of a call; None if they are missing."""
        rows = self._store.query("SELECT CAST(data AS BLOB) FROM arguments WHERE digest = ?", (digest,))
        return bytes(rows[0][0]) if rows and isinstance(rows[0][0], bytes) else None


def _records(rows: Sequence[Sequence[Any]]) -> list[EvaluationRecord]:
    return [
        EvaluationRecord(
            seq=seq,
            at=at,
            sandbox_id=sandbox_id,
            call=CallIdentity.from_json(call),
            kind=kind,
            outcome=outcome,
            fuel_used=fuel,
            deterministic=bool(deterministic),
        )
        for seq, at, sandbox_id, call, kind, outcome, fuel, deterministic in rows
    ]
