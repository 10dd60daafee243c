"""The table of module versions."""

from __future__ import annotations

__all__ = ["DDL"]

DDL: tuple[str, ...] = (
    """
    CREATE TABLE module_versions (
        run INTEGER NOT NULL,
        sandbox_id TEXT NOT NULL,
        module TEXT NOT NULL,
        number INTEGER NOT NULL,
        checksum TEXT NOT NULL,
        digest TEXT NOT NULL,         -- of the whole tree: sandboxes.version, sources.version
        files BLOB NOT NULL,          -- msgpack array of paths
        dependencies BLOB NOT NULL,   -- msgpack array of names
        parent_version INTEGER,
        restores INTEGER,
        mutation_type TEXT NOT NULL,
        created_at REAL NOT NULL
    )
    """,
    "CREATE INDEX module_versions_by_sandbox ON module_versions (sandbox_id, module, number)",
)
