"""`evocell top`: a live view of a running engine on the terminal."""

from __future__ import annotations

import argparse
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import Factory, define, field
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from evocell.cli.store import add_choice, store_path
from evocell.console.safe import SafeConsole
from evocell.errors import ConfigurationError
from evocell.store.encoding import unpack
from evocell.store.inspection import store_reader
from evocell.store.runs import chosen_runs, is_alive, run_outcome

__all__ = ["Picture", "RunWatcher", "add_top_parser", "draw"]

_BARS = " ▁▂▃▄▅▆▇█"
_PLAIN_BARS = " .:-=+*#@"
_BAR_WIDTH = 24
_MOST_DEATHS = 8
_NAME_WIDTH = 10
_SPARK_WIDTH = 40
_FRAME_LINES = 4
"""Lines of the frame, the header and the separator."""
_STATES = {"running": "bold green", "closed": "dim", "killed": "bold red"}

WINDOW_S = 10.0
"""Window of the throughput, in seconds."""
HISTORY = 60
"""Seconds of throughput history."""
_LOOKS = 5
"""Number of updates after which the runs of the search are looked up again."""
_NEW = """
    SELECT e.evaluation, e.valid, e.reason, e.fitness_score, e.evaluated_at, e.fuel_used, e.generation,
        e.sandbox_id, b.direction
    FROM evaluations e LEFT JOIN batches b USING (batch)
        LEFT JOIN sandboxes s ON s.sandbox = e.sandbox
    WHERE e.run = :run AND e.evaluation > :seen AND (:population IS NULL OR s.population = :population)
    ORDER BY e.evaluation LIMIT 20000
"""


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
    """Show an engine until Ctrl-C; without a terminal, once."""
    path = store_path(args.state_dir)
    console = SafeConsole()
    with store_reader(path) as connection:
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
        place: Its state directory, for the header.
        plain: Whether only ASCII can be shown.
        height: Available lines; None for no limit.
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
    facts.add_row("fuel", f"{_large(picture.fuel)}")
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
        # Workers and kinds of failure share the remaining lines; each gets at least one.
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
    """Return the end of a name that fits, since workers' names differ at the end."""
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


@define
class Picture:
    """The state of a run at one moment.

    Attributes:
        run: Its number.
        state: ``"running"``, ``"closed"`` or ``"killed"``.
        age_s: Seconds since it began; for an ended run, its duration.
        sandboxes: Live sandboxes by status.
        workers: Name and latest reading of each worker.
        n_evaluations: Evaluations so far.
        n_valid: Valid ones.
        per_s: Recent evaluations per second.
        history: The same for each of the last seconds, oldest first.
        deaths: Invalid ones by kind.
        best: Id, score and generation of the fittest; None if no individual is valid.
        generation: The latest generation.
        fuel: Fuel used so far.
        batches: Operation, size and number of results of the running batches.
    """

    run: int
    state: str
    age_s: float = 0.0
    sandboxes: dict[str, int] = field(factory=dict)
    workers: list[tuple[str, dict[str, Any]]] = field(factory=list)
    n_evaluations: int = 0
    n_valid: int = 0
    per_s: float = 0.0
    history: list[int] = field(factory=list)
    deaths: Counter[str] = field(factory=Counter)
    best: tuple[str, float, int] | None = None
    generation: int = 0
    fuel: int = 0
    batches: list[tuple[str, int, int]] = Factory(list)


class RunWatcher:
    """Follows a run; each update reads new rows only.

    Args:
        connection: Opened with `open_reader`.
        path: The database.
        run: The run; None for the running one, else the latest one with evaluations, and all runs of the
            same search.
        all_runs: Whether the evaluations of all runs count.
        population: Only members of this one count, in all runs.

    Raises:
        ConfigurationError: There is no such run.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        run: int | None = None,
        *,
        all_runs: bool = False,
        population: str | None = None,
    ) -> None:
        self._connection = connection
        self._path = path
        self._follow_latest = run is None
        self._chosen = {"run": run, "all_runs": all_runs, "population": population}
        self._begin(self._latest() if run is None else run)

    def look(self, now: float | None = None) -> Picture:
        """Return the current state of the run; switches to a newer run unless one was named."""
        now = time.time() if now is None else now
        if self._follow_latest and (latest := self._latest()) != self._picture.run:
            self._begin(latest)
        picture = self._picture
        self._read_run(picture, now)
        for run in self._runs():
            while self._read_evaluations(picture, run):
                pass
        self._rate(picture, now)
        return picture

    def _latest(self) -> int:
        found = self._connection.execute("SELECT max(run) FROM runs").fetchone()[0]
        if found is None:
            raise ConfigurationError("no engine has used this state directory yet", "state_dir")
        if not is_alive(self._path, found):
            # `evocell replay`, for example, leaves a run without evaluations.
            evaluated = self._connection.execute("SELECT max(run) FROM evaluations").fetchone()[0]
            found = found if evaluated is None else evaluated
        return int(found)

    def _begin(self, run: int) -> None:
        if self._connection.execute("SELECT 1 FROM runs WHERE run = ?", (run,)).fetchone() is None:
            raise ConfigurationError(f"there is no run {run}", "run")
        self._picture = Picture(run, "running")
        self._seen: dict[int, int] = {}
        self._known_runs = 0
        self._looks = 0
        self._counted: list[int] = []
        self._recent: deque[float] = deque(maxlen=200_000)

    def _read_run(self, picture: Picture, now: float) -> None:
        ask = self._connection.execute
        started = ask("SELECT started_at FROM runs WHERE run = ?", (picture.run,)).fetchone()[0]
        outcome, ended = run_outcome(self._connection, self._path, picture.run)
        picture.state = "running" if outcome == "open" else outcome
        picture.age_s = (now if ended is None else ended) - started
        readings = {
            name: unpack(reading)
            for name, reading in ask(
                "SELECT name, reading FROM readings WHERE run = ? ORDER BY name", (picture.run,)
            )
        }
        engine = readings.pop("engine", {})
        picture.workers = [(name, one) for name, one in readings.items() if isinstance(one, dict)]
        live = engine.get("sandboxes", {}) if isinstance(engine, dict) else {}
        picture.sandboxes = live if picture.state == "running" else {}
        picture.batches = ask(
            "SELECT operation, count, (SELECT count(*) FROM evaluations e WHERE e.batch = b.batch)"
            " FROM batches b WHERE run = ? AND outcome = 'running' ORDER BY batch DESC LIMIT 4",
            (picture.run,),
        ).fetchall()

    def _runs(self) -> list[int]:
        """Return the runs whose evaluations count; looked up again when a run is added."""
        n_runs = self._connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        self._looks += 1
        if n_runs != self._known_runs or (n_runs > 1 and self._looks % _LOOKS == 0):
            self._known_runs = n_runs
            found = chosen_runs(self._connection, self._path, self._picture.run, **self._chosen)  # type: ignore[arg-type]  # as given
            self._counted = sorted({*self._counted, *found})
        return self._counted

    def _read_evaluations(self, picture: Picture, run: int) -> int:
        wanted = {"run": run, "seen": self._seen.get(run, 0), "population": self._chosen["population"]}
        rows = self._connection.execute(_NEW, wanted).fetchall()
        for number, valid, reason, score, at, fuel, generation, name, direction in rows:
            self._seen[run] = number
            self._recent.append(at)
            picture.n_evaluations += 1
            picture.fuel += fuel
            picture.generation = max(picture.generation, generation)
            if not valid:
                picture.deaths[reason or "unknown"] += 1
                continue
            picture.n_valid += 1
            better = picture.best is None or (
                score < picture.best[1] if direction == "minimize" else score > picture.best[1]
            )
            if better:
                picture.best = name, score, generation
        return len(rows)

    def _rate(self, picture: Picture, now: float) -> None:
        while self._recent and self._recent[0] < now - HISTORY:
            self._recent.popleft()
        history = [0] * HISTORY
        for at in self._recent:
            history[min(HISTORY - 1, max(0, int(at - (now - HISTORY))))] += 1
        picture.history = history
        window = min(WINDOW_S, max(1.0, picture.age_s))
        picture.per_s = sum(1 for at in self._recent if at >= now - window) / window
