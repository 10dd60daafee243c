"""Which runs are one search: a search that was resumed, or one that several processes work at.

A run belongs to the search of another if both have members in one population, whose name is the search's, or
if both were at work at the same time on the same task, as processes are that a framework forks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from evocell.errors import ConfigurationError
from evocell.store.runs import run_outcome

__all__ = ["chosen_runs", "runs_of_search"]


def runs_of_search(connection: sqlite3.Connection, store_path: Path, run: int) -> list[int]:
    """Return the runs that are one search with a run, itself among them, in order.

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
    """Return the runs that somebody wants to see.

    Args:
        connection: Opened with `open_reader`.
        store_path: The database.
        latest: The run whose search is shown if nothing is chosen.
        run: One run.
        all_runs: Whether all of them are wanted.
        population: A population whose members are wanted.

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
