"""The ancestors of the best individual, and the details of an individual that is clicked on."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evocell.errors import StoreError
from evocell.page.rows import short
from evocell.store.changes import Files, diff_files
from evocell.store.encoding import unpack, unpack_files

__all__ = ["TREE_MEMBERS", "Details", "Pedigree", "read_tree"]

TREE_MEMBERS = 600
"""Most individuals in the tree of the best: its line of first parents, and its youngest other ancestors."""

_TEXT_CHARS = 20_000
_MOST_PARENTS = 8
_MOST_NOTES = 20
_NOTE_CHARS = 500

Parents = Mapping[int, Sequence[tuple[int | None, str]]]

_PARENTS = """
    SELECT child, parent, parent_id FROM lineage
    WHERE child IN (SELECT value FROM json_each(?)) AND place < ? ORDER BY child, place
"""
_BRIEF = """
    SELECT s.sandbox, s.id, s.generation, s.fitness, s.valid, s.mutation_type
    FROM sandboxes s WHERE s.sandbox IN (SELECT value FROM json_each(?))
"""
_DETAILS = """
    SELECT e.sandbox_id, e.generation, coalesce(s.fitness, e.fitness_score), e.valid, e.reason, e.error,
        e.fuel_used, e.evaluation_time_ms, e.peak_memory_bytes, s.mutation_type, e.components, e.objectives,
        coalesce(e.version, s.version)
    FROM evaluations e LEFT JOIN batches b USING (batch) LEFT JOIN sandboxes s ON s.sandbox = e.sandbox
    WHERE e.sandbox = ? AND b.task = ? ORDER BY e.evaluation DESC LIMIT 1
"""
_STRANGER = """
    SELECT id, generation, fitness, coalesce(valid, 0), NULL, NULL,
        0, 0.0, 0, mutation_type, '{}', '[]', version
    FROM sandboxes WHERE sandbox = ?
"""


class Pedigree:
    """Cache of the parents of individuals, which never change.

    Args:
        connection: Opened with `open_reader`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[int, list[tuple[int | None, str]]] = {}

    def family(self, number: int) -> tuple[set[int], Parents]:
        """Return an individual with all its ancestors, and the parents of each."""
        found = {number}
        layer = [number]
        while layer:
            self._look_up(layer)
            above = {parent for one in layer for parent, _ in self._known[one] if parent is not None}
            layer = sorted(above - found)
            found.update(layer)
        return found, self._known

    def parents(self, number: int) -> list[tuple[int | None, str]]:
        """Return number and id of each parent of an individual."""
        self._look_up([number])
        return self._known[number]

    def _look_up(self, numbers: Iterable[int]) -> None:
        wanted = [one for one in numbers if one not in self._known]
        if not wanted:
            return
        for one in wanted:
            self._known[one] = []
        asked = (json.dumps(wanted), _MOST_PARENTS)
        for child, parent, parent_id in self._connection.execute(_PARENTS, asked):
            self._known[child].append((parent, short(parent_id)))


def read_tree(
    connection: sqlite3.Connection, pedigree: Pedigree, best: int | None, others: Iterable[int] = ()
) -> tuple[list[dict[str, Any]], int]:
    """Return the best individual, its ancestors and some others, oldest first, and the size of the family.

    Args:
        connection: Opened with `open_reader`.
        pedigree: The parents, from the same store.
        best: The individual whose ancestors are in the tree; None for an empty tree.
        others: Further individuals to return, which are not part of the tree.
    """
    family: set[int] = set()
    parents: Parents = {}
    line: list[int] = []
    if best is not None:
        family, parents = pedigree.family(best)
        line = _line(best, parents)
    kept = set(line[:TREE_MEMBERS])
    kept.update(sorted(family - kept, reverse=True)[: TREE_MEMBERS - len(kept)])
    shown = sorted({*kept, *others})
    on_line = set(line)
    known = {row[0]: row for row in connection.execute(_BRIEF, (json.dumps(shown),))}
    tree = []
    for number in shown:
        _, member_id, generation, score, valid, made_by = known.get(number) or (0, "?", 0, None, None, None)
        tree.append(
            {
                "number": number,
                "id": short(member_id),
                "generation": generation,
                "score": score,
                "valid": bool(valid),
                "made_by": made_by and short(made_by),
                "parents": [{"number": one, "id": name} for one, name in pedigree.parents(number)],
                "in_tree": number in kept,
                "in_line": number in on_line,
            }
        )
    return tree, len(family)


def _line(number: int, parents: Parents) -> list[int]:
    line = [number]
    seen = {number}
    while parents.get(line[-1]) and (first := parents[line[-1]][0][0]) is not None and first not in seen:
        line.append(first)
        seen.add(first)
    return line


class Details:
    """Details of individuals: source, cost, and differences from the parents.

    Args:
        connection: Opened with `open_reader`.
        pedigree: The parents, from the same store.
        task: The task whose evaluations are shown.
    """

    def __init__(self, connection: sqlite3.Connection, pedigree: Pedigree, task: str) -> None:
        self._connection = connection
        self._pedigree = pedigree
        self._task = task
        self._files: dict[str | None, Files | None] = {None: None}

    def of(self, number: int) -> dict[str, Any] | None:
        """Return the details of an individual; None if it is not in the store.

        Raises:
            StoreError: Its rows in the store are damaged.
        """
        row = self._row(number)
        if row is None:
            return None
        names = (
            "id",
            "generation",
            "score",
            "valid",
            "reason",
            "error",
            "fuel",
            "time_ms",
            "memory",
            "made_by",
        )
        found = dict(zip(names, row, strict=False))
        components, objectives, version = row[len(names) :]
        try:
            text = self._text(version)
            parents = [
                {"id": name, "number": one, "diff": self._diff(one, text)}
                for one, name in self._pedigree.parents(number)
            ]
            return {
                **found,
                "id": short(found["id"]),
                "reason": found["reason"] and short(found["reason"]),
                "made_by": found["made_by"] and short(found["made_by"]),
                "number": number,
                "valid": bool(found["valid"]),
                "error": _cut(found["error"]),
                "components": _parts(json.loads(components)),
                "objectives": _numbers(json.loads(objectives)),
                "notes": self._notes(number),
                "source": _cut(_as_text(text)),
                "parents": parents,
            }
        except ValueError as error:
            raise StoreError(f"{error}; see: evocell store check") from error

    def forget(self) -> None:
        """Drop the cached source texts."""
        self._files = {None: None}

    def _row(self, number: int) -> Sequence[Any] | None:
        row: Sequence[Any] | None = self._connection.execute(_DETAILS, (number, self._task)).fetchone()
        return row or self._connection.execute(_STRANGER, (number,)).fetchone()

    def _text(self, version: str | None) -> Files | None:
        if version not in self._files:
            asked = "SELECT files FROM sources WHERE version = ?"
            row = self._connection.execute(asked, (version,)).fetchone()
            self._files[version] = unpack_files(row[0]) if row else None
        return self._files[version]

    def _diff(self, parent: int | None, text: Files | None) -> str | None:
        row = None if parent is None else self._row(parent)
        before = None if row is None else self._text(row[-1])
        return None if before is None or text is None else _cut(diff_files(before, text))

    def _notes(self, number: int) -> dict[str, str]:
        asked = "SELECT metadata FROM lineage_notes WHERE sandbox = ?"
        row = self._connection.execute(asked, (number,)).fetchone()
        found = unpack(row[0]) if row else {}
        if not isinstance(found, dict):
            return {}
        notes = list(found.items())[:_MOST_NOTES]
        return {str(key)[:_NOTE_CHARS]: str(value)[:_NOTE_CHARS] for key, value in notes}


def _parts(found: object) -> dict[str, float | None]:
    parts = found.items() if isinstance(found, dict) else ()
    return {short(name): _number(one) for name, one in parts}


def _numbers(found: object) -> list[float | None]:
    return [_number(one) for one in found] if isinstance(found, list) else []


def _number(value: object) -> float | None:
    """Return a value if it is a finite number, else None: other programs may write to the store."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _as_text(files: Files | None) -> str | None:
    if files is None:
        return None
    parts = [(path, "(no text)" if text is None else text) for path, text in sorted(files.items())]
    if len(parts) == 1:
        return parts[0][1]
    return "\n".join(f"# {path}\n{text}" for path, text in parts)


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= _TEXT_CHARS else text[:_TEXT_CHARS] + "\n... (cut)"
