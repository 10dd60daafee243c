"""`evocell audit`: decisions of the security gate and stopped guests, from a state directory."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from attrs import asdict
from rich.table import Table
from rich.text import Text

from evocell.cli.screen import open_screen, say, say_json
from evocell.config import Config
from evocell.errors import ConfigurationError
from evocell.store.audit import AUDIT_KINDS, AuditEntry, read_entries
from evocell.store.inspection import store_reader

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
_ID_CHARS = 16
_WIDE = 110
_NARROW_COLUMNS = 14 + 15 + 16 + 3
_MOST_FOLDED = 10_000
"""Entries of allowed versions that are folded into one line per subject."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_audit_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `audit` to the parser."""
    audit = commands.add_parser(
        "audit",
        help="show what the security gate decided and which guests were stopped",
        description=(
            "Shows the newest entries of a state directory's audit log, the oldest of them first: refusals, "
            "kills and crashes one by one, and below them what was allowed, a line for each thing."
        ),
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
    with store_reader(state_dir(args.state_dir)) as connection:
        since = None if args.since is None else time.time() - args.since
        read = partial(read_entries, connection, sandbox_id=args.sandbox, since=since)
        allowed: list[AuditEntry] = []
        if args.json or args.kind:
            entries = read(kind=args.kind, limit=args.limit)
        else:
            # Entries of allowed versions must not displace those of refused or stopped ones.
            found = [read(kind=kind, limit=args.limit) for kind in AUDIT_KINDS if kind != "allowed"]
            entries = sorted((one for some in found for one in some), key=lambda one: one.seq)[-args.limit :]
            allowed = read(kind="allowed", limit=_MOST_FOLDED)
    if args.json:
        for entry in entries:
            say_json(asdict(entry))
    elif entries or allowed:
        _print_table(entries, allowed)
    else:
        say("the audit log has no such entry")
    return 0


def state_dir(given: Path | None) -> Path:
    """Return the given state directory, or else the configured one.

    Raises:
        ConfigurationError: Neither exists.
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


def _print_table(entries: Sequence[AuditEntry], allowed: Sequence[AuditEntry]) -> None:
    screen = open_screen()
    wide = screen.width >= _WIDE
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    titles = ("time (UTC)", "what", "sandbox", *(("version", "profile") if wide else ()), "detail")
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=title not in {"detail", "sandbox"})
    room = max(20, screen.width - _NARROW_COLUMNS)
    for entry in entries:
        detail = entry.detail if wide or len(entry.detail) <= 2 * room else entry.detail[: 2 * room - 1] + "…"
        sandbox = entry.sandbox_id or "-"
        table.add_row(
            _moment(entry),
            Text(entry.kind.replace("_", " "), style=_COLOURS[entry.kind]),
            Text(sandbox if wide or len(sandbox) <= _ID_CHARS else f"{sandbox[: _ID_CHARS - 1]}…"),
            *((Text(entry.version[:_SHORT_ID_CHARS] or "-"), Text(entry.profile or "-")) if wide else ()),
            Text(detail),
        )
    if entries:
        screen.print(table)
    folded: dict[str, list[AuditEntry]] = {}
    for entry in allowed:
        folded.setdefault(entry.detail, []).append(entry)
    for detail, same in sorted(folded.items(), key=lambda pair: -len(pair[1])):
        line = Text(f"{_moment(same[-1])} ")
        line.append("allowed", style=_COLOURS["allowed"])
        line.append(
            f" {len(same):,} times: {detail}" if len(same) > 1 else f" {same[0].sandbox_id or '-'} {detail}"
        )
        screen.print(line, no_wrap=True, overflow="ellipsis")


def _moment(entry: AuditEntry) -> str:
    return datetime.fromtimestamp(entry.at, UTC).strftime("%m-%d %H:%M:%S")
