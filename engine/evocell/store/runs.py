"""Engines as runs of a store: open, closed or killed; recovery after a kill; the runs of one search.

An open run holds a lock on a file of its own; a run that is open in the store and whose file can
be locked was killed. Its unfinished evaluations and live sandboxes are then marked as interrupted or lost.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from attrs import field, frozen

from evocell.errors import ConfigurationError, StoreError
from evocell.store.database import store_errors
from evocell.store.encoding import unpack
from evocell.store.schema import NUMBER_BITS
from evocell.store.store import Store
from evocell_runtime.private import make_private

__all__ = [
    "INTERRUPTED",
    "LOST",
    "LostSandbox",
    "RecoveryReport",
    "Run",
    "chosen_runs",
    "is_alive",
    "open_run",
    "run_outcome",
    "runs_of_search",
]

INTERRUPTED = "interrupted"
"""Status and reason of an evaluation under way when its engine was killed."""

LOST = "the engine that held it was killed"
"""Error recorded for a sandbox that was alive when its engine was killed."""

_LOCKS = "runs"

_LAST_SIGN = """
    SELECT max(at) FROM (
        SELECT max(updated_at) AS at FROM sandboxes WHERE run = :run
        UNION ALL SELECT max(evaluated_at) FROM evaluations WHERE run = :run
        UNION ALL SELECT max(read_at) FROM readings WHERE run = :run
    )
"""

_ALIVE = "WHERE run = ? AND kept AND status <> 'stopped'"
_STOP = "UPDATE sandboxes SET status = 'stopped',"
_KILLED = """
    UPDATE runs SET outcome = 'killed', ended_at = (SELECT max(updated_at) FROM sandboxes WHERE run = ?)
    WHERE run = ?
"""
_UNFINISHED = """
    INSERT INTO evaluations
    VALUES (?, ?, ?, ?, ?, ?, 'interrupted', NULL, 0, '[]', '{}', 'interrupted', ?, ?, 0, 0, 0, 0, ?, x'90')
"""


@frozen
class LostSandbox:
    """A sandbox that was alive when its engine was killed.

    Attributes:
        id: Its id.
        number: Its number in the store.
        version: Digest of its code; None if it had none.
    """

    id: str
    number: int
    version: str | None


@frozen
class RecoveryReport:
    """Report of a recovery: faults found and repaired in the store.

    Attributes:
        runs: Runs that were killed.
        interrupted: Ids of individuals whose evaluation was under way.
        lost: Sandboxes that were alive.
        missing_versions: Versions without tree and without source.
    """

    runs: tuple[int, ...] = ()
    interrupted: tuple[str, ...] = ()
    lost: tuple[LostSandbox, ...] = ()
    missing_versions: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.runs or self.missing_versions)

    def counts(self) -> dict[str, float]:
        """Return the number of findings of each kind."""
        return {
            "runs": len(self.runs),
            "interrupted": len(self.interrupted),
            "lost": len(self.lost),
            "missing_versions": len(self.missing_versions),
        }

    def sentences(self) -> list[str]:
        """Return the findings and repairs as sentences."""
        if not self:
            return []
        told = [f"{_several(self.runs, 'engine')} had been killed (run {_listed(self.runs)})"]
        if self.interrupted:
            some = _listed(self.interrupted)
            told.append(f"{_several(self.interrupted, 'evaluation')} marked as interrupted: {some}")
        if self.lost:
            some = _listed([one.id for one in self.lost])
            told.append(f"{_several(self.lost, 'sandbox', 'sandboxes')} marked as stopped: {some}")
        if self.missing_versions:
            some = _listed([one[:12] for one in self.missing_versions])
            told.append(f"the code of {_several(self.missing_versions, 'version')} is missing: {some}")
        return told


class Run:
    """One engine's use of a store; close it when the engine ends in order.

    Attributes:
        number: Its number.
        repairs: The report of the recovery at its start.
    """

    def __init__(self, store: Store, number: int, lock: int, repairs: RecoveryReport) -> None:
        self.number = number
        self.repairs = repairs
        self._store = store
        self._lock: int | None = lock

    def close(self) -> None:
        """Record the orderly end of the engine; idempotent.

        Raises:
            StoreError: Part of the run could not be written, and the store is durable.
        """
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            self._store.execute(
                f"{_STOP} updated_at = ? {_ALIVE}",
                (time.time(), self.number),
            )
            self._store.execute(
                "UPDATE runs SET outcome = 'closed', ended_at = ? WHERE run = ?", (time.time(), self.number)
            )
            try:
                self._store.flush_blocking()
            except StoreError:
                if self._store.durable:
                    raise
            with suppress(OSError):
                _lock_path(self._store, self.number).unlink()
        finally:
            os.close(lock)


def open_run(store: Store, *, image_id: str, has_version: Callable[[str], bool]) -> Run:
    """Register a new run in a store, after the recovery of killed runs.

    Args:
        store: The store.
        image_id: The image its sandboxes are forked from.
        has_version: Returns whether the tree of a version exists.

    Raises:
        StoreError: The store cannot be written.
    """
    held: list[int] = []

    def begin(connection: sqlite3.Connection) -> tuple[int, int, RecoveryReport]:
        while held:  # the change may be called again
            os.close(held.pop())
        repairs = _recover(store, connection, has_version)
        number = connection.execute("SELECT coalesce(max(run), 0) + 1 FROM runs").fetchone()[0]
        lock = os.open(_lock_path(store, number), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        held.append(lock)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        connection.execute(
            "INSERT INTO runs VALUES (?, ?, NULL, 'open', ?, ?, ?)",
            (number, time.time(), os.getpid(), image_id, _version()),
        )
        return number, lock, repairs

    locks = _lock_path(store, 0).parent
    with store_errors(locks):
        problem = make_private(locks)
    if problem is not None:
        raise StoreError(problem, str(locks))
    number, lock, repairs = store.ask(begin)
    return Run(store, number, lock, repairs)


def is_alive(store_path: Path, run: int) -> bool:
    """Return whether the engine of an open run is alive."""
    try:
        lock = os.open(store_path.parent / _LOCKS / f"{run}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def run_outcome(connection: sqlite3.Connection, store_path: Path, run: int) -> tuple[str, float | None]:
    """Return the current status of a run (``"open"``, ``"closed"`` or ``"killed"``), and when it ended.

    A killed run is reported as such at once, though the store records it only at the next start of an engine;
    it ended with its last recorded event.

    Args:
        connection: Opened with `open_reader`.
        store_path: The database.
        run: The run's number.
    """
    started, ended, outcome = connection.execute(
        "SELECT started_at, ended_at, outcome FROM runs WHERE run = ?", (run,)
    ).fetchone()
    if outcome == "open" and is_alive(store_path, run):
        return "open", None
    if outcome != "open" and ended is not None:
        return str(outcome), float(ended)
    last = connection.execute(_LAST_SIGN, {"run": run}).fetchone()[0]
    return "killed" if outcome == "open" else str(outcome), float(last or started)


def _recover(
    store: Store, connection: sqlite3.Connection, has_version: Callable[[str], bool]
) -> RecoveryReport:
    opened = connection.execute("SELECT run FROM runs WHERE outcome = 'open' ORDER BY run").fetchall()
    dead = tuple(run for (run,) in opened if not is_alive(store.path, run))
    interrupted: list[str] = []
    lost: list[LostSandbox] = []
    for run in dead:
        interrupted += _interrupt(connection, run)
        rows = connection.execute(
            "SELECT id, sandbox, version FROM sandboxes WHERE run = ? AND kept AND status <> 'stopped'",
            (run,),
        ).fetchall()
        lost += [LostSandbox(*row) for row in rows]
        connection.execute(f"{_STOP} error = ? {_ALIVE}", (LOST, run))
        connection.execute(_KILLED, (run, run))
        with suppress(OSError):
            _lock_path(store, run).unlink()
    wanted = dict.fromkeys(one.version for one in lost if one.version is not None)
    missing = [one for one in wanted if not has_version(one) and not _has_source(connection, one)]
    return RecoveryReport(dead, tuple(interrupted), tuple(lost), tuple(missing))


def _interrupt(connection: sqlite3.Connection, run: int) -> list[str]:
    """Mark the unfinished evaluations of a dead run as interrupted; return the ids."""
    ids: list[str] = []
    batches = connection.execute(
        "SELECT batch, members FROM batches WHERE run = ? AND outcome = 'running'", (run,)
    ).fetchall()
    last = connection.execute("SELECT max(evaluation) FROM evaluations WHERE run = ?", (run,)).fetchone()[0]
    number = last or run << NUMBER_BITS
    for batch, packed in batches:
        ended = connection.execute("SELECT sandbox FROM evaluations WHERE batch = ?", (batch,)).fetchall()
        done = {sandbox for (sandbox,) in ended}
        for member in _numbers(packed):
            if member in done:
                continue
            found = connection.execute(
                "SELECT id, generation, version FROM sandboxes WHERE sandbox = ?", (member,)
            ).fetchone()
            sandbox_id, generation, code = found or ("", 0, None)
            number += 1
            row = (number, run, batch, member, sandbox_id, generation, LOST, time.time(), code)
            connection.execute(_UNFINISHED, row)
            ids.append(sandbox_id)
    connection.execute(
        "UPDATE batches SET outcome = ?, ended_at = ? WHERE run = ? AND outcome = 'running'",
        (INTERRUPTED, time.time(), run),
    )
    return ids


def _numbers(packed: bytes) -> list[int]:
    try:
        found = unpack(packed)
    except ValueError:
        return []
    return [one for one in found if isinstance(one, int)] if isinstance(found, list) else []


def _has_source(connection: sqlite3.Connection, code: str) -> bool:
    return connection.execute("SELECT 1 FROM sources WHERE version = ?", (code,)).fetchone() is not None


def _lock_path(store: Store, run: int) -> Path:
    return store.path.parent / _LOCKS / f"{run}.lock"


def _version() -> str:
    try:
        return version("evocell")
    except PackageNotFoundError:
        return ""


def _several(things: Sequence[object], word: str, words: str | None = None) -> str:
    return f"{len(things):,} {word if len(things) == 1 else words or word + 's'}"


def _listed(things: Sequence[object], most: int = 5) -> str:
    shown = ", ".join(str(one) for one in things[:most])
    return shown if len(things) <= most else f"{shown} and {len(things) - most:,} more"


def runs_of_search(connection: sqlite3.Connection, store_path: Path, run: int) -> list[int]:
    """Return the runs of the same search as a run, including itself, in order.

    Args:
        connection: Opened with `open_reader`, or a store's own.
        store_path: The database.
        run: The run's number.
    """
    populations = _sets(
        connection.execute("SELECT DISTINCT run, population FROM sandboxes WHERE population IS NOT NULL")
    )
    tasks = _sets(connection.execute("SELECT DISTINCT run, task FROM batches"))
    spans = {}
    for number, started in connection.execute("SELECT run, started_at FROM runs").fetchall():
        ended = run_outcome(connection, store_path, number)[1]
        spans[number] = started, float("inf") if ended is None else ended
    found = {run}
    waiting = [run]
    while waiting:
        one = waiting.pop()
        for other in spans.keys() - found:
            named = bool(populations.get(one, set()) & populations.get(other, set()))
            together = _overlap(spans, one, other) and bool(tasks.get(one, set()) & tasks.get(other, set()))
            if named or together:
                found.add(other)
                waiting.append(other)
    return sorted(found)


def _sets(rows: Iterable[tuple[int, str]]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for run, name in rows:
        found.setdefault(run, set()).add(name)
    return found


def _overlap(spans: Mapping[int, tuple[float, float]], one: int, other: int) -> bool:
    if one not in spans:
        return False
    return spans[one][0] <= spans[other][1] and spans[other][0] <= spans[one][1]


def chosen_runs(
    connection: sqlite3.Connection,
    store_path: Path,
    latest: int,
    *,
    run: int | None,
    all_runs: bool,
    population: str | None,
) -> list[int]:
    """Return the runs that a view covers: those of a population, all, one search, or one run.

    Args:
        connection: Opened with `open_reader`.
        store_path: The database.
        latest: The run whose search is covered by default.
        run: One run.
        all_runs: Whether to cover all runs.
        population: A population whose members to cover.

    Raises:
        ConfigurationError: There is no such population.
    """
    if population is not None:
        found = connection.execute(
            "SELECT DISTINCT run FROM sandboxes WHERE population = ? ORDER BY run", (population,)
        ).fetchall()
        if not found:
            known = [repr(name) for (name,) in connection.execute("SELECT id FROM populations ORDER BY id")]
            raise ConfigurationError(
                f"there is no population {population!r}; there are {', '.join(known[:20]) or 'none'}",
                "population",
            )
        return [one for (one,) in found]
    if all_runs:
        return [one for (one,) in connection.execute("SELECT run FROM runs ORDER BY run")]
    return runs_of_search(connection, store_path, latest) if run is None else [run]
