"""Evaluations of runs, read from a store incrementally, in the order of their ends."""

from __future__ import annotations

import heapq
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import define, frozen

from evocell.store.schema import NUMBER_BITS

__all__ = ["Member", "Row", "RowReader", "latest_row", "short"]

_NAME_CHARS = 200
_CHUNK = 4_000
"""Rows read in one query: a short transaction, so that it does not delay the engine's checkpoints."""

_NEW = """
    SELECT e.evaluation, b.task, e.sandbox, e.sandbox_id, e.generation, s.fitness, e.fitness_score, e.valid,
        e.reason, e.evaluated_at, e.evaluation_time_ms, e.fuel_used, coalesce(e.version, s.version)
    FROM evaluations e JOIN batches b USING (batch) LEFT JOIN sandboxes s ON s.sandbox = e.sandbox
    WHERE e.evaluation > :seen AND e.evaluation <= :last
        AND (:population IS NULL OR s.population = :population)
    ORDER BY e.evaluation LIMIT :chunk
"""
_ADJUSTED = """
    SELECT adjustment, sandbox, score_after, adjusted_at FROM adjustments
    WHERE adjustment > :seen AND adjustment < :end ORDER BY adjustment LIMIT :chunk
"""
_LAST = "SELECT max(evaluation) FROM evaluations WHERE evaluation >= :start AND evaluation < :end"


@define
class Member:
    """An individual with its latest evaluation.

    Attributes:
        number: Its number in the store.
        id: Its id.
        generation: Its generation.
        score: Its fitness, with adjustments; None if there is none.
        valid: Whether the evaluation was valid.
        reason: The reason if it was not.
        at: End of the evaluation, as a Unix time.
        time_ms: Duration of the evaluation in milliseconds.
        fuel: Fuel used.
        version: Digest of its code.
    """

    number: int
    id: str
    generation: int
    score: float | None
    valid: bool
    reason: str | None
    at: float
    time_ms: float
    fuel: int
    version: str | None


@frozen
class Row:
    """An evaluation.

    Attributes:
        task: Digest of the task; scores can be compared within a task.
        member: The individual.
    """

    task: str
    member: Member


class RowReader:
    """Reads the evaluations and adjustments of runs, each only once.

    Args:
        connection: Opened with `open_reader`.
        population: Only members of this one; None for all.
    """

    def __init__(self, connection: sqlite3.Connection, population: str | None) -> None:
        self._connection = connection
        self._population = population
        self._seen: dict[int, int] = {}
        self._adjusted: dict[int, int] = {}

    def new(self, runs: Sequence[int]) -> Iterator[Row]:
        """Return the evaluations added since the last call, in the order of their ends."""
        return heapq.merge(*(self._of(run) for run in runs), key=lambda row: row.member.at)

    def adjustments(self, runs: Sequence[int]) -> Iterator[tuple[int, float, float]]:
        """Return individual's number, new fitness and Unix time of each adjustment since the last call."""
        for run in runs:
            while True:
                wanted = {**_bounds(run), "seen": self._adjusted.get(run, run << NUMBER_BITS)}
                rows = self._connection.execute(_ADJUSTED, {**wanted, "chunk": _CHUNK}).fetchall()
                for row, number, score, at in rows:
                    self._adjusted[run] = row
                    yield number, score, at
                if len(rows) < _CHUNK:
                    break

    def _of(self, run: int) -> Iterator[Row]:
        last = latest_row(self._connection, run)
        if last is None:
            return
        wanted = {"last": last, "population": self._population, "chunk": _CHUNK}
        while (seen := self._seen.get(run, run << NUMBER_BITS)) < last:
            rows = self._connection.execute(_NEW, {**wanted, "seen": seen}).fetchall()
            for row in rows:
                self._seen[run] = row[0]
                yield Row(row[1], _member(row[2:]))
            if len(rows) < _CHUNK:
                self._seen[run] = last


def latest_row(connection: sqlite3.Connection, run: int) -> int | None:
    """Return the number of a run's latest evaluation, or None; numbers start at ``run << NUMBER_BITS``."""
    last: int | None = connection.execute(_LAST, _bounds(run)).fetchone()[0]
    return last


def _bounds(run: int) -> Mapping[str, int]:
    return {"start": run << NUMBER_BITS, "end": (run + 1) << NUMBER_BITS}


def _member(row: Sequence[Any]) -> Member:
    number, sandbox_id, generation, latest, score, valid, reason, *rest = row
    # The latest fitness of an individual may have been adjusted since.
    found = score if latest is None else latest
    if found is not None and not math.isfinite(found):
        found = None
    return Member(number, short(sandbox_id), generation, found, bool(valid), reason and short(reason), *rest)


def short(name: str) -> str:
    """Return a name, truncated to a length that is reasonable for names."""
    return name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"
