"""What moved between two runs of the benchmarks, and what is only noise.

A row has moved if the intervals of its medians over the rounds do not overlap and it changed by more than
three in a hundred. Where a row has a baseline its ratio to it is compared, since a machine that is faster today
is faster for both.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from attrs import frozen
from rich import box
from rich.console import Console
from rich.table import Table

from evocell.models.measurement import Interval
from measures.report import Series, three_figures
from measures.saved import SavedRun, load

REFERENCE = Path("docs/benchmarks.json")
LATEST = Path(".benchmarks/latest.json")
NOTICEABLE = 0.03
_WIDTH = 150
_ENOUGH_ROUNDS = 6


@frozen
class Move:
    """What became of one row.

    Attributes:
        name: The row.
        factor: How many times better it is now; below 1, worse.
        by_ratio: Whether ratios to the baseline were compared.
        moved: Whether noise cannot explain it; None where there are too few rounds to tell.
    """

    name: str
    factor: float
    by_ratio: bool
    moved: bool | None


def compare(before: SavedRun, after: SavedRun) -> list[Move]:
    """Compare the rows that two runs have in common, the largest change first."""
    moves = [_move(before.series[name], after.series[name]) for name in after.series if name in before.series]
    return sorted(moves, key=lambda move: -abs(move.factor - 1))


def _move(before: Series, after: Series) -> Move:
    by_ratio = bool(before.ratios and after.ratios)
    old, new = (before.ratios, after.ratios) if by_ratio else (before.medians, after.medians)
    more_is_better = by_ratio or after.at_least
    change = statistics.median(new) / statistics.median(old) if statistics.median(old) else 1.0
    factor = change if more_is_better else 1 / change if change else float("inf")
    if min(len(old), len(new)) < _ENOUGH_ROUNDS:
        return Move(after.name, factor, by_ratio, None)
    one, other = Interval.of(old), Interval.of(new)
    apart = one.high < other.low or other.high < one.low
    return Move(after.name, factor, by_ratio, apart and abs(change - 1) > NOTICEABLE)


def main() -> None:
    """Print what moved, then what is noise, then what only one of the runs has."""
    parser = argparse.ArgumentParser(
        prog="just bench-cmp", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "before", type=Path, nargs="?", default=REFERENCE, help="a saved run (default: %(default)s)"
    )
    parser.add_argument(
        "after", type=Path, nargs="?", default=LATEST, help="a later one (default: %(default)s)"
    )
    args = parser.parse_args()
    before, after = load(args.before), load(args.after)
    console = Console(width=_WIDTH, highlight=False)
    for path, run in ((args.before, before), (args.after, after)):
        about = ", ".join(run.machine[key] for key in ("date", "processor", "evocell") if key in run.machine)
        console.print(f"{path}: {about}", markup=False)
    if before.machine.get("processor") != after.machine.get("processor"):
        console.print(
            "The machines differ: only ratios to the baseline can be compared.", style="bold yellow"
        )
    moves = compare(before, after)
    moved = [move for move in moves if move.moved]
    console.print(_table(moved) if moved else "Nothing moved beyond noise.")
    unclear = [move for move in moves if move.moved is None and abs(move.factor - 1) > NOTICEABLE]
    if unclear:
        console.print(f"Read in fewer than {_ENOUGH_ROUNDS} rounds, so that it cannot be told from noise:")
        console.print(_table(unclear))
    n_noise = sum(move.moved is False for move in moves)
    console.print(f"{n_noise} of {len(moves)} rows did not move beyond noise.")
    for names, where in (
        (before.series.keys() - after.series.keys(), args.before),
        (after.series.keys() - before.series.keys(), args.after),
    ):
        if names:
            console.print(f"only in {where}: {'; '.join(sorted(names))}", markup=False)


def _table(moves: list[Move]) -> Table:
    table = Table(box=box.MARKDOWN)
    table.add_column("row", no_wrap=True)
    table.add_column("now", justify="right")
    table.add_column("compared by")
    for move in moves:
        better = move.factor >= 1
        said = (
            f"{three_figures(move.factor if better else 1 / move.factor)}× {'better' if better else 'worse'}"
        )
        table.add_row(move.name, said, "ratio to the baseline" if move.by_ratio else "its own reading")
    return table


if __name__ == "__main__":
    main()
