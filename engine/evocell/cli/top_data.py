"""What `evocell top` shows, read from the store of a running engine a little at a time."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

from attrs import Factory, define, field

from evocell.errors import ConfigurationError
from evocell.store.encoding import unpack
from evocell.store.runs import is_alive, run_outcome
from evocell.store.searches import chosen_runs

__all__ = ["Picture", "RunWatcher"]

WINDOW_S = 10.0
"""Over how long the throughput is taken."""

HISTORY = 60
"""Seconds of throughput that are remembered."""

_LOOKS = 5
"""After how many looks it is asked again which runs are one search."""

_NEW = """
    SELECT e.evaluation, e.valid, e.reason, e.fitness_score, e.evaluated_at, e.fuel_used, e.generation,
        e.sandbox_id, b.direction
    FROM evaluations e LEFT JOIN batches b USING (batch)
        LEFT JOIN sandboxes s ON s.sandbox = e.sandbox
    WHERE e.run = :run AND e.evaluation > :seen AND (:population IS NULL OR s.population = :population)
    ORDER BY e.evaluation LIMIT 20000
"""


@define
class Picture:
    """A run at one moment.

    Attributes:
        run: Its number.
        state: ``"running"``, ``"closed"`` or ``"killed"``.
        age_s: Seconds since it began; of one that is over, how long it took.
        sandboxes: Live sandboxes by status.
        workers: Name and latest reading of each worker.
        n_evaluations: Evaluations so far.
        n_valid: Valid ones.
        per_s: Evaluations a second lately.
        history: The same for each of the last seconds, oldest first.
        deaths: Invalid ones by kind.
        best: Id, score and generation of the fittest; None if nobody is valid.
        generation: The latest generation.
        fuel: Units of work so far.
        batches: Operation, size and results so far of the batches that run.
    """

    run: int
    state: str
    age_s: float = 0.0
    sandboxes: dict[str, int] = field(factory=dict)
    workers: list[tuple[str, dict[str, Any]]] = field(factory=list)
    n_evaluations: int = 0
    n_valid: int = 0
    per_s: float = 0.0
    history: list[int] = field(factory=list)
    deaths: Counter[str] = field(factory=Counter)
    best: tuple[str, float, int] | None = None
    generation: int = 0
    fuel: int = 0
    batches: list[tuple[str, int, int]] = Factory(list)


class RunWatcher:
    """Follows a run; each look reads only what is new.

    Args:
        connection: Opened with `open_reader`.
        path: The database.
        run: Which run; None for the one that is running, else the latest that evaluated anything, and all
            that are one search with it.
        all_runs: Whether the evaluations of all runs count.
        population: Only members of this one count, in all runs.

    Raises:
        ConfigurationError: There is no such run.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        run: int | None = None,
        *,
        all_runs: bool = False,
        population: str | None = None,
    ) -> None:
        self._connection = connection
        self._path = path
        self._follow_latest = run is None
        self._chosen = {"run": run, "all_runs": all_runs, "population": population}
        self._begin(self._latest() if run is None else run)

    def look(self, now: float | None = None) -> Picture:
        """Return the run as it is now; a newer run takes its place unless one was named."""
        now = time.time() if now is None else now
        if self._follow_latest and (latest := self._latest()) != self._picture.run:
            self._begin(latest)
        picture = self._picture
        self._read_run(picture, now)
        for run in self._runs():
            while self._read_evaluations(picture, run):
                pass
        self._rate(picture, now)
        return picture

    def _latest(self) -> int:
        found = self._connection.execute("SELECT max(run) FROM runs").fetchone()[0]
        if found is None:
            raise ConfigurationError("no engine has used this state directory yet", "state_dir")
        if not is_alive(self._path, found):
            # `evocell replay`, for one, leaves a run in which nothing was evaluated.
            evaluated = self._connection.execute("SELECT max(run) FROM evaluations").fetchone()[0]
            found = found if evaluated is None else evaluated
        return int(found)

    def _begin(self, run: int) -> None:
        if self._connection.execute("SELECT 1 FROM runs WHERE run = ?", (run,)).fetchone() is None:
            raise ConfigurationError(f"there is no run {run}", "run")
        self._picture = Picture(run, "running")
        self._seen: dict[int, int] = {}
        self._known_runs = 0
        self._looks = 0
        self._counted: list[int] = []
        self._recent: deque[float] = deque(maxlen=200_000)

    def _read_run(self, picture: Picture, now: float) -> None:
        ask = self._connection.execute
        started = ask("SELECT started_at FROM runs WHERE run = ?", (picture.run,)).fetchone()[0]
        outcome, ended = run_outcome(self._connection, self._path, picture.run)
        picture.state = "running" if outcome == "open" else outcome
        picture.age_s = (now if ended is None else ended) - started
        readings = {
            name: unpack(reading)
            for name, reading in ask(
                "SELECT name, reading FROM readings WHERE run = ? ORDER BY name", (picture.run,)
            )
        }
        engine = readings.pop("engine", {})
        picture.workers = [(name, one) for name, one in readings.items() if isinstance(one, dict)]
        live = engine.get("sandboxes", {}) if isinstance(engine, dict) else {}
        picture.sandboxes = live if picture.state == "running" else {}
        picture.batches = ask(
            "SELECT operation, count, (SELECT count(*) FROM evaluations e WHERE e.batch = b.batch)"
            " FROM batches b WHERE run = ? AND outcome = 'running' ORDER BY batch DESC LIMIT 4",
            (picture.run,),
        ).fetchall()

    def _runs(self) -> list[int]:
        """Return the runs whose evaluations count; looked up again when there is another run."""
        n_runs = self._connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        self._looks += 1
        if n_runs != self._known_runs or (n_runs > 1 and self._looks % _LOOKS == 0):
            self._known_runs = n_runs
            found = chosen_runs(self._connection, self._path, self._picture.run, **self._chosen)  # type: ignore[arg-type]  # as given
            self._counted = sorted({*self._counted, *found})
        return self._counted

    def _read_evaluations(self, picture: Picture, run: int) -> int:
        wanted = {"run": run, "seen": self._seen.get(run, 0), "population": self._chosen["population"]}
        rows = self._connection.execute(_NEW, wanted).fetchall()
        for number, valid, reason, score, at, fuel, generation, name, direction in rows:
            self._seen[run] = number
            self._recent.append(at)
            picture.n_evaluations += 1
            picture.fuel += fuel
            picture.generation = max(picture.generation, generation)
            if not valid:
                picture.deaths[reason or "unknown"] += 1
                continue
            picture.n_valid += 1
            better = picture.best is None or (
                score < picture.best[1] if direction == "minimize" else score > picture.best[1]
            )
            if better:
                picture.best = name, score, generation
        return len(rows)

    def _rate(self, picture: Picture, now: float) -> None:
        while self._recent and self._recent[0] < now - HISTORY:
            self._recent.popleft()
        history = [0] * HISTORY
        for at in self._recent:
            history[min(HISTORY - 1, max(0, int(at - (now - HISTORY))))] += 1
        picture.history = history
        window = min(WINDOW_S, max(1.0, picture.age_s))
        picture.per_s = sum(1 for at in self._recent if at >= now - window) / window
