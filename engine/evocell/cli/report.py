"""`evocell report`: a self-contained HTML page of a run, which needs no network."""

from __future__ import annotations

import argparse
from pathlib import Path

from evocell.cli.screen import say
from evocell.cli.store import add_choice, store_path
from evocell.errors import ConfigurationError
from evocell.page.html import render
from evocell.page.search import read_run
from evocell.store.inspection import store_reader

__all__ = ["add_report_parser", "write_report"]


def add_report_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `report` to the parser."""
    report = commands.add_parser(
        "report",
        help="write a page that shows a run: fitness, lineage, deaths, cost",
        description=(
            "Writes one HTML page about a run, with everything in it: fitness by generation, the lineage of "
            "the best with the source of each ancestor, deaths by kind, fuel against fitness, and cost. It "
            "needs no network."
        ),
    )
    report.add_argument(
        "state_dir",
        type=Path,
        nargs="?",
        metavar="RUN",
        help="the state directory of the run (default: the one that is configured)",
    )
    add_choice(report)
    report.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        default=Path("report.html"),
        help="where to (default: %(default)s)",
    )
    report.add_argument("--title", default="", help="what to call it")
    way = report.add_mutually_exclusive_group()
    way.add_argument(
        "--minimize", dest="direction", action="store_const", const="minimize", help="less fitness is better"
    )
    way.add_argument(
        "--maximize", dest="direction", action="store_const", const="maximize", help="more fitness is better"
    )
    report.set_defaults(run=run_report)


def run_report(args: argparse.Namespace) -> int:
    """Write the page."""
    write_report(
        store_path(args.state_dir),
        args.out,
        run=args.number,
        all_runs=args.all_runs,
        population=args.population,
        direction=args.direction,
        title=args.title,
    )
    say(f"report written to {args.out}")
    return 0


def write_report(
    place: Path,
    out: Path,
    *,
    run: int | None = None,
    all_runs: bool = False,
    population: str | None = None,
    direction: str | None = None,
    title: str = "",
) -> None:
    """Write a page about a run.

    Args:
        place: The state directory, or its database.
        out: The file.
        run: The run; None for the search of the last one with evaluations.
        all_runs: Whether all runs are shown together.
        population: Only members of this one, in all runs.
        direction: ``"maximize"`` or ``"minimize"``; None for the evaluation's.
        title: The title.

    Raises:
        ConfigurationError: There is no such run, or the page cannot be written.
        StoreError: The store cannot be read.
    """
    with store_reader(place) as connection:
        data = read_run(
            connection, run=run, all_runs=all_runs, population=population, direction=direction, title=title
        )
        page = render(data)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror or error}", "out") from error
