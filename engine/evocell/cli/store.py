"""`evocell store`: inspect and export the durable store of a state directory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from evocell.cli.screen import data_sink, say
from evocell.config import Config
from evocell.errors import ConfigurationError, StoreError
from evocell.store.database import FILE_NAME
from evocell.store.export import EXPORTS, export_rows, write_rows
from evocell.store.inspection import inspect_store, store_reader

_COUNTED = {"runs": "run", "sandboxes": "sandbox", "evaluations": "evaluation", "sources": "source"}


def add_store_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `store` and its own commands to the parser."""
    store = commands.add_parser(
        "store",
        help="check or export the durable store of a state directory",
        description="Looks at the store of a state directory; an engine may be using it meanwhile.",
    )
    actions = store.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = actions.add_parser(
        "check",
        help="say whether the store is sound",
        description="Reads all of the store. The exit code is 1 if something is wrong.",
    )
    add_directory(check)
    check.set_defaults(run=run_check)
    export = actions.add_parser(
        "export",
        help="write a table as CSV, JSON lines or msgpack",
        description="Writes one table of the store. Times are ISO 8601 in UTC.",
    )
    add_directory(export)
    export.add_argument(
        "--table",
        choices=tuple(EXPORTS),
        default="evaluations",
        help="what to write (default: %(default)s)",
    )
    export.add_argument(
        "--format",
        dest="file_format",
        choices=("csv", "jsonl", "msgpack"),
        default="csv",
        help="how (default: %(default)s)",
    )
    export.add_argument("--out", type=Path, metavar="FILE", help="where to (default: standard output)")
    export.set_defaults(run=run_export)


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a state directory."""
    parser.add_argument(
        "state_dir",
        type=Path,
        nargs="?",
        metavar="STATE_DIR",
        help="the state directory (default: the one that is configured)",
    )


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose among the runs of a state directory."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--run",
        type=int,
        metavar="N",
        dest="number",
        help="which run in it (default: the latest, and all that are one search with it)",
    )
    which.add_argument("--all-runs", action="store_true", help="every run in it, together")
    which.add_argument("--population", metavar="NAME", help="only members of this population, in all runs")


def store_path(given: Path | None) -> Path:
    """Return the database of a state directory, or of the configured one.

    Raises:
        ConfigurationError: None is given and none is configured.
    """
    place = given or Config.load().state_dir
    if place is None:
        raise ConfigurationError(
            "name a state directory, or configure one (state_dir, or EVOCELL_STATE_DIR)", "state_dir"
        )
    return place / FILE_NAME if place.is_dir() or not place.exists() else place


def run_check(args: argparse.Namespace) -> int:
    """Print the faults of a store; the exit code is 1 if there are any."""
    path = store_path(args.state_dir)
    with store_reader(path) as connection:
        problems = list(inspect_store(connection, path))
        for problem in problems:
            say(problem)
        if problems:
            return 1
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - names of ours
            for table in _COUNTED
        }
    said = (f"{count:,} {_COUNTED[table] if count == 1 else table}" for table, count in counts.items())
    say(f"{path} is sound: {', '.join(said)}")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write a table of a store."""
    path = store_path(args.state_dir)
    with store_reader(path) as connection, _output(args) as write:
        try:
            rows = export_rows(connection, args.table, flat=args.file_format == "csv")
            n_rows = write_rows(rows, args.file_format, write)
        except ValueError as error:
            raise StoreError(f"{error}; see: evocell store check {path.parent}", str(path)) from error
    if args.out is not None:
        say(f"{n_rows:,} {args.table} written to {args.out}")
    return 0


@contextmanager
def _output(args: argparse.Namespace) -> Iterator[Callable[[bytes], object]]:
    place: Path | None = args.out
    if place is None:
        yield _sink(sys.stdout.buffer, args.file_format)
        sys.stdout.buffer.flush()
        return
    try:
        with place.open("wb") as file:
            yield _sink(file, args.file_format)
    except OSError as error:
        raise ConfigurationError(f"{place} cannot be written: {error.strerror or error}", "out") from error


def _sink(file: IO[bytes], file_format: str) -> Callable[[bytes], object]:
    if file_format == "msgpack" and file.isatty():
        raise ConfigurationError("msgpack is nothing for a terminal; give a file with --out", "format")
    return data_sink(file)
