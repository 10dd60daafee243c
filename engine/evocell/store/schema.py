"""The schema of the store's database, and its migrations. Times are seconds since 1970."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

__all__ = ["APPLICATION_ID", "LATEST_S", "MIGRATIONS", "NUMBER_BITS", "VERSION", "Migration"]

APPLICATION_ID = 0x65766F63
"""``evoc``: the application id in the header of evocell's databases."""


LATEST_S = 253_402_300_799
"""The last second of the year 9999: the latest time that there may be."""

NUMBER_BITS = 32
"""Bits of a row's number below the bits of its run."""

_RUNS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        run INTEGER PRIMARY KEY,
        started_at REAL NOT NULL,
        ended_at REAL,
        outcome TEXT NOT NULL,        -- open, closed, or killed: found dead at a later start
        pid INTEGER NOT NULL,
        image_id TEXT,
        engine_version TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE sandboxes (
        sandbox INTEGER PRIMARY KEY,
        run INTEGER NOT NULL,
        id TEXT NOT NULL,
        kept INTEGER NOT NULL,        -- 0: evaluated without becoming a sandbox
        status TEXT NOT NULL,
        generation INTEGER NOT NULL,
        parent_id TEXT,
        mutation_type TEXT NOT NULL,
        lineage_depth INTEGER NOT NULL,
        population TEXT,
        version TEXT,
        fitness REAL,
        valid INTEGER,                -- whether fitness is a real score; NULL while there is none
        evaluated_at REAL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        restart_count INTEGER NOT NULL,
        error TEXT,
        supervisor TEXT,
        monitor TEXT,
        config BLOB,                  -- msgpack
        transitions BLOB              -- msgpack
    )
    """,
    "CREATE INDEX sandboxes_by_id ON sandboxes (id)",
    "CREATE INDEX sandboxes_by_generation ON sandboxes (generation, fitness)",
    """
    CREATE TABLE lineage (
        child INTEGER NOT NULL,
        place INTEGER NOT NULL,
        parent INTEGER,               -- NULL: no individual of this store has the id
        parent_id TEXT NOT NULL,
        PRIMARY KEY (child, place)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX lineage_by_parent ON lineage (parent)",
    """
    CREATE TABLE lineage_notes (
        sandbox INTEGER PRIMARY KEY,
        metadata BLOB NOT NULL        -- msgpack map: what the mutation was
    )
    """,
    """
    CREATE TABLE batches (
        batch INTEGER PRIMARY KEY,
        run INTEGER NOT NULL,
        operation TEXT NOT NULL,
        count INTEGER NOT NULL,
        entry TEXT NOT NULL,
        task TEXT NOT NULL,           -- the same for evaluations whose scores can be compared
        direction TEXT NOT NULL,      -- of the first objective: maximize, minimize
        members BLOB NOT NULL,        -- msgpack array of sandbox numbers
        begun_at REAL NOT NULL,
        ended_at REAL,
        outcome TEXT NOT NULL         -- running, done, failed, interrupted
    )
    """,
    "CREATE INDEX batches_open ON batches (outcome) WHERE outcome = 'running'",
    """
    CREATE TABLE evaluations (
        evaluation INTEGER PRIMARY KEY,
        run INTEGER NOT NULL,
        batch INTEGER,
        sandbox INTEGER NOT NULL,
        sandbox_id TEXT NOT NULL,
        generation INTEGER NOT NULL,
        status TEXT NOT NULL,         -- done, interrupted
        fitness_score REAL,
        valid INTEGER NOT NULL,
        objectives TEXT NOT NULL,     -- JSON
        components TEXT NOT NULL,     -- JSON
        reason TEXT,
        error TEXT,
        evaluated_at REAL NOT NULL,
        evaluation_time_ms REAL NOT NULL,
        fuel_used INTEGER NOT NULL,
        peak_memory_bytes INTEGER NOT NULL,
        deterministic INTEGER NOT NULL,
        version TEXT,
        test_results BLOB NOT NULL    -- msgpack
    )
    """,
    "CREATE INDEX evaluations_by_sandbox ON evaluations (sandbox)",
    "CREATE INDEX evaluations_by_batch ON evaluations (batch)",
    """
    CREATE TABLE adjustments (
        adjustment INTEGER PRIMARY KEY,
        run INTEGER NOT NULL,
        sandbox INTEGER NOT NULL,
        sandbox_id TEXT NOT NULL,
        delta REAL NOT NULL,
        score_before REAL NOT NULL,
        score_after REAL NOT NULL,
        reason TEXT NOT NULL,
        adjusted_at REAL NOT NULL
    )
    """,
    "CREATE INDEX adjustments_by_sandbox ON adjustments (sandbox)",
    """
    CREATE TABLE sources (
        version TEXT PRIMARY KEY,
        n_bytes INTEGER NOT NULL,
        files BLOB NOT NULL           -- zlib of a msgpack map from path to text
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE readings (
        run INTEGER NOT NULL,
        name TEXT NOT NULL,           -- engine, or a worker's name
        read_at REAL NOT NULL,
        reading BLOB NOT NULL,        -- msgpack map of the latest one
        PRIMARY KEY (run, name)
    ) WITHOUT ROWID
    """,
)

_AUDIT_TABLE = """
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
"""

_RECORDS_TABLE = """
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
"""

_RECORDS: tuple[str, ...] = (
    _AUDIT_TABLE,
    "CREATE INDEX audit_by_sandbox ON audit (sandbox_id, seq)",
    "CREATE INDEX audit_by_kind ON audit (kind, seq)",
    _RECORDS_TABLE,
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

_POPULATIONS: tuple[str, ...] = (
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

_VERSIONS: tuple[str, ...] = (
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

_FEWER_PAGES: tuple[str, ...] = (
    # What a single result changes is written and synced before the result is returned: a page for each table
    # and each index.
    "DROP INDEX sandboxes_by_generation",  # no query used it
    "DROP INDEX sandboxes_by_population",
    """
    CREATE INDEX sandboxes_by_population ON sandboxes (population, generation) WHERE population IS NOT NULL
    """,
    # Both without AUTOINCREMENT, which has a page of its own. The newest rows are never deleted, so no number
    # is used twice.
    "ALTER TABLE audit RENAME TO former_audit",
    _AUDIT_TABLE.replace(" AUTOINCREMENT", ""),
    "INSERT INTO audit SELECT * FROM former_audit",
    "DROP TABLE former_audit",
    "CREATE INDEX audit_by_sandbox ON audit (sandbox_id, seq) WHERE sandbox_id <> ''",
    "CREATE INDEX audit_by_kind ON audit (kind, seq) WHERE kind <> 'allowed'",
    "ALTER TABLE records RENAME TO former_records",
    _RECORDS_TABLE.replace(" AUTOINCREMENT", ""),
    "INSERT INTO records SELECT * FROM former_records",
    "DROP TABLE former_records",
    """
    CREATE TABLE byte_code (
        seq INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,     -- hash of everything that the byte code of a file depends on
        unit BLOB NOT NULL            -- its SHA-256, and a msgpack array: path, byte code, imports, marks
    )
    """,
)


@frozen
class Migration:
    """A step from one version of the schema to the next.

    Attributes:
        version: The version after it.
        statements: What to execute, in order, in one transaction.
    """

    version: int
    statements: Sequence[str]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, (*_RUNS, *_RECORDS, *_POPULATIONS, *_VERSIONS)),
    Migration(2, _FEWER_PAGES),
)
"""All steps from an empty database, in order."""

VERSION = MIGRATIONS[-1].version
"""The version this code reads and writes."""
