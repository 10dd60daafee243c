"""Consistency check of a store: foreign objects, values of wrong types, damaged rows, broken references.

A store may have been changed by other programs. Readers take its rows as the schema has them; where one
fails over what it read, `blaming_store` looks for the reason, so that reading itself pays nothing for that.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache, partial, wraps
from itertools import chain
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from attrs import frozen

from evocell.errors import StoreError
from evocell.store.database import FILE_NAME, database_in, open_reader, store_errors
from evocell.store.encoding import unpack, unpack_files
from evocell.store.runs import is_alive
from evocell.store.schema import LATEST_S, MIGRATIONS

__all__ = ["blaming", "blaming_store", "inspect_store", "store_reader"]

P = ParamSpec("P")
T = TypeVar("T")

_FAILURES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What readers raise over values that the schema does not allow."""

_MOST = 20
"""Problems of one kind that are listed; further ones are only counted."""

_KEY_CHARS = 60

_QUESTIONS: tuple[tuple[str, str], ...] = (
    (
        """
        SELECT run FROM (
            SELECT run FROM evaluations UNION SELECT run FROM sandboxes UNION SELECT run FROM batches
        )
        WHERE run NOT IN (SELECT run FROM runs)
        """,
        "there are rows of run {}, which is not among the runs",
    ),
    (
        """
        SELECT sandbox_id FROM evaluations
        WHERE sandbox_id <> '' AND sandbox NOT IN (SELECT sandbox FROM sandboxes)
        """,
        "{} has an evaluation and is not among the sandboxes",
    ),
    (
        "SELECT child FROM lineage WHERE child NOT IN (SELECT sandbox FROM sandboxes)",
        "number {} has parents and is not among the sandboxes",
    ),
    (
        "SELECT parent_id FROM lineage WHERE parent NOT IN (SELECT sandbox FROM sandboxes)",
        "{} is somebody's parent and is not among the sandboxes",
    ),
    (
        "SELECT child FROM lineage WHERE parent >= child AND parent >> 32 = child >> 32",
        "number {} is older than its parent",
    ),
    (
        """
        SELECT DISTINCT version FROM evaluations
        WHERE status = 'done' AND version IS NOT NULL AND version NOT IN (SELECT version FROM sources)
        """,
        "the text of version {} is missing",
    ),
    (
        """
        SELECT batch FROM batches WHERE outcome = 'done'
            AND count <> (SELECT count(*) FROM evaluations WHERE evaluations.batch = batches.batch)
        """,
        "batch {} is done and has not as many evaluations as members",
    ),
)


def _list_of(kind: type, decode: Callable[[bytes], object], packed: bytes) -> None:
    found = decode(packed)
    if not isinstance(found, list) or not all(isinstance(one, kind) for one in found):
        raise ValueError(f"it is no list of {kind.__name__}")


def _map(decode: Callable[[bytes], object], packed: bytes) -> None:
    if not isinstance(decode(packed), dict):
        raise ValueError("it is no map")  # noqa: TRY004 - damaged data


def _numbers(text: str) -> None:
    """Check the JSON of objectives, or of the parts of a score."""
    found = json.loads(text)
    values = found.values() if isinstance(found, dict) else found
    if not all(value is None or isinstance(value, int | float) for value in values):
        raise ValueError("it holds more than numbers")


_PACKED: tuple[tuple[str, str, Callable[..., object]], ...] = (
    (
        "SELECT evaluation, test_results FROM evaluations",
        "the cases of evaluation {}",
        partial(_list_of, dict, unpack),
    ),
    ("SELECT evaluation, objectives FROM evaluations", "the objectives of evaluation {}", _numbers),
    ("SELECT evaluation, components FROM evaluations", "the parts of the score of evaluation {}", _numbers),
    ("SELECT version, files FROM sources", "the text of version {}", unpack_files),
    (
        "SELECT sandbox, metadata FROM lineage_notes",
        "what is known of the mutation of number {}",
        partial(_map, unpack),
    ),
    ("SELECT batch, members FROM batches", "the members of batch {}", partial(_list_of, int, unpack)),
    (
        "SELECT sandbox, config FROM sandboxes WHERE config IS NOT NULL",
        "the config of number {}",
        partial(_map, unpack),
    ),
    (
        "SELECT sandbox, transitions FROM sandboxes WHERE transitions IS NOT NULL",
        "the transitions of number {}",
        partial(_list_of, list, unpack),
    ),
    ("SELECT name, reading FROM readings", "the reading of {}", partial(_map, unpack)),
    ("SELECT seq, call FROM records", "the call of record {}", partial(_map, json.loads)),
    ("SELECT sandbox_id, files FROM module_versions", "the files of a version of {}", unpack),
)


_WANTED = {"REAL": "a finite number", "INTEGER": "an integer", "TEXT": "a text", "BLOB": "bytes"}


@frozen
class _Column:
    """A column as the schema has it: its name, its type, and whether it may be NULL."""

    name: str
    type: str
    nullable: bool

    @property
    def is_time(self) -> bool:
        """Whether it holds seconds since 1970."""
        return self.name.endswith("_at") or self.name == "at"

    @property
    def wanted(self) -> str:
        """What its values are, in words."""
        return "a time" if self.is_time else _WANTED[self.type]

    @property
    def wrong(self) -> str:
        """The SQL condition that a value is not of the column's type."""
        types = [f"'{self.type.lower()}'", *(["'null'"] if self.nullable else [])]
        condition = f"typeof({self.name}) NOT IN ({', '.join(types)})"
        if self.type == "REAL":
            least, most = (0, LATEST_S) if self.is_time else (-sys.float_info.max, sys.float_info.max)
            condition = f"({condition} OR {self.name} NOT BETWEEN {least!r} AND {most!r})"
        return condition


@cache
def _schema() -> tuple[frozenset[tuple[str, str]], dict[str, tuple[_Column, ...]]]:
    """The objects of the schema, and the columns of each of its tables."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for migration in MIGRATIONS:
            for statement in migration.statements:
                connection.execute(statement)
        objects = _objects(connection)
        tables = sorted(name for kind, name in objects if kind == "table")
        return objects, {table: _columns(connection, table) for table in tables}


def _objects(connection: sqlite3.Connection) -> frozenset[tuple[str, str]]:
    found = connection.execute(
        "SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    )
    return frozenset((str(kind), str(name)) for kind, name in found)


def _columns(connection: sqlite3.Connection, table: str) -> tuple[_Column, ...]:
    rows = connection.execute(f"SELECT name, type, \"notnull\", pk FROM pragma_table_info('{table}')")  # noqa: S608 - names of ours
    return tuple(
        _Column(name, kind, nullable=not (required or place)) for name, kind, required, place in rows
    )


def _wrong_types(connection: sqlite3.Connection) -> Iterator[str]:
    """Name what is not of the schema: views and triggers, other columns, values of other types."""
    objects, tables = _schema()
    found = _objects(connection)
    yield from (f"there is a {kind} {name!r}, which evocell does not make" for kind, name in found - objects)
    yield from (f"the {kind} {name} is missing" for kind, name in objects - found)
    for table, columns in tables.items():
        if ("table", table) not in found:
            continue
        if _columns(connection, table) != columns:
            yield f"the table {table} has other columns than evocell makes"
            continue
        for column in columns:
            shown = f"{columns[0].name}, typeof({column.name})"
            rows = connection.execute(f"SELECT {shown} FROM {table} WHERE {column.wrong} LIMIT {_MOST}")  # noqa: S608 - names of ours
            yield from (
                f"{table}.{column.name} of {str(key)[:_KEY_CHARS]!r} is {kind}, not {column.wanted}"
                for key, kind in rows
            )


def blaming(path_of: Callable[[Any], Path]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a decorator for methods that read a store; see `blaming_store`.

    Args:
        path_of: Returns the database, given the method's instance.
    """

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        @wraps(method)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            with blaming_store(path_of(args[0])):
                return method(*args, **kwargs)

        return guarded

    return decorate


@contextmanager
def store_reader(state_dir: Path) -> Iterator[sqlite3.Connection]:
    """Open the store of a state directory for a reader, whose failure over what is in it names the fault.

    Args:
        state_dir: The directory, or the database itself.

    Raises:
        StoreError: There is no store, it is not ours, of another version, or something in it is not as
            evocell writes it.
    """
    path = database_in(state_dir)
    with closing(open_reader(path)) as connection, store_errors(path), blaming_store(path):
        yield connection


@contextmanager
def blaming_store(path: Path) -> Iterator[None]:
    """Have a failure over what was read from a store name the fault in it, if there is one.

    Args:
        path: The database.

    Raises:
        StoreError: Something in the store is not as evocell writes it.
    """
    try:
        yield
    except _FAILURES as error:
        with closing(open_reader(path)) as connection:
            fault = next(chain(_wrong_types(connection), _unpackable(connection), _broken(connection)), None)
        if fault is None:
            raise
        where = path.parent if path.name == FILE_NAME else path
        raise StoreError(
            f"the store {path} cannot be read: {fault}; see: evocell store check {where}", str(path)
        ) from error


def inspect_store(connection: sqlite3.Connection, path: Path) -> Iterator[str]:
    """Return the faults of a store, a sentence each.

    Args:
        connection: Opened with `open_reader`.
        path: The database.
    """
    try:
        damage = [row[0] for row in connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
    except sqlite3.DatabaseError as error:
        damage = [str(error)]
    if damage:
        yield from (f"the database is damaged: {one}" for one in damage)
        return
    faults = [*_wrong_types(connection)]
    yield from _some(faults)
    if faults:
        return  # what is asked next relies on the types
    for run, outcome in connection.execute("SELECT run, outcome FROM runs ORDER BY run"):
        if outcome == "open" and not is_alive(path, run):
            yield f"the engine of run {run} was killed; the next start of an engine here marks what it left"
    yield from _broken(connection)
    yield from _unpackable(connection)


def _broken(connection: sqlite3.Connection) -> Iterator[str]:
    """Name the rows that refer to what is not there, or are at odds with others."""
    for sql, sentence in _QUESTIONS:
        yield from _some([sentence.format(row[0]) for row in connection.execute(sql)])


def _unpackable(connection: sqlite3.Connection) -> Iterator[str]:
    """Name the packed values that cannot be read."""
    for sql, what, decode in _PACKED:
        yield from _some(
            [what.format(key) + " cannot be read" for key in _unreadable(connection, sql, decode)]
        )


def _unreadable(connection: sqlite3.Connection, sql: str, decode: Callable[..., object]) -> Iterator[object]:
    for key, packed in connection.execute(sql):
        try:
            decode(packed)
        except (*_FAILURES, zlib.error):
            yield key


def _some(problems: list[str]) -> Iterator[str]:
    yield from problems[:_MOST]
    if len(problems) > _MOST:
        yield f"and {len(problems) - _MOST:,} more of this kind"
