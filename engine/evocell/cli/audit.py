"""`evocell audit`: decisions of the security gate and stopped guests, from a state directory."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from attrs import asdict
from rich.console import Console, OverflowMethod
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
_USUAL_LIMIT = 50
_FEWEST = 3
_MOST_FOLDED = 10_000
"""Newest entries of each kind that the summary counts."""
_MOST_GROUPS = 8
"""Lines of the summary for entries that were not allowed, and again for those that were."""
_DIGITS = re.compile(r"\d[\d,.]*")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_audit_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `audit` to the parser."""
    audit = commands.add_parser(
        "audit",
        help="show what the security gate decided and which guests were stopped",
        description=(
            "Shows a state directory's audit log: first how often each thing was refused, stopped or "
            "allowed, then the newest refusals, kills and crashes one by one, the oldest of them first."
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
    audit.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help=f"how many entries to list (default: what the terminal has room for, else {_USUAL_LIMIT})",
    )
    audit.add_argument("--json", action="store_true", help="print one JSON object a line")
    audit.set_defaults(run=run_audit)


def run_audit(args: argparse.Namespace) -> int:
    """Print the entries."""
    summarised = not (args.json or args.kind)
    limit = _USUAL_LIMIT if args.limit is None else args.limit
    with store_reader(state_dir(args.state_dir)) as connection:
        since = None if args.since is None else time.time() - args.since
        read = partial(read_entries, connection, sandbox_id=args.sandbox, since=since)
        if not summarised:
            entries = read(kind=args.kind, limit=limit)
            allowed: list[AuditEntry] = []
        else:
            # Entries of allowed versions must not displace those of refused or stopped ones.
            most = max(limit, _MOST_FOLDED)
            found = [read(kind=kind, limit=most) for kind in AUDIT_KINDS if kind != "allowed"]
            entries = sorted((one for some in found for one in some), key=lambda one: one.seq)
            allowed = read(kind="allowed", limit=_MOST_FOLDED)
    if args.json:
        for entry in entries:
            say_json(asdict(entry))
    elif not entries and not allowed:
        say("the audit log has no such entry")
    elif summarised:
        _print_summary(entries, allowed, args.limit)
    else:
        _print_entries(open_screen(), entries, whole=True)
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


def _print_summary(entries: Sequence[AuditEntry], allowed: Sequence[AuditEntry], limit: int | None) -> None:
    """Print how often each thing happened, then as many of the newest entries as there is room for."""
    screen = open_screen()
    groups = _grouped(entries)
    repeated = len(groups) < len(entries)
    lines = [*(_summarised(groups) if repeated else ()), *_summarised(_grouped(allowed))]
    if lines:
        screen.print(Text(" times  latest (UTC)    what", style="bold"))
    for line in lines:
        screen.print(line, no_wrap=True, overflow="ellipsis")
    if limit is None:
        fits = os.environ.get("LINES", "").isdigit() or screen.is_terminal
        # A blank line, a title, a remark and the prompt stand around them.
        limit = max(_FEWEST, screen.height - len(lines) - 5) if fits else _USUAL_LIMIT
    newest = entries[-limit:]
    if not newest:
        return
    if lines:
        screen.print()
    _print_entries(screen, newest, whole=screen.width >= _WIDE)
    if len(newest) < len(entries):
        screen.print(f"the newest {len(newest):,} of {len(entries):,}; --limit shows more")


def _grouped(entries: Sequence[AuditEntry]) -> list[list[AuditEntry]]:
    """Return entries of one kind whose details differ in numbers only, together, the largest groups first."""
    groups: dict[tuple[str, str], list[AuditEntry]] = {}
    for entry in entries:
        groups.setdefault((entry.kind, _DIGITS.sub("#", entry.detail)), []).append(entry)
    return sorted(groups.values(), key=len, reverse=True)


def _summarised(groups: Sequence[Sequence[AuditEntry]]) -> list[Text]:
    """Return a line for each of the largest groups, with its newest detail, and one for all others."""
    lines = []
    for same in groups[:_MOST_GROUPS]:
        newest = same[-1]
        line = Text(f"{len(same):>6,}  {_moment(newest)}  ")
        line.append(f"{newest.kind.replace('_', ' '):<7}", style=_COLOURS[newest.kind])
        lines.append(line.append(f"  {newest.detail}"))
    others = groups[_MOST_GROUPS:]
    if others:
        lines.append(Text(f"{sum(map(len, others)):>6,}  of {len(others):,} more sorts; --kind shows them"))
    return lines


def _print_entries(screen: Console, entries: Sequence[AuditEntry], *, whole: bool) -> None:
    """Print a line for each; more than one, where that is narrow and the whole is wanted."""
    wide = screen.width >= _WIDE
    rows = []
    for entry in entries:
        sandbox = entry.sandbox_id or "-"
        rows.append(
            (
                Text(_moment(entry)),
                Text(entry.kind.replace("_", " "), style=_COLOURS[entry.kind]),
                Text(sandbox if wide or len(sandbox) <= _ID_CHARS else f"{sandbox[: _ID_CHARS - 1]}…"),
                *((Text(entry.version[:_SHORT_ID_CHARS] or "-"), Text(entry.profile or "-")) if wide else ()),
                Text(entry.detail),
            )
        )
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    titles = ("time (UTC)", "what", "sandbox", *(("version", "profile") if wide else ()))
    room = screen.width - 1
    for title, cells in zip(titles, zip(*rows, strict=True), strict=False):
        width = max(len(title), *map(len, cells))
        room -= width + 1
        table.add_column(title, no_wrap=True, width=width)
    overflow: OverflowMethod = "fold" if whole else "ellipsis"
    table.add_column("detail", no_wrap=not whole, overflow=overflow, max_width=max(1, room))
    for row in rows:
        table.add_row(*row)
    screen.print(table)


def _moment(entry: AuditEntry) -> str:
    return datetime.fromtimestamp(entry.at, UTC).strftime("%m-%d %H:%M:%S")
