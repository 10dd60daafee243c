"""Rows of measurements: their statistics, their table and their JSON."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from attrs import asdict, field, frozen
from rich import box
from rich.table import Table

T = TypeVar("T")
Unit = Literal["ms", "1/s", "MB", "MB/s", "times"]

_SCALE = {"ms": 1e3, "MB": 1e-6, "MB/s": 1e-6, "1/s": 1.0, "times": 1.0}
_MORE_IS_BETTER = {"1/s", "MB/s", "times"}


@frozen(kw_only=True)
class Row:
    """One thing that was measured.

    Attributes:
        name: What was done.
        samples: The readings in s, 1/s, bytes or bytes/s.
        unit: What they are shown in.
        target: What DESIGN asks of the median, in the samples' unit; None if it asks nothing.
        ratio: How much cheaper than the baseline: its median over this one's, or the other way round
            where more is better; None if the two cannot be compared.
    """

    name: str
    samples: Sequence[float]
    unit: Unit = "ms"
    target: float | None = None
    ratio: float | None = None

    @property
    def median(self) -> float:
        """The middle reading."""
        return statistics.median(self.samples)

    @property
    def p90(self) -> float:
        """The reading that nine tenths do not exceed."""
        return sorted(self.samples)[math.ceil(0.9 * len(self.samples)) - 1]

    def shown(self, value: float) -> str:
        """Render a reading in the row's unit, with three figures."""
        scaled = value * _SCALE[self.unit]
        places = max(0, 2 - math.floor(math.log10(scaled))) if 0 < scaled < 1000 else 0  # noqa: PLR2004
        return f"{scaled:,.{places}f}"

    def _spread(self) -> tuple[str, str, str]:
        if len(self.samples) == 1:
            return "", self.shown(self.samples[0]), ""
        return self.shown(min(self.samples)), self.shown(self.median), self.shown(self.p90)

    def cells(self) -> tuple[str, ...]:
        """Render the row for the table."""
        sign = "≥" if self.unit in _MORE_IS_BETTER else "≤"
        return (
            self.name,
            self.unit,
            *self._spread(),
            str(len(self.samples)),
            "" if self.target is None else f"{sign} {self.shown(self.target)}",
            "" if self.ratio is None else f"{self.ratio:,.1f}" if self.ratio < 100 else f"{self.ratio:,.0f}",  # noqa: PLR2004
        )


@frozen
class Report:
    """The rows of a run, in the order they were taken.

    Attributes:
        rows: What was measured.
    """

    rows: list[Row] = field(factory=list)

    def add(self, row: Row) -> Row:
        """Add a row, and return it."""
        self.rows.append(row)
        return row

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

    def table(self) -> Table:
        """Lay out the rows; the table is Markdown, so that it can be pasted."""
        table = Table(box=box.MARKDOWN)
        for heading in ("measured", "unit"):
            table.add_column(heading, no_wrap=True)
        for heading in ("min", "median", "p90", "n", "target", "times cheaper"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*row.cells())
        return table

    def plain(self) -> list[dict[str, object]]:
        """Return the rows as data for JSON, in the samples' unit."""
        return [
            asdict(row, filter=lambda attribute, _: attribute.name != "samples")
            | {"n": len(row.samples), "min": min(row.samples), "median": row.median, "p90": row.p90}
            for row in self.rows
        ]


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
