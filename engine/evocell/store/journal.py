"""Journal of an engine's rows in the store; no method waits for the disk.

Rows are made from their objects in the writer's thread, and the rows of one table are inserted together.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, groupby
from operator import itemgetter
from typing import Any, TypeAlias

from attrs import define, field

from evocell.errors import ConfigurationError, StoreError
from evocell.models.fitness import FitnessResult
from evocell.models.state import SandboxState, SandboxStatus
from evocell.store.encoding import (
    STREAM_CHARS,
    config_record,
    pack,
    pack_files,
    results_record,
    seconds,
    text,
    transitions_record,
    unpack,
    unpack_files,
)
from evocell.store.inspection import blaming_store
from evocell.store.lineage import Individual
from evocell.store.schema import NUMBER_BITS
from evocell.store.store import Store

__all__ = ["Journal"]

MOST_IN_BUNDLE = 50_000
"""Most rows waiting to be written; beyond it, a caller waits for the writer."""

MOST_BEGUN_IN_TROUBLE = 10_000
"""Most individuals and batches that may begin while writes fail; further ones are refused."""

SHORT_BYTES = 4096
"""Bytes of text that are encoded beside a call."""

KNOWN_VERSIONS = 100_000
"""Most versions remembered as written."""

_SANDBOX = """
    INSERT INTO sandboxes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (sandbox) DO UPDATE SET status = excluded.status, version = excluded.version,
        updated_at = excluded.updated_at, restart_count = excluded.restart_count, error = excluded.error,
        supervisor = excluded.supervisor, monitor = excluded.monitor, transitions = excluded.transitions
"""
_EVALUATION = (
    "INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_FITNESS = """
    UPDATE sandboxes SET fitness = ?, valid = ?, evaluated_at = ?, version = coalesce(version, ?)
    WHERE sandbox = ? AND (version IS NULL OR version IS ?)
"""
_ADJUSTED = "UPDATE sandboxes SET fitness = ? WHERE sandbox = ?"
_UNSCORED = "UPDATE sandboxes SET fitness = NULL, valid = NULL, evaluated_at = NULL WHERE sandbox = ?"
_BATCH = "INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_BATCH_ENDED = "UPDATE batches SET ended_at = ?, outcome = ? WHERE batch = ?"
_ADJUSTMENT = "INSERT OR REPLACE INTO adjustments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PAST = """
    SELECT sandbox, id, generation, mutation_type, version, lineage_depth FROM sandboxes
    WHERE kept OR sandbox IN (SELECT child FROM lineage) OR sandbox IN (SELECT parent FROM lineage)
    ORDER BY created_at, sandbox
"""
_FORGOTTEN = """
    SELECT sandbox, id, generation, mutation_type, version, lineage_depth FROM sandboxes
    WHERE id = ? ORDER BY created_at DESC, sandbox DESC LIMIT 1
"""


_Score: TypeAlias = tuple[float | None, bool | None, float | None, str | None]
"""Fitness, whether it is valid, when it was computed, and the digest of the code that has it."""

_NO_SCORE = (None, None, None, None)


@define(eq=False)
class _Evaluated:
    """A result waiting to be written."""

    row: int
    batch: int | None
    number: int
    result: FitnessResult
    version: str | None


@define(eq=False)
class _Source:
    """A version's text waiting to be written."""

    version: str
    files: Sequence[tuple[str, bytes]]
    row: tuple[Any, ...] | None = None

    def encoded(self) -> tuple[Any, ...]:
        """Return its row."""
        if self.row is None:
            self.row = (self.version, *pack_files(self.files))
        return self.row


@define(eq=False)
class _Bundle:
    """Rows to be written in one transaction; a later bundle may refer to rows of an earlier one.

    Attributes:
        states: The latest state of each changed sandbox, and whether the sandbox is kept.
        first_scores: The fitness of individuals that are not kept and not written yet, so that it is written
            with their state, which changes no more.
        edges: Children with their parents.
        sources: Versions with their files.
        evaluations: Results.
        scores: All other changes of sandboxes' fitness, in order.
        batches: Batches that begin, by number; most end before they are written.
        statements: All other statements, in order, executed after the rows above.
    """

    states: dict[int, tuple[SandboxState, bool]] = field(factory=dict)
    first_scores: dict[int, _Score] = field(factory=dict)
    edges: list[tuple[int, Sequence[tuple[str, int]]]] = field(factory=list)
    sources: list[_Source] = field(factory=list)
    evaluations: list[_Evaluated] = field(factory=list)
    scores: list[tuple[str, Sequence[Any]]] = field(factory=list)
    batches: dict[int, tuple[Any, ...]] = field(factory=dict)
    statements: list[tuple[str, Sequence[Any]]] = field(factory=list)

    def __len__(self) -> int:
        return (
            len(self.states)
            + len(self.edges)
            + len(self.sources)
            + len(self.evaluations)
            + len(self.scores)
            + len(self.batches)
            + len(self.statements)
        )


class Journal:
    """Records one run in the store.

    Args:
        store: The store.
        run: The run's number.
    """

    def __init__(self, store: Store, run: int) -> None:
        self.store = store
        self.run = run
        self._base = run << NUMBER_BITS
        self._numbers = count(self._base + 1)
        self._batches = count(self._base + 1)
        self._rows_of_evaluations = count(self._base + 1)
        self._adjustments = count(self._base + 1)
        self._lock = threading.Lock()
        self._open: _Bundle | None = None
        self._versions: set[str] = set()
        self._begun_in_trouble = 0

    def new_number(self) -> int:
        """Return a number for an individual, unique over all runs.

        Raises:
            StoreError: The store cannot be written, and much is waiting for it.
        """
        self._refuse_too_many()
        return next(self._numbers)

    def state(self, number: int, state: SandboxState, *, kept: bool = True) -> None:
        """Record the state of a sandbox, or of an individual that is not kept (`kept` False)."""
        with self._bundle() as bundle:
            bundle.states[number] = state, kept

    def edges(self, child: int, parents: Sequence[tuple[str, int]]) -> None:
        """Record the parents of an individual, each with its number, or 0 for an unknown one."""
        with self._bundle() as bundle:
            bundle.edges.append((child, parents))

    def notes(self, number: int, metadata: Mapping[str, object]) -> None:
        """Record the metadata of a mutation.

        Raises:
            ConfigurationError: A value is not plain data.
        """
        try:
            packed = pack(dict(metadata))
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigurationError(
                f"metadata must be plain data (None, numbers, strings, bytes, lists, dicts): {error}",
                "metadata",
            ) from error
        self._execute("INSERT OR REPLACE INTO lineage_notes VALUES (?, ?)", (number, packed))

    def begin_batch(
        self, operation: str, members: Sequence[int], *, entry: str, task: str, direction: str
    ) -> int:
        """Record the start of a batch of evaluations, so that recovery can detect an unfinished one.

        Args:
            operation: The caller's operation.
            members: Numbers of the individuals in it.
            entry: The entry.
            task: Digest, equal for evaluations with comparable scores.
            direction: ``"maximize"`` or ``"minimize"``, of the first objective.

        Returns:
            The batch's number.

        Raises:
            StoreError: The store cannot be written, and much is waiting for it.
        """
        self._refuse_too_many()
        batch = next(self._batches)
        row = (batch, self.run, operation, len(members), text(entry), task, direction, pack(list(members)))
        with self._bundle() as bundle:
            bundle.batches[batch] = (*row, time.time(), None, "running")
        return batch

    def end_batch(self, batch: int, outcome: str) -> None:
        """Record the end of a batch: ``"done"``, or ``"failed"`` if some members may have no result."""
        with self._bundle() as bundle:
            begun = bundle.batches.get(batch)
            if begun is None:
                bundle.statements.append((_BATCH_ENDED, (time.time(), outcome, batch)))
            else:
                bundle.batches[batch] = (*begun[:-2], time.time(), outcome)

    def evaluated(self, batch: int | None, number: int, result: FitnessResult, version: str | None) -> None:
        """Record the result of an individual."""
        evaluated = _Evaluated(next(self._rows_of_evaluations), batch, number, result, version)
        with self._bundle() as bundle:
            bundle.evaluations.append(evaluated)
            score = (result.fitness_score, result.valid, seconds(result.evaluated_at), version)
            state, kept = bundle.states.get(number, (None, True))
            if state is None or kept or state.version is not None or number in bundle.first_scores:
                bundle.scores.append((_FITNESS, (*score, number, version)))
            else:
                bundle.first_scores[number] = score

    def adjusted(
        self, number: int, sandbox_id: str, *, delta: float, before: float, after: float, reason: str
    ) -> None:
        """Record an adjustment of an individual's fitness."""
        row = (next(self._adjustments), self.run, number, sandbox_id, delta, before, after, text(reason))
        self._execute(_ADJUSTMENT, (*row, time.time()))
        with self._bundle() as bundle:
            bundle.scores.append((_ADJUSTED, (after, number)))

    def inherited(
        self, number: int, *, score: float | None, valid: bool, evaluated_at: float, version: str | None
    ) -> None:
        """Record the fitness that an individual inherits from an earlier run."""
        with self._bundle() as bundle:
            bundle.scores.append((_FITNESS, (score, valid, evaluated_at, version, number, version)))

    def unscored(self, number: int) -> None:
        """Record that an individual has new code, which invalidates its fitness."""
        with self._bundle() as bundle:
            bundle.scores.append((_UNSCORED, (number,)))

    def source(self, version: str, files: Sequence[tuple[str, bytes]]) -> None:
        """Record the text of a version."""
        if version in self._versions:
            return
        if len(self._versions) >= KNOWN_VERSIONS:
            self._versions.clear()
        self._versions.add(version)
        with self._bundle() as bundle:
            bundle.sources.append(_Source(version, files))

    def prepare(self) -> None:
        """Encode the text that is queued, if it is short, so that the commit has less to do."""
        with self._lock:
            waiting = [] if self._open is None else list(self._open.sources)
        for source in waiting:
            if sum(len(content) for _, content in source.files) <= SHORT_BYTES:
                source.encoded()

    def reading(self, name: str, reading: Mapping[str, object]) -> None:
        """Record the latest reading of the engine or of a worker, replacing the one before."""
        row = (self.run, name, time.time(), pack(dict(reading)))
        self._execute("INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?)", row)

    def past(self, known: frozenset[int]) -> Iterator[Individual]:
        """Return the individuals with lineage, parents first, except known ones.

        Raises:
            StoreError: The store cannot be read.
        """
        self.store.catch_up()  # unwritten rows are of this run, and known
        with blaming_store(self.store.path):
            parents: dict[int, list[str]] = {}
            for child, parent_id in self.store.query(
                "SELECT child, parent_id FROM lineage ORDER BY child, place"
            ):
                parents.setdefault(child, []).append(parent_id)
            notes = dict(self.store.query("SELECT sandbox, metadata FROM lineage_notes"))
            for row in self.store.query(_PAST):
                number = row[0]
                if number not in known:
                    metadata = unpack(notes[number]) if number in notes else {}
                    yield _individual(row, tuple(parents.get(number, ())), metadata)

    def find(self, individual_id: str) -> Individual | None:
        """Return the last individual with an id, from the store."""
        with blaming_store(self.store.path):
            rows = self.store.query(_FORGOTTEN, (individual_id,))
            if not rows:
                return None
            parents = self.store.query(
                "SELECT parent_id FROM lineage WHERE child = ? ORDER BY place", (rows[0][0],)
            )
            return _individual(rows[0], tuple(parent for (parent,) in parents), {})

    def version_of(self, number: int) -> str | None:
        """Return the digest of an individual's code."""
        self.store.flush_blocking()
        rows = self.store.query("SELECT version FROM sandboxes WHERE sandbox = ?", (number,))
        return rows[0][0] if rows else None

    def files_of(self, version: str) -> dict[str, str | None] | None:
        """Return the text of a version; None if it is missing.

        Raises:
            StoreError: It is damaged.
        """
        self.store.flush_blocking()
        rows = self.store.query("SELECT files FROM sources WHERE version = ?", (version,))
        try:
            return unpack_files(rows[0][0]) if rows else None
        except ValueError as error:
            raise StoreError(f"{error} (version {version})", str(self.store.path)) from error

    @contextmanager
    def _bundle(self) -> Iterator[_Bundle]:
        """Add to the open bundle; the writer closes it when it writes it."""
        with self._lock:
            bundle = self._open
            if bundle is None:
                bundle = self._open = _Bundle()
                # Without waiting, since the writer may need the lock first.
                self.store.write(partial(self._write, bundle), wait=False)
            yield bundle
        if len(bundle) > MOST_IN_BUNDLE:
            self.store.catch_up()  # bounds the memory

    def _refuse_too_many(self) -> None:
        """Refuse new work while too much waits in memory for a store that cannot be written."""
        trouble = self.store.trouble
        if not trouble:
            self._begun_in_trouble = 0
            return
        if self._begun_in_trouble >= MOST_BEGUN_IN_TROUBLE:
            raise StoreError(
                f"the store {self.store.path} cannot be written: {trouble}; too much waits for it, "
                "so nothing more is begun until it can be",
                str(self.store.path),
            )
        self._begun_in_trouble += 1

    def _execute(self, sql: str, parameters: Sequence[Any]) -> None:
        with self._bundle() as bundle:
            bundle.statements.append((sql, parameters))

    def _write(self, bundle: _Bundle, connection: sqlite3.Connection) -> None:
        with self._lock:
            if self._open is bundle:
                self._open = None
        now = time.time()
        if bundle.states:
            scores = bundle.first_scores
            rows = (
                self._state_row(number, *state, scores.get(number, _NO_SCORE), now)
                for number, state in bundle.states.items()
            )
            connection.executemany(_SANDBOX, rows)
        if bundle.edges:
            _insert_edges(connection, bundle.edges)
        if bundle.sources:
            _insert_sources(connection, bundle.sources)
        if bundle.evaluations:
            connection.executemany(_EVALUATION, map(self._evaluation_row, bundle.evaluations))
        for sql, changes in groupby(bundle.scores, key=itemgetter(0)):
            connection.executemany(sql, (parameters for _, parameters in changes))
        if bundle.batches:
            connection.executemany(_BATCH, bundle.batches.values())
        for sql, parameters in bundle.statements:
            connection.execute(sql, parameters)

    def _state_row(
        self,
        number: int,
        state: SandboxState,
        kept: bool,  # noqa: FBT001
        score: _Score,
        now: float,
    ) -> tuple[Any, ...]:
        fitness, valid, evaluated_at, version = score
        return (
            number,
            self.run,
            state.id,
            kept,
            (state.status if kept else SandboxStatus.STOPPED).value,
            state.generation,
            state.parent_id,
            state.mutation_type,
            state.lineage_depth,
            state.population,
            state.version or version,
            fitness,
            valid,
            evaluated_at,
            seconds(state.created_at),
            now,
            state.restart_count,
            text(state.error, STREAM_CHARS),
            state.supervisor,
            state.monitor,
            config_record(state) if kept else None,
            transitions_record(state) if kept else None,
        )

    def _evaluation_row(self, evaluated: _Evaluated) -> tuple[Any, ...]:
        result = evaluated.result
        return (
            evaluated.row,
            self.run,
            evaluated.batch,
            evaluated.number,
            result.sandbox_id,
            result.generation,
            "done",
            result.fitness_score,
            result.valid,
            json.dumps(result.objectives),
            json.dumps(dict(result.components)) if result.components else "{}",
            result.reason,
            text(result.error, STREAM_CHARS),
            seconds(result.evaluated_at),
            result.evaluation_time_ms,
            result.fuel_used,
            result.peak_memory_bytes,
            result.deterministic,
            evaluated.version,
            results_record(result),
        )


def _insert_edges(
    connection: sqlite3.Connection, rows: Sequence[tuple[int, Sequence[tuple[str, int]]]]
) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO lineage VALUES (?, ?, ?, ?)",
        (
            (child, place, number or None, parent_id)
            for child, parents in rows
            for place, (parent_id, number) in enumerate(parents)
        ),
    )


def _insert_sources(connection: sqlite3.Connection, sources: Sequence[_Source]) -> None:
    for source in sources:
        # What was encoded before is inserted at once; of others it is asked whether that has to be done.
        if source.row is None:
            known = connection.execute("SELECT 1 FROM sources WHERE version = ?", (source.version,))
            if known.fetchone() is not None:
                continue
        connection.execute("INSERT OR IGNORE INTO sources VALUES (?, ?, ?)", source.encoded())


def _individual(row: Sequence[Any], parent_ids: tuple[str, ...], metadata: object) -> Individual:
    number, sandbox_id, generation, mutation_type, version, depth = row
    return Individual(
        id=sandbox_id,
        number=number,
        parent_ids=parent_ids,
        generation=generation,
        mutation_type=mutation_type,
        version=version,
        depth=depth,
        metadata=metadata if isinstance(metadata, dict) else {},
    )
