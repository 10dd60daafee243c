"""Final report of the demo: failures of saboteurs; the best program, its quality and ancestry; cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from evocell.cli.demo_view import blocks_of, percent, python

_BAR_WIDTH = 24
_MOST_ROWS = 9
_FIRST_ROWS = 2
_BASELINES = ("first_fit", "best_fit", "evolved")

T = TypeVar("T")


def show_result(console: Console, result: Mapping[str, Any], *, options: str) -> None:
    """Print the result of a run: saboteurs, program, quality, ancestry, cost, digest.

    Args:
        console: The console.
        result: The result of the experiment.
        options: The command line's options that repeat the run.
    """
    best = result["best"]
    _say(
        console,
        f"\n{result['evaluations']:,} programs evaluated in {result['evolution_wall_s']:.1f} s, "
        f"{result['evaluations_per_s']:.1f} per second.\n",
    )
    _show(console, saboteur_table(result["saboteurs"]))
    _say(console, f"\nThe best program is {best['id']}:\n")
    source = best["source"].rstrip()
    if console.is_terminal:
        console.print(python(source))
    else:
        _say(console, source)
    for table in (
        held_out_table(result["held_out"]),
        lineage_table(result["lineage"]),
        fuel_table(result["excess_against_fuel"], blocks=blocks_of(console)),
    ):
        _say(console, "")
        _show(console, table)
    _say(console, "\n" + "\n".join(verdict(result["held_out"])))
    _say(console, f"\ndigest {result['digest']}\nrun again with {options}: same digest")


def saboteur_table(saboteurs: Sequence[Mapping[str, Any]]) -> Group:
    """List how each hostile program of the first generation failed."""
    table = _table()
    table.add_column("saboteur")
    table.add_column("died of")
    table.add_column("what the engine says", overflow="fold")
    for one in saboteurs:
        as_expected = one["died_of"] == one["expected"]
        died = one["died_of"] or "nothing: it lives"
        table.add_row(
            one["label"], Text(died, style="red" if as_expected else "bold yellow"), Text(one["detail"])
        )
    return _titled("Five saboteurs were among the first generation", table)


def held_out_table(held_out: Mapping[str, Any]) -> Group:
    """Compare the evolved program with the classic heuristics on held-out instances."""
    table = _table()
    table.add_column("instances")
    for name in ("first-fit", "best-fit", "evolved"):
        table.add_column(name, justify="right")
    for family, measured in held_out.items():
        items = measured["instances"][0]["items"]
        values = [measured["excess"][name] for name in _BASELINES]
        best = min(value for value in values if value is not None)
        cells = [Text(percent(value), style="bold green" if value == best else "") for value in values]
        table.add_row(f"{family}, {len(measured['instances'])} x {items:,} items", *cells)
    return _titled("Excess on held-out instances; training saw other Weibull ones only", table)


def lineage_table(lineage: Sequence[Mapping[str, Any]]) -> Group:
    """List the ancestors of the winner, oldest first, along the parent each resembles most."""
    table = _table()
    table.add_column("program")
    table.add_column("made by")
    table.add_column("from")
    table.add_column("excess in training", justify="right")
    table.add_column("nodes", justify="right")
    left_out = max(0, len(lineage) - _MOST_ROWS)
    for place, one in enumerate(lineage):
        if left_out and _FIRST_ROWS <= place < _FIRST_ROWS + left_out:
            if place == _FIRST_ROWS:
                table.add_row(f"... {left_out} more", "", "", "", "", style="dim")
            continue
        made_by = one["operator"]
        made_by = made_by if made_by in ("random", "crossover") else f"mutation: {made_by}"
        parents = " + ".join(one["parents"]) or "-"
        table.add_row(one["id"], made_by, parents, percent(one["excess"]), str(one["nodes"]))
    return _titled("Lineage of the best, along first parents", table)


def fuel_table(front: Sequence[Mapping[str, Any]], *, blocks: str) -> Group:
    """List the programs that are Pareto-optimal in excess and fuel, cheapest first."""
    shown = spread(front, _MOST_ROWS)
    of_all = f"; {len(shown)} of {len(front)}" if len(shown) < len(front) else ""
    table = _table()
    table.add_column("program")
    table.add_column("fuel per item", justify="right")
    table.add_column("excess in training", justify="right")
    table.add_column("")
    most = max((one["excess"] for one in front), default=0.0) or 1.0
    for one in shown:
        bar = blocks[-1] * max(1, round(_BAR_WIDTH * one["excess"] / most))
        table.add_row(
            one["id"], f"{one['fuel_per_item']:,}", percent(one["excess"]), Text(bar, style="green")
        )
    return _titled(f"Excess against fuel: no program is better in both{of_all}", table)


def spread(everyone: Sequence[T], most: int) -> list[T]:
    """Return at most `most` items, evenly spaced, including the first and the last."""
    if len(everyone) <= most:
        return list(everyone)
    return [everyone[round(place * (len(everyone) - 1) / (most - 1))] for place in range(most)]


def verdict(held_out: Mapping[str, Any]) -> list[str]:
    """Compare the evolved program with best-fit, in one sentence per family."""
    sentences = []
    for family, measured in held_out.items():
        evolved, best_fit = measured["excess"]["evolved"], measured["excess"]["best_fit"]
        if evolved is None:
            told = f"it died: {measured['error']}"
        else:
            word = "beats" if evolved < best_fit else "equals" if evolved == best_fit else "does not beat"
            told = f"it {word} best-fit, {percent(evolved)} against {percent(best_fit)}."
        sentences.append(f"On held-out {family} instances {told}")
    return sentences


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0))


def _titled(title: str, table: Table) -> Group:
    """Put a title over a table, which may be narrower than the title."""
    return Group(Text(title, style="bold"), table)


def _show(console: Console, table: Group) -> None:
    """Print a table; without colours, its lines are not padded with blanks."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as printed:
        console.print(table)
    _say(console, "\n".join(line.rstrip() for line in printed.get().splitlines()))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
