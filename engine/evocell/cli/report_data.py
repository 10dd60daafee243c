"""The data of a report: a run, read from its store as plain data."""

from __future__ import annotations

import json
import sqlite3
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, frozen

from evocell.errors import ConfigurationError, StoreError
from evocell.store.changes import Files, diff_files
from evocell.store.encoding import unpack, unpack_files
from evocell.store.runs import chosen_runs, run_outcome
from evocell.store.schema import NUMBER_BITS

__all__ = ["TREE_MEMBERS", "RunData", "read_run"]

TREE_MEMBERS = 600
"""Individuals in the tree of the best: its line of first parents, and the youngest others."""

WINDOWS = 40
"""Columns of the charts for a run without generations."""

_LEADERS = 10
_TEXT_CHARS = 20_000

RunData = dict[str, Any]

_EVALUATIONS = """
    SELECT e.sandbox, e.sandbox_id, e.generation, e.status, s.fitness, e.fitness_score, e.valid, e.reason,
        e.error, e.evaluated_at, e.evaluation_time_ms, e.fuel_used, e.peak_memory_bytes,
        coalesce(e.version, s.version), s.mutation_type, e.components, e.objectives
    FROM evaluations e JOIN batches b USING (batch) LEFT JOIN sandboxes s ON s.sandbox = e.sandbox
    WHERE e.run IN (SELECT value FROM json_each(:runs)) AND b.task = :task
        AND (:population IS NULL OR s.population = :population)
    ORDER BY e.evaluated_at, e.evaluation
"""
_TASKS = """
    SELECT b.task, b.entry, b.direction, count(*) FROM evaluations e JOIN batches b USING (batch)
        LEFT JOIN sandboxes s ON s.sandbox = e.sandbox
    WHERE e.run IN (SELECT value FROM json_each(:runs))
        AND (:population IS NULL OR s.population = :population)
    GROUP BY b.task ORDER BY count(*) DESC
"""


@define
class Member:
    """An individual with its last evaluation."""

    number: int
    id: str
    generation: int
    status: str
    score: float | None
    valid: bool
    reason: str | None
    error: str | None
    at: float
    time_ms: float
    fuel: int
    memory: int
    version: str | None
    mutation_type: str | None
    components: str
    objectives: str
    column: int = 0


@frozen
class _Task:
    """The task that most evaluations of a run had."""

    digest: str
    entry: str
    direction: str
    n_evaluations: int


def read_run(
    connection: sqlite3.Connection,
    *,
    run: int | None = None,
    all_runs: bool = False,
    population: str | None = None,
    direction: str | None = None,
    title: str = "",
) -> RunData:
    """Read what a report shows of a run.

    Args:
        connection: Opened with `open_reader`.
        run: Which run; None for the search to which the last one belongs that evaluated anything.
        all_runs: Whether all runs are shown together.
        population: Only members of this one, in all runs.
        direction: ``"maximize"`` or ``"minimize"``; None for what the evaluation said.
        title: What to call it; empty for a name made of its number.

    Raises:
        ConfigurationError: There is no such run, or it evaluated nothing.
        StoreError: What the store holds of it is damaged.
    """
    chosen = _choose(connection, run)
    path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    runs = chosen_runs(connection, path, chosen, run=run, all_runs=all_runs, population=population)
    starts = dict(connection.execute("SELECT run, started_at FROM runs"))
    started = min(starts[one] for one in runs)
    image = connection.execute("SELECT image_id FROM runs WHERE run = ?", (chosen,)).fetchone()[0]
    fates = [run_outcome(connection, path, one) for one in runs]
    outcome, ended = next((one for one in fates if one[0] == "open"), fates[-1])
    wanted: dict[str, object] = {"runs": json.dumps(runs), "population": population}
    tasks = [_Task(*row) for row in connection.execute(_TASKS, wanted)]
    task = tasks[0]
    direction = direction or task.direction
    rows = [_member(row) for row in connection.execute(_EVALUATIONS, {**wanted, "task": task.digest})]
    everyone = list({one.number: one for one in rows}.values())
    columns = _columns(everyone)
    ranked = sorted(
        (one for one in everyone if one.valid and one.score is not None),
        key=lambda one: one.score if direction == "minimize" else -(one.score or 0.0),  # type: ignore[return-value, arg-type]
    )
    try:
        tree, n_family = _tree(connection, everyone, ranked)
    except ValueError as error:
        raise StoreError(f"{error}; see: evocell store check") from error
    return {
        "title": title or _title(runs, population),
        "run": chosen,
        "runs": runs,
        "outcome": outcome,
        "image": image,
        "nodes": _nodes(connection, runs),
        "started_at": started,
        "wall_s": _wall_s(starts, runs, everyone),
        "ended_at": ended,
        "entry": task.entry,
        "direction": direction,
        "n_left_out": sum(other.n_evaluations for other in tasks[1:]),
        "n_evaluations": len(rows),
        "n_individuals": len(everyone),
        "n_valid": len(ranked),
        "fuel": sum(one.fuel for one in rows),
        "busy_s": sum(one.time_ms for one in rows) / 1000,
        "column_name": "generation" if len({one.generation for one in everyone}) > 1 else "evaluations",
        "columns": _summaries(everyone, columns, direction),
        "deaths": Counter(one.reason for one in everyone if one.reason).most_common(),
        "points": _points(everyone),
        "leaders": [_brief(one) for one in ranked[:_LEADERS]],
        "best": ranked[0].number if ranked else None,
        "tree": tree,
        "n_family": n_family,
    }


def _nodes(connection: sqlite3.Connection, runs: Sequence[int]) -> list[str]:
    """Return the names of the nodes of a cluster that took part, if there was one."""
    asked = "SELECT name, reading FROM readings WHERE run IN (SELECT value FROM json_each(?)) ORDER BY name"
    rows = connection.execute(asked, (json.dumps(list(runs)),)).fetchall()
    readings = ((name, unpack(packed)) for name, packed in rows)
    return list(dict.fromkeys(name for name, one in readings if isinstance(one, dict) and one.get("node")))


def _title(runs: Sequence[int], population: str | None) -> str:
    if population is not None:
        return f"Population {population}"
    return f"Run {runs[0]}" if len(runs) == 1 else f"Runs {', '.join(map(str, runs))}"


def _wall_s(starts: Mapping[int, float], runs: Sequence[int], everyone: Sequence[Member]) -> float:
    """Return how long runs were at work, without the pauses between them; what was at once counts once."""
    last: dict[int, float] = {}
    for one in everyone:
        run = one.number >> NUMBER_BITS
        last[run] = max(one.at, last.get(run, 0.0))
    total = until = 0.0
    for start, end in sorted((starts[run], last[run]) for run in runs if run in last):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _choose(connection: sqlite3.Connection, run: int | None) -> int:
    if run is None:
        found = connection.execute("SELECT max(run) FROM evaluations").fetchone()[0]
        if found is None:
            raise ConfigurationError("nothing has been evaluated there yet, so there is nothing to report")
        return int(found)
    if connection.execute("SELECT 1 FROM runs WHERE run = ?", (run,)).fetchone() is None:
        runs = [str(number) for (number,) in connection.execute("SELECT run FROM runs ORDER BY run")]
        raise ConfigurationError(f"there is no run {run}; there are {', '.join(runs[-10:])}", "run")
    if connection.execute("SELECT 1 FROM evaluations WHERE run = ? LIMIT 1", (run,)).fetchone() is None:
        raise ConfigurationError(f"run {run} evaluated nothing", "run")
    return run


def _member(row: Sequence[Any]) -> Member:
    number, sandbox_id, generation, status, latest, score, valid, reason, *rest = row
    # The latest fitness of an individual may have been adjusted since.
    return Member(
        number,
        sandbox_id,
        generation,
        status,
        score if latest is None else latest,
        bool(valid),
        reason,
        *rest,
    )


def _columns(everyone: Sequence[Member]) -> list[float]:
    """Assign each individual a column: its generation, or without generations a window of evaluations."""
    generations = sorted({one.generation for one in everyone})
    if len(generations) > 1:
        place = {generation: index for index, generation in enumerate(generations)}
        for one in everyone:
            one.column = place[one.generation]
        return [float(generation) for generation in generations]
    size = max(1, -(-len(everyone) // WINDOWS))
    for index, one in enumerate(everyone):
        one.column = index // size
    return [float(start) for start in range(0, len(everyone), size)]


def _summaries(everyone: Sequence[Member], labels: Sequence[float], direction: str) -> list[dict[str, Any]]:
    members: list[list[Member]] = [[] for _ in labels]
    for one in everyone:
        members[one.column].append(one)
    best: float | None = None
    better = min if direction == "minimize" else max
    columns = []
    for label, ours in zip(labels, members, strict=True):
        scores = sorted(one.score for one in ours if one.valid and one.score is not None)
        if scores:
            leader = better(scores)
            best = leader if best is None else better(best, leader)
        columns.append(
            {
                "label": label,
                "n": len(ours),
                "n_valid": len(scores),
                "low": scores[0] if scores else None,
                "high": scores[-1] if scores else None,
                "quartiles": _quartiles(scores),
                "mean": statistics.fmean(scores) if scores else None,
                "best": best,
                "deaths": dict(Counter(one.reason for one in ours if one.reason)),
                "fuel": sum(one.fuel for one in ours),
                "busy_s": sum(one.time_ms for one in ours) / 1000,
            }
        )
    return columns


def _quartiles(scores: Sequence[float]) -> list[float] | None:
    if not scores:
        return None
    if len(scores) == 1:
        return [scores[0]] * 3
    return statistics.quantiles(scores, n=4, method="inclusive")


def _points(everyone: Iterable[Member]) -> dict[str, list[Any]]:
    """Return all individuals as one list per attribute, since ten thousand objects would be mostly names."""
    members = list(everyone)
    return {
        "id": [one.id for one in members],
        "column": [one.column for one in members],
        "score": [one.score if one.valid else None for one in members],
        "fuel": [one.fuel for one in members],
        "reason": [one.reason for one in members],
    }


def _brief(one: Member) -> dict[str, Any]:
    return {
        "id": one.id,
        "number": one.number,
        "score": one.score,
        "fuel": one.fuel,
        "generation": one.generation,
    }


def _tree(
    connection: sqlite3.Connection, everyone: Sequence[Member], ranked: Sequence[Member]
) -> tuple[list[dict[str, Any]], int]:
    """Return the leaders and their ancestors with all that a click on one shows, oldest first."""
    parents: dict[int, list[tuple[int | None, str]]] = {}
    for child, parent, parent_id in connection.execute(
        "SELECT child, parent, parent_id FROM lineage ORDER BY child, place"
    ):
        parents.setdefault(child, []).append((parent, parent_id))
    family = _family([ranked[0].number], parents) if ranked else set()
    line = _line(ranked[0].number, parents) if ranked else []
    kept = set(line[:TREE_MEMBERS])
    kept.update(sorted(family - kept, reverse=True)[: TREE_MEMBERS - len(kept)])
    shown = dict.fromkeys([*kept, *(one.number for one in ranked[:_LEADERS])])
    known = {one.number: one for one in everyone}
    files = _Sources(connection)
    notes = dict(connection.execute("SELECT sandbox, metadata FROM lineage_notes"))
    tree = []
    for number in sorted(shown):
        one = known.get(number) or _stranger(connection, number)
        text = files.of(one.version)
        above = [
            {
                "id": parent_id,
                "number": parent,
                "diff": _cut(_diff(files.of(_version(connection, known, parent)), text)),
            }
            for parent, parent_id in parents.get(number, ())
        ]
        tree.append(
            {
                "number": number,
                "id": one.id,
                "generation": one.generation,
                "score": one.score,
                "valid": one.valid,
                "reason": one.reason,
                "error": one.error,
                "fuel": one.fuel,
                "time_ms": one.time_ms,
                "memory": one.memory,
                "made_by": one.mutation_type,
                "components": json.loads(one.components),
                "objectives": json.loads(one.objectives),
                "notes": _shown_notes(notes.get(number)),
                "parents": above,
                "source": _cut(_as_text(text)),
                "in_tree": number in kept,
                "in_line": number in line,
            }
        )
    return tree, len(family)


def _family(starts: Iterable[int], parents: Mapping[int, Sequence[tuple[int | None, str]]]) -> set[int]:
    found = set(starts)
    waiting = list(found)
    while waiting:
        for parent, _ in parents.get(waiting.pop(), ()):
            if parent is not None and parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


def _line(number: int, parents: Mapping[int, Sequence[tuple[int | None, str]]]) -> list[int]:
    line = [number]
    while parents.get(line[-1]) and (first := parents[line[-1]][0][0]) is not None and first not in line[-2:]:
        line.append(first)
    return line


class _Sources:
    """The source text of versions, each read once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str | None, Files | None] = {None: None}

    def of(self, version: str | None) -> Files | None:
        if version not in self._known:
            row = self._connection.execute(
                "SELECT files FROM sources WHERE version = ?", (version,)
            ).fetchone()
            self._known[version] = unpack_files(row[0]) if row else None
        return self._known[version]


def _version(connection: sqlite3.Connection, known: Mapping[int, Member], number: int | None) -> str | None:
    if number is None:
        return None
    return known[number].version if number in known else _stranger(connection, number).version


def _stranger(connection: sqlite3.Connection, number: int) -> Member:
    """Return an ancestor that this run did not evaluate, as far as the store knows it."""
    row = connection.execute(
        "SELECT id, generation, fitness, valid, version, mutation_type FROM sandboxes WHERE sandbox = ?",
        (number,),
    ).fetchone()
    sandbox_id, generation, score, valid, version, made_by = row or ("?", 0, None, None, None, None)
    return Member(
        number,
        sandbox_id,
        generation,
        "",
        score,
        bool(valid),
        None,
        None,
        0.0,
        0.0,
        0,
        0,
        version,
        made_by,
        "{}",
        "[]",
    )


def _diff(before: Files | None, after: Files | None) -> str | None:
    return None if before is None or after is None else diff_files(before, after)


def _as_text(files: Files | None) -> str | None:
    if files is None:
        return None
    parts = [(path, "(no text)" if text is None else text) for path, text in sorted(files.items())]
    if len(parts) == 1:
        return parts[0][1]
    return "\n".join(f"# {path}\n{text}" for path, text in parts)


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= _TEXT_CHARS else text[:_TEXT_CHARS] + "\n... (cut)"


def _shown_notes(packed: bytes | None) -> dict[str, str]:
    found = unpack(packed) if packed is not None else {}
    return {str(key): str(value)[:500] for key, value in found.items()} if isinstance(found, dict) else {}
