"""The audit log: decisions of the security gate and kills, durable, bounded in entries, with queries.

Text that an entry quotes from a variant, such as a module name, is cut and made printable. The store's
writer thread writes the entries; recording one costs the engine a few microseconds.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from typing import Any, Literal, get_args

from attrs import field, frozen
from attrs.validators import instance_of

from evocell.errors import ConfigurationError
from evocell.models.foreign import clean_line
from evocell.store.encoding import check_time
from evocell.store.inspection import blaming_store
from evocell.store.store import Store

__all__ = ["AUDIT_KINDS", "AuditEntry", "AuditKind", "AuditLog", "read_entries"]

AuditKind = Literal["allowed", "reported", "refused", "refused_running", "killed", "crashed", "worker_lost"]

AUDIT_KINDS: tuple[AuditKind, ...] = get_args(AuditKind)
"""A version passed the gate; would have been refused; was refused before it ran; was refused while it ran; a
call was stopped at a limit; a guest ended itself; a worker was lost."""

MOST_DETAIL_CHARS = 500
MOST_ASKED = 10_000
_TRIM_EVERY = 1_000

_INSERT = """
    INSERT INTO audit (run, at, kind, sandbox_id, version, profile, detail) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_TRIM = "DELETE FROM audit WHERE seq <= (SELECT max(seq) FROM audit) - ?"


@frozen
class AuditEntry:
    """One entry: a decision of the security gate, or a kill of a guest.

    Attributes:
        seq: Its number; numbers increase and are never reused.
        at: When, in seconds since 1970.
        kind: One of `AUDIT_KINDS`.
        sandbox_id: The sandbox concerned; empty if the entry is about a version alone.
        version: Digest of the code; empty if it is not known.
        profile: The security profile; empty unless the entry is a decision of the gate.
        detail: A sentence.
    """

    seq: int = field(validator=instance_of(int))
    at: float = field(validator=check_time)
    kind: str = field(validator=instance_of(str))
    sandbox_id: str = field(validator=instance_of(str))
    version: str = field(validator=instance_of(str))
    profile: str = field(validator=instance_of(str))
    detail: str = field(validator=instance_of(str))


class AuditLog:
    """The audit log of one engine, kept in its store; thread-safe.

    Args:
        store: The store.
        run: Number of the engine's run.
        max_entries: Number of newest entries kept over all runs of the store, give or take a thousand.
    """

    def __init__(self, store: Store, run: int, *, max_entries: int) -> None:
        self._store = store
        self._run = run
        self._max_entries = max_entries
        self._noted = 0
        self._lock = threading.Lock()

    def note(
        self, kind: AuditKind, detail: str, *, sandbox_id: str = "", version: str = "", profile: str = ""
    ) -> None:
        """Record one entry; returns at once."""
        row = (self._run, time.time(), kind, _cleaned(sandbox_id), version, profile, _cleaned(detail))
        with self._lock:
            self._noted += 1
            trims = self._noted % _TRIM_EVERY == 0
        self._store.execute(_INSERT, row)
        if trims:
            self.trim()

    def trim(self) -> None:
        """Delete the oldest entries beyond the bound."""
        self._store.execute(_TRIM, (self._max_entries,))

    def entries(
        self,
        *,
        kind: AuditKind | None = None,
        sandbox_id: str | None = None,
        since: float | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[AuditEntry]:
        """Return the newest matching entries, oldest first; blocks until all is written.

        Args:
            kind: Only of this kind.
            sandbox_id: Only about this sandbox.
            since: Only from this time on, in seconds since 1970.
            after: Only those with a higher number.
            limit: Most entries, from 1 to 10,000.

        Raises:
            ConfigurationError: An argument is invalid.
            StoreError: The store cannot be read or written.
        """
        question = _question(kind=kind, sandbox_id=sandbox_id, since=since, after=after, limit=limit)
        self._store.flush_blocking()
        with blaming_store(self._store.path):
            return _answer(self._store.query(*question))


def read_entries(connection: sqlite3.Connection, **wanted: Any) -> list[AuditEntry]:
    """Return entries of a store that `open_reader` opened; arguments as those of `AuditLog.entries`."""
    return _answer(connection.execute(*_question(**wanted)).fetchall())


def _question(
    *,
    kind: str | None = None,
    sandbox_id: str | None = None,
    since: float | None = None,
    after: int = 0,
    limit: int = 100,
) -> tuple[str, list[Any]]:
    if kind is not None and kind not in AUDIT_KINDS:
        raise ConfigurationError(f"kind must be one of {', '.join(AUDIT_KINDS)}, not {kind!r}", "kind")
    if type(limit) is not int or not 1 <= limit <= MOST_ASKED:
        raise ConfigurationError(
            f"limit must be a whole number from 1 to {MOST_ASKED:,}, not {limit!r}", "limit"
        )
    terms, given = ["seq > ?"], [after]
    for term, value in (("kind = ?", kind), ("sandbox_id = ?", sandbox_id), ("at >= ?", since)):
        if value is not None:
            terms.append(term)
            given.append(value)  # type: ignore[arg-type]  # SQLite takes each as it is
    # The indexes leave out the entries of most candidates, which says this to SQLite.
    if kind not in (None, "allowed"):
        terms.append("kind <> 'allowed'")
    if sandbox_id:
        terms.append("sandbox_id <> ''")
    columns = "seq, at, kind, sandbox_id, version, profile, detail"
    # Only the constants above become part of the statement.
    newest = f"SELECT {columns} FROM audit WHERE {' AND '.join(terms)} ORDER BY seq DESC LIMIT ?"  # noqa: S608
    return f"SELECT * FROM ({newest}) ORDER BY seq", [*given, limit]  # noqa: S608


def _answer(rows: Sequence[Sequence[Any]]) -> list[AuditEntry]:
    return [AuditEntry(*row) for row in rows]


def _cleaned(text: str) -> str:
    cut = text if len(text) <= MOST_DETAIL_CHARS else text[: MOST_DETAIL_CHARS - 1] + "…"
    return clean_line(cut)
