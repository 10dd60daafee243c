"""Matplotlib plots of the figures of `evocell report`, for notebooks and papers.

>>> from evocell import plot  # doctest: +SKIP
>>> plot.fitness(engine)  # doctest: +SKIP
>>> plot.cost("runs/packing", population="packing").figure.savefig("cost.png")  # doctest: +SKIP

Each function takes an engine, or the state directory of a running or ended one, and draws the search that
`evocell report` would show, selected by the same options. It draws into ``ax``, or into a new figure, and
returns the axes, as pandas and scikit-learn do. ``pip install evocell[plot]`` installs matplotlib.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evocell.api.async_engine import AsyncEngine
from evocell.api.engine import Engine
from evocell.errors import ConfigurationError
from evocell.page.html import Page, make_page
from evocell.page.search import RunData, read_run
from evocell.store.inspection import store_reader

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Page", "cost", "deaths", "fitness", "lineage", "pareto_front", "report"]

Place: TypeAlias = "Engine | AsyncEngine | str | Path"
"""An engine, or a state directory."""

_GOOD = "#1a7f37"
_ACCENT = "#3b6fd4"
_SPREAD = 100.0
"""Ratio of the largest to the smallest positive value from which an axis is logarithmic."""


def fitness(
    place: Place,
    *,
    ax: Axes | None = None,
    run: int | None = None,
    all_runs: bool = False,
    population: str | None = None,
    direction: str | None = None,
) -> Axes:
    """Plot fitness by generation: best so far, median, the middle half, and all between the extremes.

    Args:
        place: An engine, or its state directory.
        ax: Where to draw; None for a new figure.
        run: One run; None for the search of the latest.
        all_runs: Whether all runs are taken together.
        population: Only members of this one.
        direction: ``"maximize"`` or ``"minimize"``; None for what the evaluation said.

    Raises:
        ConfigurationError: matplotlib is not installed, or there is nothing to draw.
        StoreError: The store cannot be read.
    """
    axes = _axes(ax)
    data = _read(place, run=run, all_runs=all_runs, population=population, direction=direction)
    columns = [one for one in data["columns"] if one["quartiles"]]
    at = [one["label"] for one in columns]
    lows, highs = [one["low"] for one in columns], [one["high"] for one in columns]
    axes.fill_between(at, lows, highs, color=_ACCENT, alpha=0.12, linewidth=0, label="all")
    quarters = [one["quartiles"] for one in columns]
    axes.fill_between(
        at,
        [one[0] for one in quarters],
        [one[2] for one in quarters],
        color=_ACCENT,
        alpha=0.25,
        linewidth=0,
        label="middle half",
    )
    axes.plot(at, [one[1] for one in quarters], color=_ACCENT, label="median")
    axes.plot(at, [one["best"] for one in columns], color=_GOOD, linewidth=2, label="best so far")
    axes.set(xlabel=data["column_name"], ylabel="fitness", title=data["title"])
    _scale(axes.set_yscale, [*lows, *highs])
    axes.legend()
    return axes


def cost(
    place: Place,
    *,
    ax: Axes | None = None,
    run: int | None = None,
    all_runs: bool = False,
    population: str | None = None,
    direction: str | None = None,
) -> Axes:
    """Plot fuel against fitness, a point for each valid individual, with the Pareto front of the two.

    Args:
        place: An engine, or its state directory.
        ax: Where to draw; None for a new figure.
        run: One run; None for the search of the latest.
        all_runs: Whether all runs are taken together.
        population: Only members of this one.
        direction: ``"maximize"`` or ``"minimize"``; None for what the evaluation said.

    Raises:
        ConfigurationError: matplotlib is not installed, or there is nothing to draw.
        StoreError: The store cannot be read.
    """
    axes = _axes(ax)
    data = _read(place, run=run, all_runs=all_runs, population=population, direction=direction)
    given = zip(data["points"]["fuel"], data["points"]["score"], strict=True)
    points = [(fuel, score) for fuel, score in given if score is not None]
    if points:
        fuel, scores = zip(*points, strict=True)
        axes.scatter(fuel, scores, s=8, color=_ACCENT, alpha=0.4, label="individuals")
        front = pareto_front(points, minimize=data["direction"] == "minimize")
        ends, tops = zip(*front, strict=True)
        axes.step(ends, tops, where="post", color=_GOOD, marker="o", markersize=4, label="Pareto front")
        _scale(axes.set_xscale, fuel)
        axes.legend()
    axes.set(xlabel="fuel", ylabel="fitness", title=data["title"])
    return axes


def deaths(
    place: Place,
    *,
    ax: Axes | None = None,
    run: int | None = None,
    all_runs: bool = False,
    population: str | None = None,
) -> Axes:
    """Plot the number of invalid individuals by reason.

    Args:
        place: An engine, or its state directory.
        ax: Where to draw; None for a new figure.
        run: One run; None for the search of the latest.
        all_runs: Whether all runs are taken together.
        population: Only members of this one.

    Raises:
        ConfigurationError: matplotlib is not installed, or there is nothing to draw.
        StoreError: The store cannot be read.
    """
    axes = _axes(ax)
    data = _read(place, run=run, all_runs=all_runs, population=population, direction=None)
    kinds = list(reversed(data["deaths"]))
    bars = axes.barh([kind for kind, _ in kinds], [count for _, count in kinds], color="#c0392b")
    axes.bar_label(bars, padding=3)
    n_dead = sum(count for _, count in kinds)
    axes.set(
        xlabel="individuals", title=f"{data['title']}: {n_dead:,} of {data['n_individuals']:,} are invalid"
    )
    return axes


def lineage(
    place: Place,
    *,
    ax: Axes | None = None,
    run: int | None = None,
    all_runs: bool = False,
    population: str | None = None,
    direction: str | None = None,
) -> Axes:
    """Plot the ancestors of the best individual by generation and fitness; its first parents are marked.

    Args:
        place: An engine, or its state directory.
        ax: Where to draw; None for a new figure.
        run: One run; None for the search of the latest.
        all_runs: Whether all runs are taken together.
        population: Only members of this one.
        direction: ``"maximize"`` or ``"minimize"``; None for what the evaluation said.

    Raises:
        ConfigurationError: matplotlib is not installed, or there is nothing to draw.
        StoreError: The store cannot be read.
    """
    axes = _axes(ax)
    data = _read(place, run=run, all_runs=all_runs, population=population, direction=direction)
    members = {
        one["number"]: one
        for one in data["tree"]
        if one["in_tree"] and one["valid"] and one["score"] is not None
    }
    for one in members.values():
        for parent in one["parents"]:
            other = members.get(parent["number"])
            if other is not None:
                on_line = one["in_line"] and other["in_line"]
                axes.plot(
                    [other["generation"], one["generation"]],
                    [other["score"], one["score"]],
                    color=_GOOD if on_line else "#999999",
                    linewidth=2 if on_line else 0.6,
                    zorder=2 if on_line else 1,
                )
    shown = list(members.values())
    axes.scatter(
        [one["generation"] for one in shown],
        [one["score"] for one in shown],
        s=18,
        zorder=3,
        c=[_GOOD if one["in_line"] else _ACCENT for one in shown],
    )
    axes.set(
        xlabel="generation", ylabel="fitness", title=f"{data['title']}: {data['n_family']:,} led to the best"
    )
    return axes


def report(
    place: Place,
    *,
    run: int | None = None,
    all_runs: bool = False,
    population: str | None = None,
    direction: str | None = None,
    title: str = "",
) -> Page:
    """Make the page of `evocell report`, to be shown in a cell of a notebook or written to a file.

    Args:
        place: An engine, or its state directory.
        run: One run; None for the search of the latest.
        all_runs: Whether all runs are taken together.
        population: Only members of this one.
        direction: ``"maximize"`` or ``"minimize"``; None for what the evaluation said.
        title: The title.

    Raises:
        ConfigurationError: Nothing has been evaluated there.
        StoreError: The store cannot be read.
    """
    chosen: dict[str, Any] = {"run": run, "all_runs": all_runs, "population": population}
    with _opened(place) as connection:
        return make_page(read_run(connection, **chosen, direction=direction, title=title))


def pareto_front(points: Iterable[tuple[float, float]], *, minimize: bool) -> list[tuple[float, float]]:
    """Return the points that no other dominates in fuel and fitness, by increasing fuel.

    Args:
        points: Fuel and fitness of each.
        minimize: Whether lower fitness is better.
    """
    front: list[tuple[float, float]] = []
    for fuel, score in sorted(points, key=lambda one: (one[0], one[1] if minimize else -one[1])):
        if not front or (score < front[-1][1] if minimize else score > front[-1][1]):
            front.append((fuel, score))
    return front


@contextmanager
def _opened(place: object) -> Iterator[sqlite3.Connection]:
    path = place.store_path if isinstance(place, Engine | AsyncEngine) else place
    if not isinstance(path, str | Path):
        raise ConfigurationError(
            f"a plot is of an engine or of a state directory, not of {type(place).__name__}", "place"
        )
    if isinstance(place, Engine):
        place.fitness.history("")  # waits until all is written
    with store_reader(Path(path)) as connection:
        yield connection


def _read(place: object, **chosen: Any) -> RunData:
    with _opened(place) as connection:
        return read_run(connection, **chosen)


def _axes(given: Axes | None) -> Axes:
    if given is not None:
        return given
    try:
        pyplot = import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ConfigurationError(
            "plots need matplotlib, which is not installed here; pip install evocell[plot]", "matplotlib"
        ) from error
    axes: Axes = pyplot.subplots(layout="constrained")[1]
    return axes


def _scale(choose: Any, values: Sequence[float]) -> None:
    """Choose a logarithmic axis if positive values span decades."""
    if values and min(values) > 0 and math.isfinite(max(values)) and max(values) / min(values) > _SPREAD:
        choose("log")
