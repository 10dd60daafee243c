"""Rows of measurements over several rounds: their statistics, their table and their JSON.

A run has rounds, and each round takes a part of every row's readings, so that whatever else the machine does
for a while meets all rows alike. A ratio is taken within a round, against that round's own baseline.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from attrs import define, field, frozen
from rich import box
from rich.table import Table

from evocell.models.measurement import Interval

T = TypeVar("T")
Unit = Literal["ms", "1/s", "MB", "MB/s", "times"]

_SCALE = {"ms": 1e3, "MB": 1e-6, "MB/s": 1e-6, "1/s": 1.0, "times": 1.0}
MORE_IS_BETTER = frozenset({"1/s", "MB/s"})
_TENTH = 0.1


@frozen(kw_only=True)
class Row:
    """One thing that was measured in one round.

    Attributes:
        name: What was done.
        samples: The readings in s, 1/s, bytes or bytes/s.
        unit: What they are shown in.
        target: What DESIGN asks of the median, in the samples' unit; None if it asks nothing.
        at_least: Whether the target is the least that is wanted; by default where more is better.
        ratio: How much cheaper than the baseline: its median over this one's, or the other way round
            where more is better; None if the two cannot be compared.
    """

    name: str
    samples: Sequence[float]
    unit: Unit = "ms"
    target: float | None = None
    at_least: bool | None = None
    ratio: float | None = None

    @property
    def median(self) -> float:
        """The middle reading."""
        return statistics.median(self.samples)


@define(kw_only=True)
class Series:
    """A row over all rounds.

    Attributes:
        name: What was done.
        section: The part of the run it belongs to.
        unit: What it is shown in.
        target: What DESIGN asks of the median; None if it asks nothing.
        at_least: Whether the target is the least that is wanted.
        rounds: The readings of each round.
        ratios: The ratio to the baseline in each round that has one.
    """

    name: str
    section: str
    unit: Unit
    target: float | None
    at_least: bool
    rounds: list[tuple[float, ...]] = field(factory=list)
    ratios: list[float] = field(factory=list)

    @property
    def samples(self) -> list[float]:
        """All readings, sorted."""
        return sorted(reading for taken in self.rounds for reading in taken)

    @property
    def median(self) -> float:
        """The middle reading."""
        return statistics.median(self.samples)

    @property
    def medians(self) -> list[float]:
        """The middle reading of each round."""
        return [statistics.median(taken) for taken in self.rounds]

    @property
    def ratio(self) -> Interval | None:
        """The ratio to the baseline, with its interval over the rounds; None if there is none."""
        return Interval.of(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        if self.target is None:
            return None
        return self.median >= self.target if self.at_least else self.median <= self.target

    def spread(self) -> tuple[float, float]:
        """The readings that a tenth is below, and above."""
        samples = self.samples
        last = len(samples) - 1
        return samples[math.floor(_TENTH * last)], samples[math.ceil((1 - _TENTH) * last)]

    def shown(self, value: float) -> str:
        """Render a reading in the row's unit, with three figures."""
        return three_figures(value * _SCALE[self.unit])

    def shown_target(self) -> str:
        """Render the target; empty if there is none."""
        return "" if self.target is None else f"{'≥' if self.at_least else '≤'} {self.shown(self.target)}"


@define
class Report:
    """The rows of a run, in the order in which they first came.

    Attributes:
        n_rounds: How many rounds there will be.
        quick: Whether each row takes only a few readings, to see that all works.
        series: The rows by name.
        section: The part that is being measured.
        skipped: What could not be measured, and why.
    """

    n_rounds: int = 1
    quick: bool = False
    series: dict[str, Series] = field(factory=dict)
    section: str = ""
    skipped: dict[str, str] = field(factory=dict)

    def share(self, readings: int) -> int:
        """How many of a row's readings one round takes.

        Args:
            readings: How many there will be in all rounds together.
        """
        return 2 if self.quick else max(2, round(readings / self.n_rounds))

    def add(self, row: Row) -> Row:
        """Add a round's readings to their row, and return them."""
        at_least = row.unit in MORE_IS_BETTER if row.at_least is None else row.at_least
        series = self.series.setdefault(
            row.name,
            Series(name=row.name, section=self.section, unit=row.unit, target=row.target, at_least=at_least),
        )
        series.rounds.append(tuple(row.samples))
        if row.ratio is not None:
            series.ratios.append(row.ratio)
        return row

    def skip(self, name: str, why: str) -> None:
        """Note that something could not be measured."""
        self.skipped[name] = why

    def times(
        self,
        name: str,
        taken_s: Sequence[float],
        *,
        target_s: float | None = None,
        baseline_s: float | None = None,
        each: int = 1,
    ) -> None:
        """Add a row of times.

        Args:
            name: What was done.
            taken_s: How long it took, each time, in seconds.
            target_s: What DESIGN asks of the median.
            baseline_s: What one of the baseline takes; None if the two cannot be compared.
            each: How many of the baseline one measurement stands for.
        """
        ratio = None if baseline_s is None else each * baseline_s / statistics.median(taken_s)
        self.add(Row(name=name, samples=taken_s, target=target_s, ratio=ratio))

    def rates(
        self,
        name: str,
        per_s: Sequence[float],
        *,
        target: float | None = None,
        baseline_s: float | None = None,
    ) -> None:
        """Add a row of rates.

        Args:
            name: What was done.
            per_s: How often a second, each time.
            target: What DESIGN asks of the median.
            baseline_s: What one of the baseline takes; None if the two cannot be compared.
        """
        ratio = None if baseline_s is None else statistics.median(per_s) * baseline_s
        self.add(Row(name=name, samples=per_s, unit="1/s", target=target, ratio=ratio))

    def table(self) -> Table:
        """Lay out the rows; the table is Markdown, so that it can be pasted."""
        table = Table(box=box.MARKDOWN)
        for heading in ("measured", "unit"):
            table.add_column(heading, no_wrap=True)
        for heading in ("median", "10 %", "90 %", "n", "target", "", "times cheaper"):
            table.add_column(heading, justify="right", no_wrap=True)
        for series in self.series.values():
            table.add_row(*cells(series))
        return table


def cells(series: Series) -> tuple[str, ...]:
    """Render a row for a table."""
    n = sum(map(len, series.rounds))
    spread = ("", "") if n == 1 else tuple(series.shown(bound) for bound in series.spread())
    return (
        series.name,
        series.unit,
        series.shown(series.median),
        *spread,
        str(n),
        series.shown_target(),
        {None: "", True: "met", False: "missed"}[series.met],
        shown_ratio(series.ratio),
    )


def shown_ratio(ratio: Interval | None) -> str:
    """Render a ratio and, where there are enough rounds, the interval that its median lies in."""
    if ratio is None:
        return ""
    bounded = ratio.high < math.inf and ratio.high != ratio.low
    bounds = f" ({three_figures(ratio.low)} to {three_figures(ratio.high)})" if bounded else ""
    return f"{three_figures(ratio.median)}{bounds}"


def three_figures(value: float) -> str:
    """Render a number with three figures, and all of them before the point."""
    places = max(0, 2 - math.floor(math.log10(abs(value)))) if 0 < abs(value) < 1000 else 0
    return f"{value:,.{places}f}"


def timed(into: list[float], action: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call something, note the seconds it took, and return what it returned."""
    begun = time.perf_counter()
    result = action(*args, **kwargs)
    into.append(time.perf_counter() - begun)
    return result


def repeat(action: Callable[[], object], times: int) -> list[float]:
    """Call something again and again, and return the seconds of each time."""
    taken_s: list[float] = []
    for _ in range(times):
        timed(taken_s, action)
    return taken_s
