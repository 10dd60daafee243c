"""`evocell audit`: what the security gate decided and which guests were stopped, from a state directory."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from attrs import asdict
from rich.table import Table
from rich.text import Text

from evocell.cli.screen import open_screen, say, say_json
from evocell.config import Config
from evocell.errors import ConfigurationError
from evocell.observability.audit import AUDIT_KINDS, AuditEntry, read_entries
from evocell.observability.database import open_reader

__all__ = ["add_audit_parser", "state_dir"]

_COLOURS = {
    "allowed": "green",
    "reported": "yellow",
    "refused": "red",
    "refused_running": "red",
    "killed": "magenta",
    "crashed": "magenta",
    "worker_lost": "yellow",
}
_SHORT_ID_CHARS = 10
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_audit_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `audit` to the parser."""
    audit = commands.add_parser(
        "audit",
        help="show what the security gate decided and which guests were stopped",
        description="Shows the newest entries of a state directory's audit log, the oldest of them first.",
    )
    audit.add_argument(
        "state_dir", nargs="?", type=Path, help="an engine's state_dir (default: the configured one)"
    )
    audit.add_argument("--kind", choices=AUDIT_KINDS, help="only entries of this kind")
    audit.add_argument("--sandbox", metavar="ID", help="only entries about this sandbox")
    audit.add_argument(
        "--since", type=_age, metavar="AGE", help="only entries not older than this, such as 30m or 2d"
    )
    audit.add_argument("--limit", type=int, default=50, metavar="N", help="how many at most (default: 50)")
    audit.add_argument("--json", action="store_true", help="print one JSON object a line")
    audit.set_defaults(run=run_audit)


def run_audit(args: argparse.Namespace) -> int:
    """Print the entries."""
    with contextlib.closing(open_reader(state_dir(args.state_dir))) as connection:
        entries = read_entries(
            connection,
            kind=args.kind,
            sandbox_id=args.sandbox,
            since=None if args.since is None else time.time() - args.since,
            limit=args.limit,
        )
    if args.json:
        for entry in entries:
            say_json(asdict(entry))
    elif entries:
        _print_table(entries)
    else:
        say("the audit log has no such entry")
    return 0


def state_dir(given: Path | None) -> Path:
    """Return the state directory that was given, or else the configured one.

    Raises:
        ConfigurationError: There is neither.
    """
    found = given or Config.load().state_dir
    if found is None:
        raise ConfigurationError("no state_dir is configured; name the directory", "state_dir")
    return found


def _age(text: str) -> float:
    unit = _UNITS.get(text[-1:])
    number = text[:-1]
    if unit is None or not number.replace(".", "", 1).isdecimal():
        msg = f"{text!r} is no age; write a number and s, m, h or d, such as 30m"
        raise argparse.ArgumentTypeError(msg)
    return float(number) * unit


def _print_table(entries: Sequence[AuditEntry]) -> None:
    table = Table(box=None, header_style="bold")
    for title in ("time (UTC)", "what", "sandbox", "version", "profile", "detail"):
        table.add_column(title, overflow="fold", no_wrap=title not in {"detail", "sandbox"})
    for entry in entries:
        table.add_row(
            datetime.fromtimestamp(entry.at, UTC).strftime("%m-%d %H:%M:%S"),
            Text(entry.kind.replace("_", " "), style=_COLOURS.get(entry.kind, "")),
            Text(entry.sandbox_id or "-"),
            Text(entry.version[:_SHORT_ID_CHARS] or "-"),
            Text(entry.profile or "-"),
            Text(entry.detail),
        )
    open_screen().print(table)
