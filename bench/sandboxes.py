"""What sandboxes cost, beside what people use instead, in one run. Nothing is asserted.

A run has rounds, and each round takes a part of every row's readings in a shuffled order, so that whatever else
the machine does meets all rows alike. "Times cheaper" compares with one subprocess that imports numpy and
calls the same function (for rows of memory, the memory of one), within each round; each of a batch counts as one.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from attrs import frozen
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

import evocell
from measures import (
    answers,
    arrays,
    baseline,
    batches,
    clusters,
    cold,
    datasets,
    execution,
    garbage,
    gate,
    guest_speed,
    lifecycle,
    machine,
    many,
    memory,
    observing,
    peers,
    pipe,
    scale,
    small_evaluations,
    stopping,
    versions,
)
from measures.baseline import Baseline
from measures.render import write_chart, write_page
from measures.report import Report
from measures.saved import load, save

LATEST = Path(".benchmarks/latest.json")
"""Where every run is kept, for `just bench-cmp` and `just bench-docs`."""

_ROUNDS = 6
"""The least number of rounds that bounds a median with 95 % confidence."""
_WIDTH = 180
_WARMING = 20
_SCALES = (1, 100, 1_000, 10_000)


@frozen
class Section:
    """A part of the run.

    Attributes:
        name: What it measures; `--only` chooses by it.
        measure: Takes one round's share of its readings.
        once: Whether one round is enough: it is slow, or has few readings that vary little.
    """

    name: str
    measure: Callable[[Report, Baseline], None]
    once: bool = False


def _in_engine(
    measure: Callable[[Report, Baseline, evocell.Engine], None],
) -> Callable[[Report, Baseline], None]:
    """Give a section an engine of its own that has warmed up."""

    def run(report: Report, compared: Baseline) -> None:
        with evocell.Engine() as engine:
            task = evocell.Evaluation("solve", [evocell.Case((3,), expected=9)])
            engine.evaluate(["def solve(n): return n * n"] * _WARMING, task)
            measure(report, compared, engine)

    return run


def _many(sessions: int) -> Callable[[Report, Baseline], None]:
    return lambda report, _: many.measure(report, sessions)


SECTIONS = (
    Section("peers", peers.measure),
    Section("forks and calls in the worker", execution.measure),
    Section("the life of a sandbox", _in_engine(lifecycle.measure)),
    Section("versions of code", _in_engine(versions.measure)),
    Section("batches", _in_engine(batches.measure)),
    Section("small evaluations", small_evaluations.measure),
    Section("arrays", _in_engine(lambda report, _, engine: arrays.measure(report, engine))),
    Section("stopping", _in_engine(lambda report, _, engine: stopping.measure(report, engine))),
    Section("speed of the guest", _in_engine(guest_speed.measure)),
    Section("the pipe", pipe.measure),
    Section("lineage and recording", lambda report, _: observing.measure(report)),
    Section("answers that hold up", lambda report, _: answers.measure(report)),
    Section("the gate and the profiles", lambda report, _: gate.measure(report)),
    Section("the portable profile", lambda report, _: guest_speed.measure_portable(report)),
    Section("memory", memory.measure, once=True),
    Section(
        "1,000 candidates on 20 cases",
        _in_engine(lambda report, _, engine: scale.measure(report, engine)),
        once=True,
    ),
    *(Section(f"{sessions:,} live", _many(sessions), once=True) for sessions in _SCALES),
    Section("a dataset of 50 MB, frozen", lambda report, _: datasets.measure(report), once=True),
    Section("garbage collection", lambda report, _: garbage.measure(report), once=True),
    Section("a cluster", clusters.measure, once=True),
    Section("the first start", lambda report, _: cold.measure(report), once=True),
    Section("the cost of counting fuel", lambda report, _: guest_speed.measure_metering(report), once=True),
)
LEFT_OUT = frozenset({"10,000 live", "a cluster", "the first start", "the cost of counting fuel"})
"""Sections that take minutes, or other packages; `--all` or `--only` brings them in."""


def main() -> None:
    """Run the sections that were asked for and print one table."""
    args = _arguments()
    chosen = [section for section in SECTIONS if _wanted(section, args)]
    if not chosen:
        names = "; ".join(section.name for section in SECTIONS)
        raise SystemExit(f"--only {' '.join(args.only)} matches nothing; there are: {names}")
    report = Report(n_rounds=args.rounds, quick=args.quick)
    with evocell.Engine() as engine:  # builds the image if there is none, and says so
        head = machine.describe(engine.image_id)
    begun = time.perf_counter()
    _run(report, chosen, args.seed)
    head["took"] = f"{time.perf_counter() - begun:.0f} s, {args.rounds} rounds"
    for path in (LATEST, *filter(None, [args.json])):
        save(report, head, path)
    _show(report, head)
    if args.html is not None:
        write_page(load(LATEST), args.html)
    if args.chart is not None:
        write_chart(load(LATEST), args.chart)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="just bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="sections to run, such as 'peer*'"
    )
    parser.add_argument("--all", action="store_true", help=f"also: {', '.join(sorted(LEFT_OUT))}")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the order of sections in a round"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two readings a row and round, to see that all works"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help=f"keep the run in FILE as well as in {LATEST}"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the chart and all rows")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="write the chart alone, as SVG")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {args.rounds}")
    return args


def _wanted(section: Section, args: argparse.Namespace) -> bool:
    if args.only:
        return any(fnmatch(section.name, pattern) for pattern in args.only)
    return args.all or section.name not in LEFT_OUT


def _run(report: Report, chosen: Sequence[Section], seed: int) -> None:
    """Take every round's share of every section's readings, in an order that differs from round to round."""
    order = random.Random(seed)
    plan = []
    for number in range(report.n_rounds):
        due = [section for section in chosen if number == 0 or not section.once]
        if number:
            order.shuffle(due)
        plan.append(due)
    steps = sum(map(len, plan))
    columns = (
        TextColumn("measuring"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=steps)
        for number, due in enumerate(plan):
            report.section = "the baseline"
            compared = baseline.measure(report)
            for section in due:
                bar.update(task, description=section.name)
                if not console.is_terminal:
                    sys.stderr.write(f"measuring: round {number + 1} of {report.n_rounds}: {section.name}\n")
                report.section = section.name
                section.measure(report, compared)
                bar.advance(task)


def _show(report: Report, head: dict[str, str]) -> None:
    console = Console(width=_WIDTH, highlight=False)
    for name, value in head.items():
        console.print(f"{name}: {value}", markup=False)
    console.print(report.table())
    for name, why in report.skipped.items():
        console.print(f"left out: {name}: {why}", markup=False)
    for line in peers.winners_of(report.series):
        console.print(line, markup=False)
    missed = [series for series in report.series.values() if series.met is False]
    for series in missed:
        shown = f"{series.shown(series.median)} {series.unit} against {series.shown_target()} {series.unit}"
        console.print(f"missed: {series.name}: {shown}", markup=False)


if __name__ == "__main__":
    main()
