"""`evocell replay`: repeat recorded calls, and compare the outcomes bit for bit."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from attrs import asdict
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from evocell.api.engine import Engine
from evocell.cli.audit import state_dir
from evocell.cli.screen import open_screen, say_json
from evocell.config import Config
from evocell.console.safe import SafeConsole
from evocell.errors import ConfigurationError, EvocellError, StoreError
from evocell.models.recorded import EvaluationRecord, Replay

__all__ = ["add_replay_parser"]

_KEY_CHARS = 12
_MOST_SHOWN = 40


def add_replay_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `replay` to the parser."""
    replay = commands.add_parser(
        "replay",
        help="make recorded calls of evaluations again, and compare them bit for bit",
        description=(
            "Makes the newest calls that evaluations with this state directory made again, and compares "
            "outcome and fuel. The exit code is 1 if one is not the same."
        ),
    )
    replay.add_argument(
        "state_dir", nargs="?", type=Path, help="an engine's state_dir (default: the configured one)"
    )
    replay.add_argument("--key", metavar="KEY", help="only the record whose key begins so")
    replay.add_argument("--sandbox", metavar="ID", help="only the records of this individual")
    replay.add_argument("--last", type=int, default=100, metavar="N", help="how many at most (default: 100)")
    replay.add_argument("--workers", type=int, metavar="N", help="worker processes (default: one per core)")
    replay.add_argument("--json", action="store_true", help="print one JSON object a line")
    replay.set_defaults(run=run_replay)


def run_replay(args: argparse.Namespace) -> int:
    """Replay and print."""
    root = state_dir(args.state_dir)
    if not root.is_dir():
        raise StoreError(f"there is no state directory {root}", str(root))
    overrides = {} if args.workers is None else {"workers": args.workers}
    with closing(Engine(Config.load(state_dir=root, **overrides))) as engine:
        records = engine.evaluation_records(sandbox_id=args.sandbox, key=args.key, limit=args.last)
        if not records:
            raise ConfigurationError(_nothing(args), "state_dir")
        replays = list(_replays(engine, records, quiet=args.json))
    if args.json:
        for one in replays:
            say_json(_plain(one))
    else:
        _print(replays)
    return 0 if all(one.same or not one.record.deterministic for one in replays) else 1


def _nothing(args: argparse.Namespace) -> str:
    if args.key is None and args.sandbox is None:
        return "no call is recorded there: no evaluation has used this state directory yet"
    wanted = [f"--{name} {value}" for name, value in (("key", args.key), ("sandbox", args.sandbox)) if value]
    return f"no recorded call fits {' '.join(wanted)}; without it the newest are replayed, with their keys"


def _replays(engine: Engine, records: Sequence[EvaluationRecord], *, quiet: bool) -> Iterator[Replay]:
    console = SafeConsole(stderr=True)
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        for record in bar.track(records):
            try:
                yield engine.replay(record)
            except EvocellError as error:
                yield Replay(record=record, same=False, differences=(str(error),), kind="not replayed")


def _plain(one: Replay) -> dict[str, object]:
    return {
        "key": one.record.key,
        "sandbox_id": one.record.sandbox_id,
        "entry": one.record.call.entry,
        "version": one.record.call.version,
        "kind": one.kind,
        "fuel_used": one.fuel_used,
        "same": one.same,
        "deterministic": one.record.deterministic,
        "differences": list(one.differences),
        "record": asdict(one.record),
    }


def _print(replays: Sequence[Replay]) -> None:
    other = [one for one in replays if not one.same]
    shown = (other + [one for one in replays if one.same])[:_MOST_SHOWN]
    table = Table(box=None, header_style="bold")
    for title in ("record", "individual", "entry", "ended", "fuel", ""):
        table.add_column(title, justify="right" if title == "fuel" else "left", overflow="fold")
    for one in shown:
        verdict = Text("same", style="green") if one.same else Text("; ".join(one.differences), style="red")
        table.add_row(
            one.record.key[:_KEY_CHARS],
            Text(one.record.sandbox_id),
            Text(one.record.call.entry),
            Text(one.kind),
            f"{one.fuel_used:,}",
            verdict,
        )
    console = open_screen()
    console.print(table)
    if len(replays) > len(shown):
        console.print(f"and {len(replays) - len(shown):,} more that are the same")
    unpromised = sum(not one.record.deterministic for one in other)
    console.print(f"{len(replays) - len(other):,} of {len(replays):,} calls gave the same, bit for bit")
    if unpromised:
        console.print(f"{unpromised:,} of the others had been stopped by the clock, which promises nothing")
