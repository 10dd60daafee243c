"""The tables of what was decided and what can be done again: audit log, records, remembered outcomes."""

from __future__ import annotations

__all__ = ["DDL"]

DDL: tuple[str, ...] = (
    """
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        sandbox_id TEXT NOT NULL,     -- empty for what is about a version alone
        version TEXT NOT NULL,        -- digest of the code; empty if it is not known
        profile TEXT NOT NULL,        -- security profile; empty for what is no decision of the gate
        detail TEXT NOT NULL
    )
    """,
    "CREATE INDEX audit_by_sandbox ON audit (sandbox_id, seq)",
    "CREATE INDEX audit_by_kind ON audit (kind, seq)",
    """
    CREATE TABLE records (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,     -- hash of everything that decides the outcome
        at REAL NOT NULL,
        sandbox_id TEXT NOT NULL,
        call TEXT NOT NULL,           -- what was called and under what, as JSON
        arguments TEXT NOT NULL,      -- digest of the encoded arguments
        deterministic INTEGER NOT NULL,
        kind TEXT NOT NULL,
        outcome TEXT NOT NULL,        -- digest
        fuel INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE arguments (
        digest TEXT PRIMARY KEY,      -- of the encoded arguments
        data BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE memo (
        key TEXT PRIMARY KEY,         -- as in records
        at REAL NOT NULL,
        outcome BLOB NOT NULL
    )
    """,
    "CREATE INDEX memo_by_age ON memo (at)",
)
