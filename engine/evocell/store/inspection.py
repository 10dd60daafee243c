"""Consistency check of a store: damaged rows and broken references."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from evocell.store.encoding import unpack, unpack_files
from evocell.store.runs import is_alive

__all__ = ["inspect_store"]

_MOST = 20
"""Problems of one kind that are named; the rest is counted."""

_QUESTIONS: tuple[tuple[str, str], ...] = (
    (
        """
        SELECT sandbox_id FROM evaluations
        WHERE sandbox_id <> '' AND sandbox NOT IN (SELECT sandbox FROM sandboxes)
        """,
        "{} has an evaluation and is not among the sandboxes",
    ),
    (
        "SELECT child FROM lineage WHERE child NOT IN (SELECT sandbox FROM sandboxes)",
        "number {} has parents and is not among the sandboxes",
    ),
    (
        "SELECT parent_id FROM lineage WHERE parent NOT IN (SELECT sandbox FROM sandboxes)",
        "{} is somebody's parent and is not among the sandboxes",
    ),
    (
        "SELECT child FROM lineage WHERE parent >= child AND parent >> 32 = child >> 32",
        "number {} is older than its parent",
    ),
    (
        """
        SELECT DISTINCT version FROM evaluations
        WHERE status = 'done' AND version IS NOT NULL AND version NOT IN (SELECT version FROM sources)
        """,
        "the text of version {} is missing",
    ),
    (
        """
        SELECT batch FROM batches WHERE outcome = 'done'
            AND count <> (SELECT count(*) FROM evaluations WHERE evaluations.batch = batches.batch)
        """,
        "batch {} is done and has not as many evaluations as members",
    ),
)

_PACKED: tuple[tuple[str, str, Callable[[bytes], object]], ...] = (
    ("SELECT evaluation, test_results FROM evaluations", "the cases of evaluation {}", unpack),
    ("SELECT version, files FROM sources", "the text of version {}", unpack_files),
    ("SELECT sandbox, metadata FROM lineage_notes", "what is known of the mutation of number {}", unpack),
    ("SELECT batch, members FROM batches", "the members of batch {}", unpack),
    ("SELECT sandbox, config FROM sandboxes WHERE config IS NOT NULL", "the config of number {}", unpack),
)


def inspect_store(connection: sqlite3.Connection, path: Path) -> Iterator[str]:
    """Return the faults of a store, a sentence each.

    Args:
        connection: Opened with `open_reader`.
        path: The database.
    """
    try:
        damage = [row[0] for row in connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
    except sqlite3.DatabaseError as error:
        damage = [str(error)]
    if damage:
        yield from (f"the database is damaged: {one}" for one in damage)
        return
    for run, outcome in connection.execute("SELECT run, outcome FROM runs ORDER BY run"):
        if outcome == "open" and not is_alive(path, run):
            yield f"the engine of run {run} was killed; the next start of an engine here marks what it left"
    for sql, sentence in _QUESTIONS:
        yield from _some([sentence.format(row[0]) for row in connection.execute(sql)])
    for sql, what, decode in _PACKED:
        yield from _some(
            [what.format(key) + " cannot be read" for key in _unreadable(connection, sql, decode)]
        )


def _unreadable(
    connection: sqlite3.Connection, sql: str, decode: Callable[[bytes], object]
) -> Iterator[object]:
    for key, packed in connection.execute(sql):
        try:
            decode(packed)
        except (ValueError, TypeError, zlib.error):
            yield key


def _some(problems: list[str]) -> Iterator[str]:
    yield from problems[:_MOST]
    if len(problems) > _MOST:
        yield f"and {len(problems) - _MOST:,} more of this kind"
