"""How a person sees the demo: a live display while it evolves, then the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

NARROWEST = 100
"""Columns given to tables where the output is not a terminal, whose width would be a guess."""

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = " .:-=+*#@"
_CHART_ROWS = 5
_BAR_WIDTH = 24
_BASELINES = ("first_fit", "best_fit", "evolved")


class Progress(Protocol):
    """What the display reads of the experiment's progress reports."""

    @property
    def generation(self) -> Any:
        """The state after the latest generation."""

    @property
    def history(self) -> Sequence[float | None]:
        """Best excess after each generation so far."""

    @property
    def baseline(self) -> float:
        """Excess of best-fit on the same instances."""

    @property
    def deaths(self) -> Mapping[str, int]:
        """Programs that died so far, by kind."""

    @property
    def evaluations(self) -> int:
        """Programs evaluated so far."""

    @property
    def wall_s(self) -> float:
        """Seconds since the first evaluation began."""


class View:
    """Shows the evolution as it goes: in place on a terminal, else one line a generation."""

    def __init__(self, console: Console, generations: int, live: Live | None) -> None:
        self.console = console
        self._generations = generations
        self._live = live

    def watch(self, progress: Progress) -> None:
        """Show the state after a generation."""
        if self._live is None:
            self.console.print(
                _line(progress, self._generations), markup=False, highlight=False, soft_wrap=True
            )
        else:
            self._live.update(
                dashboard(progress, self._generations, blocks=_blocks(self.console)), refresh=True
            )


@contextmanager
def open_view(generations: int, console: Console | None = None) -> Iterator[View]:
    """Open the display of a run.

    Args:
        generations: How many there will be.
        console: Where to draw; standard output by default.
    """
    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=NARROWEST)
    if not console.is_terminal:
        yield View(console, generations, None)
        return
    waiting = Panel("evaluating the first generation ...", title="evocell demo: online bin packing")
    with Live(waiting, console=console, auto_refresh=False) as live:
        yield View(console, generations, live)


def percent(share: float | None) -> str:
    """Render a share the way the tables show it: ``2.81 %``."""
    return "-" if share is None else f"{100 * share:.2f} %"


def dashboard(progress: Progress, generations: int, *, blocks: str = _BLOCKS) -> Panel:
    """Draw the live display for one moment.

    Args:
        progress: Where the run is.
        generations: How many there will be.
        blocks: Characters of growing height for the chart.
    """
    now = progress.generation
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    facts.add_row("generation", f"{now.number + 1} of {generations}")
    facts.add_row("", ProgressBar(total=generations, completed=now.number + 1, width=_BAR_WIDTH))
    facts.add_row("best excess", Text(percent(progress.history[-1]), style="bold green"))
    facts.add_row("of best-fit", percent(progress.baseline))
    facts.add_row("mean excess", percent(now.mean_excess))
    facts.add_row("evaluations", f"{progress.evaluations:,}")
    facts.add_row(
        "per second", f"{progress.evaluations / progress.wall_s:.1f}" if progress.wall_s > 0 else "-"
    )
    facts.add_row("deaths", Text(_deaths(progress.deaths), style="red"))
    picture = Group(Text("best excess by generation", style="dim"), *chart(progress.history, blocks=blocks))
    both = Table.grid(padding=(0, 4))
    both.add_row(facts, picture)
    return Panel(both, title="evocell demo: online bin packing", expand=False)


def chart(history: Sequence[float | None], *, rows: int = _CHART_ROWS, blocks: str = _BLOCKS) -> list[Text]:
    """Draw numbers as columns, two characters each, scaled between their extremes.

    Args:
        history: One number per column; None leaves the column empty.
        rows: Lines of text to use.
        blocks: Characters of growing height.
    """
    known = [value for value in history if value is not None]
    if not known:
        return []
    low, high = min(known), max(known)
    steps = len(blocks) - 1
    heights = [
        0
        if value is None
        else 1 + round((rows * steps - 1) * ((value - low) / (high - low) if high > low else 0.0))
        for value in history
    ]
    lines = []
    for row in reversed(range(rows)):
        label = percent(high) if row == rows - 1 else percent(low) if row == 0 else ""
        cells = "".join(blocks[min(steps, max(0, height - row * steps))] * 2 for height in heights)
        lines.append(Text.assemble((f"{label:>8} ", "dim"), (cells, "green")))
    return lines


def show_result(console: Console, result: Mapping[str, Any], *, options: str) -> None:
    """Print what came of a run: program, quality, ancestry, cost, saboteurs, digest.

    Args:
        console: Where to print.
        result: What the experiment returned.
        options: The command line's options that repeat the run.
    """
    best = result["best"]
    console.print()
    console.print(
        f"{result['evaluations']:,} programs evaluated in {result['evolution_wall_s']:.1f} s "
        f"({result['evaluations_per_s']:.1f} per second). The best, {best['id']}:",
        highlight=False,
    )
    console.print()
    source = best["source"].rstrip()
    if console.is_terminal:
        console.print(Syntax(source, "python", background_color="default", word_wrap=True))
    else:
        console.print(source, markup=False, highlight=False, soft_wrap=True)
    for part in (
        held_out_table(result["held_out"]),
        lineage_table(result["lineage"]),
        fuel_table(result["excess_against_fuel"], blocks=_blocks(console)),
        saboteur_table(result["saboteurs"]),
    ):
        console.print()
        console.print(part)
    console.print()
    console.print(f"digest {result['digest']}", highlight=False, soft_wrap=True)
    console.print(f"run again with {options}: same digest", highlight=False, soft_wrap=True)


def held_out_table(held_out: Mapping[str, Any]) -> Table:
    """Compare the evolved program with the classic ones on instances it was not chosen by."""
    table = _table("Bins beyond the lower bound, held-out instances")
    table.add_column("instances")
    for name in ("first-fit", "best-fit", "evolved"):
        table.add_column(name, justify="right")
    for family, measured in held_out.items():
        items = measured["instances"][0]["items"]
        values = [measured["excess"][name] for name in _BASELINES]
        best = min(value for value in values if value is not None)
        cells = [Text(percent(value), style="bold green" if value == best else "") for value in values]
        table.add_row(f"{family}, {len(measured['instances'])} x {items:,} items", *cells)
    return table


def lineage_table(lineage: Sequence[Mapping[str, Any]]) -> Table:
    """List the ancestors of the winner, oldest first, along the parent each resembles most."""
    table = _table("Lineage of the best")
    table.add_column("program")
    table.add_column("made by")
    table.add_column("from")
    table.add_column("excess (training)", justify="right")
    table.add_column("nodes", justify="right")
    for one in lineage:
        parents = " + ".join(one["parents"]) or "-"
        table.add_row(one["id"], one["operator"], parents, percent(one["excess"]), str(one["nodes"]))
    return table


def fuel_table(front: Sequence[Mapping[str, Any]], *, blocks: str = _BLOCKS) -> Table:
    """List the programs that nobody beats in both excess and fuel, cheapest first."""
    table = _table("Excess against fuel: none beats these in both")
    table.add_column("program")
    table.add_column("fuel per item", justify="right")
    table.add_column("excess (training)", justify="right")
    table.add_column("")
    most = max((one["excess"] for one in front), default=0.0) or 1.0
    for one in front:
        bar = blocks[-1] * max(1, round(_BAR_WIDTH * one["excess"] / most))
        table.add_row(
            one["id"], f"{one['fuel_per_item']:,}", percent(one["excess"]), Text(bar, style="green")
        )
    return table


def saboteur_table(saboteurs: Sequence[Mapping[str, Any]]) -> Table:
    """Tell how each hostile program of the first generation died."""
    table = _table("Saboteurs in the first generation")
    table.add_column("saboteur")
    table.add_column("died of")
    table.add_column("what the engine says", overflow="fold")
    for one in saboteurs:
        as_expected = one["died_of"] == one["expected"]
        died = one["died_of"] or "nothing: it lives"
        table.add_row(
            one["label"], Text(died, style="red" if as_expected else "bold yellow"), Text(one["detail"])
        )
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))


def _line(progress: Progress, generations: int) -> str:
    now = progress.generation
    rate = progress.evaluations / progress.wall_s if progress.wall_s > 0 else 0.0
    return (
        f"generation {now.number + 1:>{len(str(generations))}}/{generations}  "
        f"best {percent(progress.history[-1])}  mean {percent(now.mean_excess)}  "
        f"{rate:.1f} evaluations/s  deaths: {_deaths(progress.deaths)}"
    )


def _deaths(deaths: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in deaths.items()) or "none"


def _blocks(console: Console) -> str:
    return _BLOCKS if console.encoding.lower().startswith("utf") else _ASCII_BLOCKS
