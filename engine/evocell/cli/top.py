"""`evocell top`: a running engine, live on the terminal."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from evocell.cli.store import add_choice, store_path
from evocell.cli.top_data import Picture, RunWatcher
from evocell.console.safe import SafeConsole
from evocell.observability.database import open_reader

__all__ = ["add_top_parser", "draw"]

_BARS = " ▁▂▃▄▅▆▇█"
_PLAIN_BARS = " .:-=+*#@"
_BAR_WIDTH = 24
_MOST_DEATHS = 8
_NAME_WIDTH = 10
_SPARK_WIDTH = 40
_FRAME_LINES = 4
"""Lines of the frame, the head and the one below it."""
_STATES = {"running": "bold green", "closed": "dim", "killed": "bold red"}


def add_top_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `top` to the parser."""
    top = commands.add_parser(
        "top",
        help="watch a running engine: sandboxes, workers, throughput, deaths, best fitness",
        description=(
            "Shows what an engine does that has a state_dir, from another terminal. It reads the store and "
            "does not disturb the engine. Leave it with Ctrl-C."
        ),
    )
    top.add_argument(
        "state_dir",
        type=Path,
        nargs="?",
        metavar="STATE_DIR",
        help="the state directory of the engine (default: the one that is configured)",
    )
    add_choice(top)
    top.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="S", help="seconds between looks (default: 1)"
    )
    top.add_argument("--once", action="store_true", help="show it once and leave")
    top.set_defaults(run=run_top)


def run_top(args: argparse.Namespace) -> int:
    """Show an engine until Ctrl-C; where there is no terminal, once."""
    path = store_path(args.state_dir)
    console = SafeConsole()
    with closing(open_reader(path)) as connection:
        watcher = RunWatcher(
            connection, path, args.number, all_runs=args.all_runs, population=args.population
        )
        if args.once or not console.is_terminal or console.is_dumb_terminal:
            console.print(draw(watcher.look(), str(path.parent), plain=not _is_utf(console)))
            return 0
        try:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                while True:
                    live.update(
                        draw(
                            watcher.look(),
                            str(path.parent),
                            plain=not _is_utf(console),
                            height=console.height,
                        ),
                        refresh=True,
                    )
                    time.sleep(args.interval)
        except KeyboardInterrupt:
            return 0


def draw(picture: Picture, place: str, *, plain: bool = False, height: int | None = None) -> RenderableType:
    """Draw a run.

    Args:
        picture: The run.
        place: Its state directory, for the head line.
        plain: Whether only ASCII can be shown.
        height: Lines that there are; None for as many as it takes.
    """
    bars = _PLAIN_BARS if plain else _BARS
    head = Text.assemble(
        (f"run {picture.run} ", "bold"),
        (picture.state, _STATES.get(picture.state, "")),
        (f"  {_duration(picture.age_s)}  {place}", "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    n_live = sum(picture.sandboxes.values())
    statuses = ", ".join(f"{status} {count:,}" for status, count in sorted(picture.sandboxes.items()))
    facts.add_row("sandboxes", f"{n_live:,} live" + (f" ({statuses})" if statuses else ""))
    facts.add_row(
        "evaluations",
        f"{picture.n_evaluations:,}, {picture.n_valid:,} valid, generation {picture.generation:,}",
    )
    rate = Text(f"{picture.per_s:,.1f}/s  ")
    rate.append(_sparkline(picture.history[-_SPARK_WIDTH:], bars), style="cyan")
    facts.add_row("throughput", rate)
    if picture.best is None:
        best = Text("none yet", style="dim")
    else:
        name, score, generation = picture.best
        best = Text.assemble((f"{score:,.6g}", "bold green"), f"  {name}, generation {generation}")
    facts.add_row("best fitness", best)
    facts.add_row("fuel", f"{_large(picture.fuel)} instructions")
    for operation, count, done in picture.batches:
        full = round(_BAR_WIDTH * min(1.0, done / max(1, count)))
        bar = Text(bars[-1] * full, style="green") + Text(
            ("." if plain else "·") * (_BAR_WIDTH - full), style="dim"
        )
        facts.add_row(operation.replace("_", " "), bar + Text(f"  {done:,} of {count:,}"))
    parts: list[RenderableType] = [head, Text(), facts]
    left = (height or 1000) - _FRAME_LINES - facts.row_count
    n_kinds = min(len(picture.deaths), _MOST_DEATHS)
    if picture.state == "running" and picture.workers:
        # Workers and kinds of death share what is left, and neither goes without.
        n_workers = max(2, left - 2 - 2 - min(n_kinds, max(2, left // 3)))
        parts += [Text(), _workers(picture, n_workers)]
        left -= 2 + min(len(picture.workers), n_workers)
    parts += [Text(), _deaths(picture, bars, max(1, min(_MOST_DEATHS, left - 2)))]
    return Panel(Group(*parts), title="evocell top", title_align="left", padding=(0, 1))


def _workers(picture: Picture, most: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("worker", no_wrap=True, min_width=_NAME_WIDTH, max_width=_NAME_WIDTH)
    table.add_column("status", no_wrap=True)
    for name in ("pid", "memory", "CPU", "sessions", "calls", "done", "restarts"):
        table.add_column(name, justify="right", no_wrap=True)
    shown = picture.workers if len(picture.workers) <= most else picture.workers[: max(1, most - 1)]
    for name, reading in shown:
        memory = reading.get("memory_bytes")
        cpu_s = reading.get("cpu_s")
        table.add_row(
            _end_of(name, _NAME_WIDTH),
            str(reading.get("status", "")),
            str(reading.get("pid") or "-"),
            "-" if memory is None else f"{_large(memory)}B",
            "-" if cpu_s is None else _brief(cpu_s),
            *(_large(reading.get(key, 0)) for key in ("sessions", "calls", "finished", "restarts")),
        )
    if len(shown) < len(picture.workers):
        table.add_row(f"and {len(picture.workers) - len(shown)} more", style="dim")
    return table


def _end_of(name: str, width: int) -> str:
    """Return a name that fits: workers differ in how their names end."""
    return name if len(name) <= width else f"{name[: width // 2 - 1]}…{name[-(width - width // 2) :]}"


def _brief(seconds: float) -> str:
    if seconds < 1000:  # noqa: PLR2004 - as many digits as the column has
        return f"{seconds:,.1f} s"
    return f"{seconds / 3600:,.1f} h"


def _deaths(picture: Picture, bars: str, most_kinds: int) -> RenderableType:
    if not picture.deaths:
        return Text("no deaths", style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("died of")
    table.add_column("", justify="right")
    table.add_column("")
    most = max(picture.deaths.values())
    for kind, count in picture.deaths.most_common(most_kinds):
        bar = bars[-1] * max(1, round(_BAR_WIDTH * count / most))
        table.add_row(Text(kind), f"{count:,}", Text(bar, style="red"))
    return table


def _sparkline(history: Sequence[int], bars: str) -> str:
    most = max(history, default=0)
    if not most:
        return ""
    top = len(bars) - 1
    return "".join(bars[0 if not one else max(1, round(top * one / most))] for one in history)


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004 - seconds of an hour
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _large(value: float) -> str:
    for size, word in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {word}"
    return f"{value:,.0f}"


def _is_utf(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 3600:  # noqa: PLR2004 - from quick to hourly
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 3600")
    return value
