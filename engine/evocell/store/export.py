"""Export of a store's tables as CSV, JSON lines or msgpack."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal, TypeAlias

from evocell.models.foreign import clean_json
from evocell.store.encoding import pack, unpack, unpack_files

__all__ = ["EXPORTS", "ExportFormat", "export_rows", "write_rows"]

ExportFormat: TypeAlias = Literal["csv", "jsonl", "msgpack"]

Row: TypeAlias = Mapping[str, object]

EXPORTS: Mapping[str, str] = MappingProxyType(
    {
        "runs": "SELECT * FROM runs ORDER BY run",
        "sandboxes": "SELECT * FROM sandboxes ORDER BY sandbox",
        "evaluations": "SELECT * FROM evaluations ORDER BY evaluation",
        "adjustments": "SELECT * FROM adjustments ORDER BY adjustment",
        "lineage": (
            "SELECT l.child, s.id AS child_id, l.place, l.parent, l.parent_id, s.generation, s.mutation_type,"
            " s.version, n.metadata FROM lineage l LEFT JOIN sandboxes s ON s.sandbox = l.child"
            " LEFT JOIN lineage_notes n ON n.sandbox = l.child ORDER BY l.child, l.place"
        ),
        "batches": "SELECT * FROM batches ORDER BY batch",
        "sources": "SELECT * FROM sources ORDER BY version",
    }
)
"""Exportable tables and their queries."""

_TIMES = frozenset(
    {"started_at", "ended_at", "evaluated_at", "created_at", "updated_at", "begun_at", "adjusted_at"}
)
_FLAGS = frozenset({"kept", "valid", "deterministic"})
_JSON = frozenset({"objectives", "components"})
_PACKED = frozenset({"config", "transitions", "test_results", "metadata", "members"})
_LOOKED_AT = 256
"""Characters within which a visible one must occur: text with more leading blanks is no formula."""

_FORMULA = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""Characters that may begin a formula in a spreadsheet, including full-width forms."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?", re.ASCII)


def export_rows(connection: sqlite3.Connection, table: str, *, flat: bool = False) -> Iterator[Row]:
    """Return the rows of a table, their columns decoded: times as ISO 8601 in UTC, packed ones as plain data.

    Args:
        connection: Opened with `open_reader`.
        table: One of `EXPORTS`.
        flat: Whether objectives and parts of a score become columns of their own, ``objective_1`` and
            ``component_<name>``, the same in every row, instead of a list and a map.

    Raises:
        ValueError: A row is damaged.
    """
    spread = _spread(connection) if flat and table == "evaluations" else None
    cursor = connection.execute(EXPORTS[table])
    names = [column[0] for column in cursor.description]
    for row in cursor:
        decoded = {name: _decoded(name, value) for name, value in zip(names, row, strict=True)}
        yield decoded if spread is None else _flat(decoded, *spread)


def _spread(connection: sqlite3.Connection) -> tuple[int, list[str]]:
    """Return the highest number of objectives, and the names of all parts of scores."""
    most: int | None = connection.execute(
        "SELECT max(json_array_length(objectives)) FROM evaluations"
    ).fetchone()[0]
    found = connection.execute("SELECT DISTINCT key FROM evaluations, json_each(components) ORDER BY key")
    return most or 0, [name for (name,) in found]


def _flat(row: dict[str, object], n_objectives: int, parts: Sequence[str]) -> Row:
    flat: dict[str, object] = {}
    for name, value in row.items():
        if name == "objectives" and isinstance(value, list):
            padded = value + [None] * (n_objectives - len(value))
            flat |= {f"objective_{place}": one for place, one in enumerate(padded, 1)}
        elif name == "components" and isinstance(value, dict):
            flat |= {f"component_{part}": value.get(part) for part in parts}
        else:
            flat[name] = value
    return flat


def write_rows(rows: Iterator[Row], file_format: ExportFormat, write: Callable[[bytes], object]) -> int:
    """Write rows in a format.

    Args:
        rows: The rows.
        file_format: ``"csv"`` has a header line and packed columns as JSON; ``"jsonl"`` has one object per
            line; ``"msgpack"`` is a sequence of maps.
        write: Takes the bytes.

    Returns:
        The number of rows.
    """
    n_rows = 0
    for row in rows:
        if file_format == "csv":
            if not n_rows:
                write(_csv_line(list(row)))
            write(_csv_line([_cell(value) for value in row.values()]))
        elif file_format == "jsonl":
            write(_json(row).encode() + b"\n")
        else:
            write(pack(row))
        n_rows += 1
    return n_rows


def _decoded(name: str, value: object) -> object:
    if value is None:
        return None
    if name in _TIMES and isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).isoformat()
    if name in _FLAGS:
        return bool(value)
    if name in _JSON and isinstance(value, str):
        return json.loads(value)
    if name in _PACKED and isinstance(value, bytes):
        return unpack(value)
    if name == "files" and isinstance(value, bytes):
        return unpack_files(value)
    return value


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return _json(value)
    # A spreadsheet must not interpret a candidate's text as a formula.
    if isinstance(value, str) and _looks_like_formula(value):
        return f"'{value}"
    return value


def _looks_like_formula(text: str) -> bool:
    """Return whether a cell may be read as a formula; invisible leading characters are skipped."""
    first = next(
        (char for char in text[:_LOOKED_AT] if char in _FORMULA or (char.isprintable() and char != " ")), ""
    )
    return first in _FORMULA and not _NUMBER.fullmatch(text)


def _json(value: object) -> str:
    return clean_json(json.dumps(value, ensure_ascii=False, default=_as_json))


def _csv_line(cells: list[object] | list[str]) -> bytes:
    text = io.StringIO()
    # The writer quotes a carriage return in a cell only if it is part of the line terminator.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n").encode("utf-8", "backslashreplace") + b"\n"


def _as_json(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else repr(value)
