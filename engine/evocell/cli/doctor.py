"""`evocell doctor`: can sandboxes run here, and how many at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from attrs import asdict
from rich.table import Table
from rich.text import Text

from evocell.cli.checks import Check, Status, judge, room
from evocell.cli.facts import Facts, gather
from evocell.cli.image import configured_spec, open_cache
from evocell.cli.screen import open_screen, say_json
from evocell.config import Config

_COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.PROBLEM: "red"}


def add_doctor_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `doctor` to the parser."""
    doctor = commands.add_parser(
        "doctor",
        help="say whether sandboxes can run here, and how many at once",
        description="Looks at this machine, the image cache, and what bounds how many sandboxes fit.",
    )
    doctor.add_argument("--cache-dir", type=Path, metavar="DIR", help="look at this image cache")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of a table")
    doctor.set_defaults(run=run_doctor)


def run_doctor(args: argparse.Namespace) -> int:
    """Print what was found; the exit code is 1 if something keeps sandboxes from running."""
    config = Config.load()
    cache = open_cache(args.cache_dir, config)
    facts = gather(cache, configured_spec(config), config)
    checks = judge(facts)
    if args.json:
        say_json(report(facts, checks), indent=2)
    else:
        _print_table(checks)
    return 1 if any(check.status is Status.PROBLEM for check in checks) else 0


def report(facts: Facts, checks: Sequence[Check]) -> dict[str, object]:
    """Put everything `doctor` knows into the shape of its JSON."""
    return {
        "facts": asdict(facts),
        "capacity": asdict(room(facts)) | {"sessions": room(facts).sessions},
        "checks": [asdict(check) | {"status": check.status.value} for check in checks],
    }


def _print_table(checks: Sequence[Check]) -> None:
    table = Table(box=None, show_header=False)
    for check in checks:
        status = Text(check.status.value, style=_COLOURS[check.status])
        table.add_row(status, check.name, check.found)
        if check.advice:
            table.add_row("", "", Text(check.advice, style="italic"))
    open_screen().print(table)
