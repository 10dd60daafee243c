"""Display of the running demo: live on a terminal, else one line per generation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from evocell.console.safe import SafeConsole

UNKNOWN_WIDTH = 100
"""Width of tables if the output is not a terminal."""

_WIDEST = 110
_EVERY_S = 0.1
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = " .:-=+*#@"
_CHART_ROWS = 5
_CHART_LABEL = 9
_FACTS_WIDTH = 41
_LABEL_WIDTH = 11
_ROWS_WITHOUT_SOURCE = 17
_INTRODUCTION = (
    "Evolving priority(item, bins): which bin takes the next item? Programs are untrusted, each in a "
    "sandbox. Excess: bins used beyond the lower bound; less is better."
)


class Progress(Protocol):
    """The part of the experiment's progress report that the display reads."""

    @property
    def number(self) -> int:
        """The current generation, from 0."""

    @property
    def judged(self) -> int:
        """Number of evaluated programs of that generation."""

    @property
    def population(self) -> int:
        """Programs in each generation."""

    @property
    def complete(self) -> bool:
        """Whether the generation has ended."""

    @property
    def history(self) -> Sequence[float | None]:
        """Best excess after each completed generation."""

    @property
    def mean_excess(self) -> float | None:
        """Mean over the survivors of the last of them."""

    @property
    def best_source(self) -> str | None:
        """Program of the best so far."""

    @property
    def baseline(self) -> float:
        """Excess of best-fit on the same instances."""

    @property
    def deaths(self) -> Mapping[str, int]:
        """Programs that died so far, by kind."""

    @property
    def saboteurs(self) -> Mapping[str, str | None]:
        """Kind of failure of each saboteur, by label; None if not known yet."""

    @property
    def evaluations(self) -> int:
        """Programs evaluated so far."""

    @property
    def wall_s(self) -> float:
        """Seconds since the first evaluation began."""


class View:
    """Displays the evolution while it runs: in place on a terminal, else one line a generation."""

    def __init__(
        self,
        console: Console,
        generations: int,
        live: Live | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console
        self._generations = generations
        self._live = live
        self._clock = clock
        self._latest: Progress | None = None
        self._drawn_s = -_EVERY_S

    def watch(self, progress: Progress) -> None:
        """Show the progress; on a terminal at most ten times a second."""
        self._latest = progress
        if self._live is None:
            if progress.complete:
                _say(self.console, _line(progress, self._generations))
        elif progress.complete or self._clock() - self._drawn_s >= _EVERY_S:
            over = progress.complete and progress.number + 1 == self._generations
            self._draw(self._live, "measuring the best on held-out instances ..." if over else "")
            self._drawn_s = self._clock()

    def close(self) -> None:
        """Draw the final state, without a note on the next step."""
        if self._live is not None:
            self._draw(self._live, "")

    def _draw(self, live: Live, note: str) -> None:
        if self._latest is not None:
            drawn = dashboard(
                self._latest,
                self._generations,
                width=self.console.width,
                height=self.console.height,
                blocks=blocks_of(self.console),
                note=note,
            )
            live.update(drawn, refresh=True)


@contextmanager
def open_view(
    generations: int, *, population: int, seed: int, console: Console | None = None
) -> Iterator[View]:
    """Open the display of a run.

    Args:
        generations: How many there will be.
        population: Programs in each.
        seed: What decides the run.
        console: Where to draw; standard output by default.
    """
    if console is None:
        console = SafeConsole()
        if not console.is_terminal:
            console = SafeConsole(width=UNKNOWN_WIDTH)
    plan = f"{generations} generation{'s' if generations > 1 else ''} of {population} programs, seed {seed}"
    if not console.is_terminal:
        _say(console, f"evocell demo: online bin packing, {plan}")
        _say(console, _INTRODUCTION)
        yield View(console, generations, None)
        return
    waiting = _panel([Text(f"{_INTRODUCTION}\n\n{plan}")], console.width)
    with Live(waiting, console=console, auto_refresh=False) as live:
        view = View(console, generations, live)
        yield view
        view.close()


def percent(share: float | None) -> str:
    """Render a share the way the tables show it: ``2.81 %``."""
    return "-" if share is None else f"{100 * share:.2f} %"


def dashboard(
    progress: Progress,
    generations: int,
    *,
    width: int = UNKNOWN_WIDTH,
    height: int = 40,
    blocks: str = _BLOCKS,
    note: str = "",
) -> Panel:
    """Draw the live display for one moment.

    Args:
        progress: Where the run is.
        generations: How many there will be.
        width: Columns of the terminal.
        height: Its rows; the best program is shown if there is room for it.
        blocks: Characters of growing height for the chart.
        note: The current activity, if it is not the evolution.
    """
    inside = min(width, _WIDEST) - 4
    facts = _facts()
    done = progress.number * progress.population + progress.judged
    rate = f", {progress.evaluations / progress.wall_s:.1f} per second" if progress.wall_s > 0 else ""
    latest = progress.history[-1] if progress.history else None
    facts.add_row("generation", f"{progress.number + 1} of {generations}")
    facts.add_row("", ProgressBar(total=generations * progress.population, completed=done, width=24))
    facts.add_row(
        "best excess",
        Text.assemble((percent(latest), "bold green"), f" (best-fit {percent(progress.baseline)})"),
    )
    facts.add_row("mean excess", f"{percent(progress.mean_excess)}")
    facts.add_row("evaluations", f"{progress.evaluations:,}{rate}")
    room = inside - _FACTS_WIDTH - _CHART_LABEL
    picture = Group(
        Text("best excess (top: best-fit)", style="dim"),
        *chart(progress.history, columns=generations, width=room, ceiling=progress.baseline, blocks=blocks),
    )
    both = Table.grid(padding=(0, 1))
    both.add_column(width=_FACTS_WIDTH - 1)
    both.add_row(facts, picture)
    deaths = _facts()
    deaths.add_row("deaths", Text(deaths_by_kind(progress.deaths), style="red"))
    deaths.add_row("saboteurs", _fates(progress.saboteurs))
    shown: list[RenderableType] = [Text(_INTRODUCTION, style="dim"), Text(), both, deaths]
    if note:
        shown.append(Text(note, style="dim"))
    source = "def " + (progress.best_source or "").partition("def ")[2].rstrip()
    if progress.best_source and _ROWS_WITHOUT_SOURCE + len(source.splitlines()) < height:
        shown += [Text(), python(source)]
    return _panel(shown, width)


def chart(
    history: Sequence[float | None],
    *,
    columns: int,
    width: int,
    ceiling: float | None = None,
    rows: int = _CHART_ROWS,
    blocks: str = _BLOCKS,
) -> list[Text]:
    """Draw numbers as columns scaled between their extremes, or from the lowest to a ceiling above them all.

    Args:
        history: One number per column; None leaves the column empty.
        columns: How many there will be; if they do not fit, some are left out.
        width: Characters there are for all of them.
        ceiling: Number at the top, if none is above it.
        rows: Lines of text to use.
        blocks: Characters of growing height.
    """
    known = [value for value in history if value is not None]
    if not known:
        return []
    wide = 2 if 2 * columns <= width else 1
    if columns > width:
        places = [round(place * (columns - 1) / (width - 1)) for place in range(width)]
        history = [history[place] for place in places if place < len(history)]
    low, high = min(known), max(known if ceiling is None else [*known, ceiling])
    steps = len(blocks) - 1
    heights = [
        0
        if value is None
        else 1 + round((rows * steps - 1) * ((value - low) / (high - low) if high > low else 0.0))
        for value in history
    ]
    lines = []
    for row in reversed(range(rows)):
        label = percent(high) if row == rows - 1 and high > low else percent(low) if row == 0 else ""
        cells = "".join(blocks[min(steps, max(0, height - row * steps))] * wide for height in heights)
        lines.append(Text.assemble((f"{label:>8} ", "dim"), (cells, "green"), no_wrap=True))
    return lines


def python(source: str) -> Syntax:
    """Render Python source in colour, without padding it to the terminal's width."""
    return Syntax(source, "python", background_color="default", word_wrap=True)


def blocks_of(console: Console) -> str:
    """Return the characters that the console can draw bars with, from an empty one to the fullest."""
    return _BLOCKS if console.encoding.lower().startswith("utf") else _ASCII_BLOCKS


def deaths_by_kind(deaths: Mapping[str, int]) -> str:
    """Render the dead: ``crashed 1, fuel 2``."""
    return ", ".join(f"{kind} {count}" for kind, count in deaths.items()) or "none"


def _facts() -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", width=_LABEL_WIDTH)
    facts.add_column()
    return facts


def _fates(saboteurs: Mapping[str, str | None]) -> Columns:
    """Render the outcome of each saboteur."""
    return Columns(
        [
            Text.assemble((f"{label}: ", "dim"), (kind or "...", "red" if kind else "dim"))
            for label, kind in saboteurs.items()
        ],
        padding=(0, 2),
    )


def _panel(shown: Sequence[RenderableType], width: int) -> Panel:
    return Panel(Group(*shown), title="evocell demo: online bin packing", width=min(width, _WIDEST))


def _line(progress: Progress, generations: int) -> str:
    rate = progress.evaluations / progress.wall_s if progress.wall_s > 0 else 0.0
    best = progress.history[-1] if progress.history else None
    return (
        f"generation {progress.number + 1:>{len(str(generations))}}/{generations}  "
        f"best excess {percent(best)}  mean {percent(progress.mean_excess)}  "
        f"{rate:.1f} evaluations/s  deaths: {deaths_by_kind(progress.deaths)}"
    )


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
