"""Data of the page: a search, read from the store as plain data, once or incrementally.

A search is a set of runs that continue one another.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from evocell.errors import ConfigurationError
from evocell.page.figures import WINDOWS, Figures
from evocell.page.rows import RowReader, latest_row, short
from evocell.page.tree import TREE_MEMBERS, Details, Pedigree, read_tree
from evocell.store.encoding import unpack
from evocell.store.runs import chosen_runs, run_outcome
from evocell.store.schema import NUMBER_BITS

__all__ = ["TREE_MEMBERS", "WINDOWS", "Choice", "RunData", "Search", "latest_run", "read_run"]

_LOOKS = 5
"""Updates between two checks of which runs belong to the search."""
_LEAD = 1.2
"""The shown task is replaced by another one that has more than this many times its evaluations."""
_MOST_NODES = 100
_NOTHING_YET = "nothing has been evaluated there yet, so there is nothing to report"

RunData = dict[str, Any]

_TASKS = """
    SELECT b.task, count(*) FROM evaluations e JOIN batches b USING (batch)
        LEFT JOIN sandboxes s ON s.sandbox = e.sandbox
    WHERE e.run IN (SELECT value FROM json_each(:runs))
        AND (:population IS NULL OR s.population = :population)
    GROUP BY b.task ORDER BY count(*) DESC
"""


@frozen
class Choice:
    """The runs of a state directory to show.

    Attributes:
        run: One run; None for the search of the latest run with evaluations.
        all_runs: Whether all runs are shown together.
        population: Show only members of this one, in all runs.
    """

    run: int | None = None
    all_runs: bool = False
    population: str | None = None


class Search:
    """The chosen runs and their figures; each update reads new evaluations.

    Args:
        connection: Opened with `open_reader`.
        choice: The runs to show.
        direction: ``"maximize"`` or ``"minimize"``; None for that of the evaluation.
        title: The title; empty for one made of the numbers of the runs.

    Raises:
        ConfigurationError: There is no such run, or it evaluated nothing.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        choice: Choice,
        *,
        direction: str | None = None,
        title: str = "",
    ) -> None:
        self._connection = connection
        self._path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
        self._choice = choice
        self._direction = direction
        self._title = title
        self._run = _choose(connection, choice.run)
        self._runs: list[int] = []
        self._looks = self._n_runs = 0
        self._over: dict[int, tuple[str, float | None]] = {}
        self._pedigree = Pedigree(connection)
        self._tree: tuple[tuple[int, ...], list[dict[str, Any]], int] | None = None
        self._look_for_runs()
        self._begin(self._largest_task())

    def update(self) -> None:
        """Read the evaluations and adjustments added since the last update."""
        self._look_for_runs()
        for row in self._reader.new(self._runs):
            self._tasks[row.task] += 1
            if row.task == self.task:
                self.figures.add(row.member)
        for number, score, at in self._reader.adjustments(self._runs):
            self.figures.adjust(number, score, at)
        task, count = max(self._tasks.items(), key=lambda one: one[1], default=(self.task, 0))
        if task != self.task and count > _LEAD * self._tasks[self.task]:
            self._begin(task)
            self.update()

    def goes_on(self, latest: int | None) -> bool:
        """Whether the search includes a run that is now the latest; it is then continued with that run.

        A run, a population or all runs that were chosen explicitly include any latest run.
        """
        if self._choice != Choice():
            return True
        found = [] if latest is None else self._chosen_runs(latest)
        if latest is None or not set(self._runs) <= set(found):
            return False
        self._run, self._runs = latest, found
        return True

    def head(self) -> RunData:
        """Return the summary of the search, without columns, points and tree."""
        figures = self.figures
        fates = [self._fate(one) for one in self._runs]
        outcome, ended = next((one for one in fates if one[0] == "open"), fates[-1])
        starts = dict(self._connection.execute("SELECT run, started_at FROM runs"))
        image = self._connection.execute("SELECT image_id FROM runs WHERE run = ?", (self._run,)).fetchone()[
            0
        ]
        leaders = figures.leaders()
        return {
            "title": self._title or _title(self._runs, self._choice.population),
            "run": self._run,
            "runs": self._runs,
            "outcome": outcome,
            "image": image,
            "nodes": _nodes(self._connection, self._runs),
            "started_at": min(starts[one] for one in self._runs),
            "wall_s": _wall_s(starts, self._runs, figures.last_at),
            "ended_at": ended,
            "entry": short(self._entry),
            "task": self.task,
            "direction": figures.direction,
            "n_left_out": sum(self._tasks.values()) - figures.n_evaluations,
            "n_evaluations": figures.n_evaluations,
            "n_individuals": len(figures.members),
            "n_valid": figures.n_valid,
            "generation": figures.generation,
            "stride": figures.stride,
            "fuel": figures.fuel,
            "busy_s": figures.busy_s,
            "column_name": figures.column_name,
            "deaths": figures.deaths(),
            "leaders": [
                {
                    "id": one.id,
                    "number": one.number,
                    "score": one.score,
                    "fuel": one.fuel,
                    "generation": one.generation,
                    "copies": copies,
                }
                for one, copies in leaders
            ],
            "best": leaders[0][0].number if leaders else None,
        }

    def tree(self) -> tuple[list[dict[str, Any]], int]:
        """Return the best individual, its ancestors and the leaders; and the size of its family."""
        numbers = tuple(one.number for one, _ in self.figures.leaders())
        if self._tree is None or self._tree[0] != numbers:
            best = numbers[0] if numbers else None
            self._tree = numbers, *read_tree(self._connection, self._pedigree, best, numbers)
        return self._tree[1:]

    def details(self, number: int) -> dict[str, Any] | None:
        """Return the details of an individual, shown when it is clicked on; None if it is not in the store.

        Raises:
            StoreError: Its rows in the store are damaged.
        """
        return Details(self._connection, self._pedigree, self.task).of(number)

    def everything(self) -> RunData:
        """Return all data of the page, with the source of each individual in the tree.

        Raises:
            StoreError: Rows in the store are damaged.
        """
        self.figures.settle()
        tree, n_family = self.tree()
        details = Details(self._connection, self._pedigree, self.task)
        points = self.figures.points()[0]
        del points["place"], points["number"]
        return {
            **self.head(),
            "columns": self.figures.columns(),
            "points": points,
            "tree": [{**(details.of(one["number"]) or {}), **_place(one)} for one in tree],
            "n_family": n_family,
        }

    def _begin(self, task: str) -> None:
        self.task = task
        asked = "SELECT entry, direction FROM batches WHERE task = ? ORDER BY batch LIMIT 1"
        self._entry, direction = self._connection.execute(asked, (task,)).fetchone()
        self.figures = Figures(self._direction or direction)
        self._tasks: Counter[str] = Counter()
        self._reader = RowReader(self._connection, self._choice.population)
        self._tree = None

    def _look_for_runs(self) -> None:
        """Find the runs of the search; repeated from time to time, since further runs may join it."""
        n_runs = self._connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        self._looks += 1
        if n_runs != self._n_runs or (n_runs > 1 and self._looks % _LOOKS == 0):
            self._n_runs = n_runs
            self._runs = sorted({*self._runs, *self._chosen_runs(self._run)})

    def _chosen_runs(self, latest: int) -> list[int]:
        choice = self._choice
        return chosen_runs(
            self._connection,
            self._path,
            latest,
            run=choice.run,
            all_runs=choice.all_runs,
            population=choice.population,
        )

    def _largest_task(self) -> str:
        wanted = {"runs": json.dumps(self._runs), "population": self._choice.population}
        found = self._connection.execute(_TASKS, wanted).fetchone()
        if found is None:
            raise ConfigurationError(_NOTHING_YET)
        return str(found[0])

    def _fate(self, run: int) -> tuple[str, float | None]:
        if run in self._over:
            return self._over[run]
        fate = run_outcome(self._connection, self._path, run)
        if fate[0] != "open":
            self._over[run] = fate
        return fate


def read_run(
    connection: sqlite3.Connection,
    *,
    run: int | None = None,
    all_runs: bool = False,
    population: str | None = None,
    direction: str | None = None,
    title: str = "",
) -> RunData:
    """Read the data of a report.

    Args:
        connection: Opened with `open_reader`.
        run: The run; None for the search of the latest run with evaluations.
        all_runs: Whether all runs are shown together.
        population: Show only members of this one, in all runs.
        direction: ``"maximize"`` or ``"minimize"``; None for that of the evaluation.
        title: The title; empty for one made of the numbers of the runs.

    Raises:
        ConfigurationError: There is no such run, or it evaluated nothing.
        StoreError: Rows in the store are damaged.
    """
    search = Search(connection, Choice(run, all_runs, population), direction=direction, title=title)
    search.update()
    return search.everything()


def latest_run(connection: sqlite3.Connection) -> int | None:
    """Return the latest run with evaluations, or None."""
    found = connection.execute("SELECT max(evaluation) FROM evaluations").fetchone()[0]
    return None if found is None else int(found) >> NUMBER_BITS


def _choose(connection: sqlite3.Connection, run: int | None) -> int:
    if run is None:
        found = latest_run(connection)
        if found is None:
            raise ConfigurationError(_NOTHING_YET)
        return found
    if connection.execute("SELECT 1 FROM runs WHERE run = ?", (run,)).fetchone() is None:
        runs = [str(number) for (number,) in connection.execute("SELECT run FROM runs ORDER BY run")]
        raise ConfigurationError(f"there is no run {run}; there are {', '.join(runs[-10:])}", "run")
    if latest_row(connection, run) is None:
        raise ConfigurationError(f"run {run} evaluated nothing", "run")
    return run


def _nodes(connection: sqlite3.Connection, runs: Sequence[int]) -> list[str]:
    """Return the names of the cluster's nodes that took part; empty without a cluster."""
    asked = "SELECT name, reading FROM readings WHERE run IN (SELECT value FROM json_each(?)) ORDER BY name"
    rows = connection.execute(asked, (json.dumps(list(runs)),)).fetchall()
    readings = ((name, unpack(packed)) for name, packed in rows)
    found = dict.fromkeys(name for name, one in readings if isinstance(one, dict) and one.get("node"))
    return [short(name) for name in list(found)[:_MOST_NODES]]


def _title(runs: Sequence[int], population: str | None) -> str:
    if population is not None:
        return f"Population {population}"
    return f"Run {runs[0]}" if len(runs) == 1 else f"Runs {', '.join(map(str, runs))}"


def _wall_s(starts: Mapping[int, float], runs: Sequence[int], last: Mapping[int, float]) -> float:
    """Return the total duration of runs in seconds, without the gaps between them; overlaps count once."""
    total = until = 0.0
    for start, end in sorted((starts[run], last[run]) for run in runs if run in last):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _place(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of an individual of the tree that are not among its details."""
    return {key: one[key] for key in ("number", "in_tree", "in_line")}
