"""The tables of populations."""

from __future__ import annotations

__all__ = ["DDL"]

DDL: tuple[str, ...] = (
    """
    CREATE TABLE populations (
        id TEXT PRIMARY KEY,
        parent_id TEXT,               -- the population it descends from
        generation INTEGER NOT NULL,  -- the latest in it
        direction TEXT NOT NULL,      -- maximize or minimize: which of its members are its elite
        created_at REAL NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX sandboxes_by_population ON sandboxes (population, generation)",
)
