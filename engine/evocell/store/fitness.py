"""Fitness of individuals: the latest of each in memory, the whole history in the store."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, ClassVar

from attrs import evolve, frozen

from evocell.errors import ConfigurationError, SandboxNotFound
from evocell.models.fitness import Direction, FitnessResult, check_direction
from evocell.models.references import Completable, SandboxName
from evocell.models.references import sandbox_id as id_of
from evocell.models.tables import FrameLibrary, frame_of, numbers_of
from evocell.store.inspection import blaming, store_reader
from evocell.store.journal import Journal
from evocell.store.runs import runs_of_search
from evocell.telemetry.events import Telemetry

__all__ = ["FitnessEntry", "FitnessRecorder"]

LATEST = 100_000
"""Most individuals whose latest fitness is in memory; that of others is read from the store."""

_LAST = """
    (SELECT fuel_used FROM evaluations e WHERE e.sandbox = s.sandbox ORDER BY evaluation DESC LIMIT 1),
    (SELECT reason FROM evaluations e WHERE e.sandbox = s.sandbox ORDER BY evaluation DESC LIMIT 1)
"""
_LATEST = f"""
    SELECT sandbox, fitness, valid, generation, evaluated_at, version, {_LAST} FROM sandboxes s
    WHERE id = ? AND fitness IS NOT NULL ORDER BY evaluated_at DESC LIMIT 1
"""  # noqa: S608 - of constants alone
_HISTORY = """
    SELECT 0, evaluated_at, fitness_score, valid, generation, reason, fuel_used, version, 0.0
    FROM evaluations WHERE sandbox_id = :id
    UNION ALL
    SELECT 1, adjusted_at, score_after, 1, 0, reason, 0, NULL, delta FROM adjustments WHERE sandbox_id = :id
    ORDER BY 2
"""
_BEST = f"""
    SELECT id, fitness, valid, generation, evaluated_at, version, {_LAST} FROM sandboxes s
    WHERE valid AND fitness IS NOT NULL
        AND (:population IS NULL OR population = :population)
        AND (:generation IS NULL OR generation = :generation)
        AND (:runs IS NULL OR run IN (SELECT value FROM json_each(:runs)))
    ORDER BY fitness {{order}}, sandbox LIMIT :most
"""  # noqa: S608 - of constants alone

_EVERY_COLUMNS = (
    "sandbox_id",
    "population",
    "generation",
    "parents",
    "mutation_type",
    "fitness_score",
    "reason",
    "error",
    "fuel_used",
    "peak_memory_bytes",
    "evaluation_time_ms",
    "version",
    "run",
)
_EVERY = """
    SELECT e.sandbox_id, s.population, e.generation,
        (SELECT group_concat(parent_id) FROM lineage l WHERE l.child = e.sandbox ORDER BY place),
        s.mutation_type, e.fitness_score, e.reason, e.error, e.fuel_used, e.peak_memory_bytes,
        e.evaluation_time_ms, e.version, e.run, e.evaluated_at, e.valid, e.deterministic, e.objectives,
        e.components
    FROM evaluations e LEFT JOIN sandboxes s ON s.sandbox = e.sandbox
    WHERE (:population IS NULL OR s.population = :population)
        AND (:generation IS NULL OR e.generation = :generation)
        AND (:run IS NULL OR e.run = :run)
    ORDER BY e.evaluation
"""
_DIRECTION = """
    SELECT b.direction FROM evaluations e JOIN batches b USING (batch)
        JOIN sandboxes s ON s.sandbox = e.sandbox
    WHERE (:population IS NULL OR s.population = :population)
        AND (:generation IS NULL OR s.generation = :generation)
        AND (:runs IS NULL OR e.run IN (SELECT value FROM json_each(:runs)))
    ORDER BY e.evaluation DESC LIMIT 1
"""


@frozen
class FitnessEntry:
    """One entry of the fitness history: an evaluation or an adjustment of one individual.

    Attributes:
        sandbox_id: The individual.
        score: Its fitness score.
        valid: Whether it is a valid score.
        generation: The generation it belongs to.
        reason: Why it is invalid; for an adjustment, the given reason.
        fuel_used: Fuel used by the evaluation.
        at: When, in seconds since 1970.
        version: Digest of the evaluated code, if known.
        delta: The amount that `adjust` added to the score; 0 for any other entry.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "sandbox_id",
        "score",
        "valid",
        "generation",
        "reason",
        "fuel_used",
        "at",
        "version",
        "delta",
    )

    sandbox_id: str
    score: float | None
    valid: bool
    generation: int = 0
    reason: str | None = None
    fuel_used: int = 0
    at: float = 0.0
    version: str | None = None
    delta: float = 0.0


_blaming = blaming(attrgetter("_journal.store.path"))


class FitnessRecorder(Completable):
    """Records and queries the fitness of individuals; thread-safe.

    Args:
        journal: Writes it into the store.
        telemetry: Emits its events.
        emit: Whether results become events.
    """

    def __init__(self, journal: Journal, telemetry: Telemetry, *, emit: bool = True) -> None:
        self._journal = journal
        self._telemetry = telemetry
        self._emit = emit
        self._lock = threading.Lock()
        self._latest: OrderedDict[str, tuple[int, FitnessEntry]] = OrderedDict()
        self.on_adjusted: Callable[[str, FitnessEntry], None] | None = None
        """Called, in the adjusting thread, with an individual's id and its new fitness."""

    def record(
        self, result: FitnessResult, *, number: int = 0, version: str | None = None, batch: int | None = None
    ) -> None:
        """Record a result and emit its event.

        Args:
            result: The result.
            number: The individual's number, from `LineageTracker.record`; 0 allocates a new one.
            version: Digest of the code that was evaluated.
            batch: The batch it belongs to, from `Journal.begin_batch`.
        """
        number = number or self._journal.new_number()
        entry = FitnessEntry(
            result.sandbox_id,
            result.fitness_score,
            result.valid,
            result.generation,
            result.reason,
            result.fuel_used,
            result.evaluated_at.timestamp(),
            version,
        )
        with self._lock:
            self._hold(number, entry)
        self._journal.evaluated(batch, number, result, version)
        if self._emit and self._telemetry.active:
            self._telemetry.emit(
                "sandbox.fitness.computed",
                {
                    "score": result.fitness_score,
                    "evaluation_time_ms": result.evaluation_time_ms,
                    "fuel_used": result.fuel_used,
                    "peak_memory_bytes": result.peak_memory_bytes,
                },
                {
                    "sandbox_id": result.sandbox_id,
                    "generation": result.generation,
                    "valid": result.valid,
                    "reason": result.reason,
                },
            )

    def adjust(self, sandbox_id: SandboxName, delta: float, reason: str) -> FitnessEntry:
        """Adjust the score of an individual for qualities that its evaluation does not measure.

        Args:
            sandbox_id: The individual, or its id.
            delta: Amount to add to its score; a penalty is negative if the score is maximised.
            reason: Why, in a few words, for its history.

        Returns:
            Its new fitness. Its validity is unchanged.

        Raises:
            ConfigurationError: `delta` is not a finite number, or the reason is empty.
            SandboxNotFound: The individual has no fitness.
        """
        _check_adjustment(delta, reason)
        sandbox_id = id_of(sandbox_id)
        with self._lock:
            number, before = self._find(sandbox_id)
            after = evolve(before, score=(before.score or 0.0) + delta, delta=delta, at=time.time())
            if not math.isfinite(after.score or 0.0):
                raise ConfigurationError(f"{before.score} and {delta} add up to no finite number", "delta")
            self._hold(number, after)
            self._journal.adjusted(
                number,
                sandbox_id,
                delta=delta,
                before=before.score or 0.0,
                after=after.score or 0.0,
                reason=reason,
            )
        if self.on_adjusted is not None:
            self.on_adjusted(sandbox_id, after)
        self._telemetry.emit(
            "sandbox.fitness.adjusted",
            {"score": after.score or 0.0, "delta": delta},
            {"sandbox_id": sandbox_id, "why": reason},
        )
        return after

    def get(self, sandbox_id: SandboxName) -> FitnessEntry | None:
        """Return the latest fitness of an individual; None if it has none.

        Args:
            sandbox_id: The individual, or its id.
        """
        sandbox_id = id_of(sandbox_id)
        with self._lock:
            try:
                return self._find(sandbox_id)[1]
            except SandboxNotFound:
                return None

    @_blaming
    def history(self, sandbox_id: SandboxName) -> list[FitnessEntry]:
        """Return every fitness that an id ever had in this store, oldest first.

        Args:
            sandbox_id: The individual, or its id.

        Raises:
            StoreError: The store cannot be used.
        """
        sandbox_id = id_of(sandbox_id)
        store = self._journal.store
        store.flush_blocking()
        entries = []
        for _, at, score, valid, generation, reason, fuel, version, delta in store.query(
            _HISTORY, {"id": sandbox_id}
        ):
            entries.append(
                FitnessEntry(sandbox_id, score, bool(valid), generation, reason, fuel, at, version, delta)
            )
        return entries

    @_blaming
    def best(
        self,
        most: int = 1,
        *,
        population: str | None = None,
        generation: int | None = None,
        direction: Direction | None = None,
        earlier_runs: bool = False,
    ) -> list[FitnessEntry]:
        """Return the fittest valid individuals, by their latest fitness, best first.

        Args:
            most: Most individuals.
            population: Only members of this one.
            generation: Only members of this one.
            direction: ``"maximize"`` or ``"minimize"``; None for that of the latest evaluation among them.
            earlier_runs: Whether individuals evaluated by other engines are included, from any time. Those of
                the same search always are, as are those of a named population; see docs/resuming.md.

        Raises:
            StoreError: The store cannot be used.
        """
        if direction is not None:
            check_direction(direction)
        store = self._journal.store
        store.flush_blocking()
        wanted: dict[str, object] = {
            "population": population,
            "generation": generation,
            "runs": None if earlier_runs or population is not None else json.dumps(self._search()),
        }
        if direction is None:
            found = store.query(_DIRECTION, wanted)
            direction = "minimize" if found and found[0][0] == "minimize" else "maximize"
        order = "DESC" if direction == "maximize" else "ASC"
        rows = store.query(_BEST.format(order=order), {**wanted, "most": most})
        return [
            FitnessEntry(one_id, score, bool(valid), of_generation, reason, fuel or 0, at, version)
            for one_id, score, valid, of_generation, at, version, fuel, reason in rows
        ]

    @_blaming
    def to_dataframe(
        self,
        *,
        population: str | None = None,
        generation: int | None = None,
        earlier_runs: bool = False,
        library: FrameLibrary | None = None,
    ) -> Any:
        """Return every evaluation as a data frame, one row each, in the order of completion.

        Beside the columns of `evocell.to_dataframe` it has ``population``, ``parents`` (their ids, with
        commas), ``mutation_type``, ``version`` and ``run``.

        Args:
            population: Only of members of this one.
            generation: Only of this one.
            earlier_runs: Whether evaluations of earlier engines are included.
            library: ``"pandas"`` or ``"polars"``; None for the first of them that is installed.

        Raises:
            ConfigurationError: The library is not installed.
            StoreError: The store cannot be used.
        """
        store = self._journal.store
        store.flush_blocking()
        wanted = {
            "population": population,
            "generation": generation,
            "run": None if earlier_runs else self._journal.run,
        }
        rows = []
        for *plain, at, valid, deterministic, objectives, components in store.query(_EVERY, wanted):
            row: dict[str, Any] = dict(zip(_EVERY_COLUMNS, plain, strict=False))
            row["valid"], row["deterministic"] = bool(valid), bool(deterministic)
            row["evaluated_at"] = datetime.fromtimestamp(at, UTC)
            rows.append(row | numbers_of(json.loads(objectives), json.loads(components)))
        names = (*_EVERY_COLUMNS, "valid", "deterministic", "evaluated_at")
        return frame_of(rows, names, library=library)

    def forget(self, sandbox_id: SandboxName) -> None:
        """Drop an individual from memory; the store keeps it."""
        with self._lock:
            self._latest.pop(id_of(sandbox_id), None)

    def _search(self) -> list[int]:
        """Return the runs of the same search as this one."""
        store, run = self._journal.store, self._journal.run
        if store.query("SELECT count(*) FROM runs")[0][0] == 1:
            return [run]
        with store_reader(store.path) as connection:
            return runs_of_search(connection, store.path, run)

    def inherit(self, number: int, sandbox_id: str, entry: FitnessEntry) -> None:
        """Give an individual its fitness of an earlier run, without an evaluation.

        Args:
            number: Its number in this run.
            sandbox_id: Its id.
            entry: Its fitness.
        """
        with self._lock:
            self._hold(number, evolve(entry, sandbox_id=sandbox_id))
        self._journal.inherited(
            number, score=entry.score, valid=entry.valid, evaluated_at=entry.at, version=entry.version
        )

    def _hold(self, number: int, entry: FitnessEntry) -> None:
        self._latest[entry.sandbox_id] = number, entry
        self._latest.move_to_end(entry.sandbox_id)
        if len(self._latest) > LATEST:
            self._latest.popitem(last=False)

    @_blaming
    def _find(self, sandbox_id: str) -> tuple[int, FitnessEntry]:
        found = self._latest.get(sandbox_id)
        if found is not None:
            return found
        store = self._journal.store
        store.flush_blocking()
        rows = store.query(_LATEST, (sandbox_id,))
        if not rows:
            raise SandboxNotFound(sandbox_id, "it has no fitness")
        number, score, valid, generation, at, version, fuel, reason = rows[0]
        return number, FitnessEntry(
            sandbox_id, score, bool(valid), generation, reason, fuel or 0, at, version
        )


def _check_adjustment(delta: object, reason: object) -> None:
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not math.isfinite(delta):
        raise ConfigurationError(f"delta must be a finite number, not {delta!r}", "delta")
    if not isinstance(reason, str) or not reason:
        raise ConfigurationError(f"reason must say why, in a few words, not {reason!r}", "reason")
