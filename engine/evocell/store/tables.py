"""The tables of a run: engines that were open, sandboxes, lineage, batches, evaluations, sources, readings.

A row's own number is ``run << 32 | n``, so that engines which share a store never give out the same one.
"""

from __future__ import annotations

__all__ = ["DDL", "NUMBER_BITS"]

NUMBER_BITS = 32
"""Bits of a row's number below those of its run."""

DDL: tuple[str, ...] = (
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
