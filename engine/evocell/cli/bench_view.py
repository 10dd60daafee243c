"""Output of `evocell bench`: a measurement or a comparison, as tables or as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from evocell.cli.screen import open_screen
from evocell.models.foreign import clean_message
from evocell.models.measurement import Comparison, Interval, Measurement, Verdict

if TYPE_CHECKING:
    from evocell.models.fitness import CaseResult

__all__ = ["comparison_json", "measurement_json", "show_comparison", "show_measurement"]

_MANY = 12
"""Most cases shown one by one; of more, only the most expensive."""


def show_measurement(measured: Measurement, name: str) -> None:
    """Print the cost of a program, one row per case."""
    console = open_screen(highlight=False)
    cases = measured.result.test_results
    table = _table("case", "ended", "fuel", "peak memory", "time, median")
    for index in _dearest([case.outcome.fuel_used for case in cases]):
        walls = measured.case_wall_s[index] if index < len(measured.case_wall_s) else ()
        table.add_row(
            _case_name(cases[index]),
            _ended(cases[index]),
            f"{cases[index].outcome.fuel_used:,}",
            _bytes(cases[index].outcome.peak_memory_bytes),
            _seconds(statistics.median(walls)) if walls else "",
        )
    console.print(f"{name}: {_cases_said(len(cases))}", markup=False)
    if cases:
        console.print(table)
    for line in _summary(measured):
        console.print(line, markup=False)


def show_comparison(compared: Comparison, first: str, second: str) -> None:
    """Print two programs side by side, with the verdicts."""
    console = open_screen(highlight=False)
    table = _table("", first, second, "second / first")
    one, other = compared.first, compared.second
    table.add_row("score", *(_score(measured) for measured in (one, other)), "")
    table.add_row("fuel", f"{one.fuel:,}", f"{other.fuel:,}", "")
    table.add_row("own fuel", f"{one.own_fuel:,}", f"{other.own_fuel:,}", _ratio(compared.fuel_ratio))
    peaks = _bytes(one.peak_memory_bytes), _bytes(other.peak_memory_bytes)
    table.add_row("peak memory", *peaks, _ratio(compared.memory_ratio))
    medians = (_seconds(statistics.median(measured.wall_s)) for measured in (one, other))
    table.add_row("time, median", *medians, _interval(compared.wall_ratio))
    console.print(table)
    for measured, name in ((one, first), (other, second)):
        for line in _troubles(measured):
            console.print(f"{name}: {line}", markup=False)
    exact = "exact: the same on every run"
    console.print(_verdict("fuel", compared.by_fuel, first, second, exact))
    console.print(_verdict("memory", compared.by_memory, first, second, exact))
    console.print(_verdict("time", compared.by_time, first, second, _time_ground(compared.wall_ratio)))


def measurement_json(measured: Measurement) -> dict[str, object]:
    """Return a measurement as plain data, in seconds and bytes."""
    cases = measured.result.test_results
    wall = Interval.of(measured.wall_s)
    return {
        "valid": measured.result.valid,
        "score": measured.result.fitness_score,
        "error": measured.result.error,
        "fuel": measured.fuel,
        "overhead_fuel": measured.overhead_fuel,
        "peak_memory_bytes": measured.peak_memory_bytes,
        "repeatable": measured.repeatable,
        "wall_s": {"samples": list(measured.wall_s), **_interval_json(wall)},
        "cases": [
            {
                "name": case.name,
                "outcome": case.outcome.kind,
                "passed": case.passed,
                "fuel": case.outcome.fuel_used,
                "peak_memory_bytes": case.outcome.peak_memory_bytes,
                "wall_s": list(measured.case_wall_s[index]) if index < len(measured.case_wall_s) else [],
            }
            for index, case in enumerate(cases)
        ],
    }


def comparison_json(compared: Comparison) -> dict[str, object]:
    """Return a comparison as plain data."""
    wall = compared.wall_ratio
    return {
        "first": measurement_json(compared.first),
        "second": measurement_json(compared.second),
        "fuel_ratio": compared.fuel_ratio,
        "memory_ratio": compared.memory_ratio,
        "wall_ratio": None if wall is None else _interval_json(wall),
        "by_fuel": compared.by_fuel,
        "by_memory": compared.by_memory,
        "by_time": compared.by_time,
    }


def _interval_json(interval: Interval) -> dict[str, float | None]:
    bounded = interval.high < float("inf")
    return {
        "median": interval.median,
        "low": interval.low if bounded else None,
        "high": interval.high if bounded else None,
    }


def _summary(measured: Measurement) -> list[str]:
    wall = Interval.of(measured.wall_s)
    repeats = f"{wall.n} repeats" if wall.n > 1 else "1 run"
    spread = (
        "" if wall.high == float("inf") else f", 95 % interval {_seconds(wall.low)} to {_seconds(wall.high)}"
    )
    return [
        f"score {_score(measured)}",
        f"fuel {measured.fuel:,}, of which {measured.overhead_fuel:,} for the calls themselves",
        f"peak memory {_bytes(measured.peak_memory_bytes)} above the image; like fuel the same every time",
        f"time {_seconds(wall.median)} in all, median of {repeats}{spread}",
        *_troubles(measured),
    ]


def _troubles(measured: Measurement) -> list[str]:
    lines = [] if measured.result.error is None else [clean_message(measured.result.error)]
    if not measured.repeatable:
        lines.append(
            "repeats differ in fuel, memory or outcome, so there is no exact verdict; is a time limit hit, "
            "or is the profile realtime?"
        )
    wrong = [_case_name(case) for case in measured.result.test_results if case.outcome.ok and not case.passed]
    if wrong and measured.result.error is None:
        lines.append(f"not what was expected: case {', '.join(wrong[:_MANY])}")
    return lines


def _verdict(axis: str, verdict: Verdict, first: str, second: str, ground: str) -> Text:
    said = {
        "first": f"{first} is better",
        "second": f"{second} is better",
        "equal": "no difference",
        "undecided": "undecided",
    }[verdict]
    style = {"first": "bold green", "second": "bold green", "equal": "bold", "undecided": "bold yellow"}[
        verdict
    ]
    return Text.assemble(f"by {axis}: ", (said, style), f" ({ground})")


def _time_ground(ratio: Interval | None) -> str:
    if ratio is None:
        return "nothing ran"
    if ratio.high == float("inf"):
        return f"{ratio.n} repeats bound nothing; six are the least"
    return (
        f"median of the ratios of {ratio.n} paired repeats, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}"
    )


def _dearest(fuel: Sequence[int]) -> list[int]:
    dear = sorted(range(len(fuel)), key=lambda index: -fuel[index])[:_MANY]
    return sorted(dear)


def _cases_said(n_cases: int) -> str:
    if n_cases <= _MANY:
        return f"{n_cases} case" if n_cases == 1 else f"{n_cases} cases"
    return f"{n_cases} cases, of which the {_MANY} dearest are shown"


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), justify="left" if place == 0 else "right", overflow="fold")
    return table


def _case_name(case: CaseResult) -> str:
    return case.name or str(case.index)


def _ended(case: CaseResult) -> Text:
    if not case.outcome.ok:
        return Text(case.outcome.kind, style="red")
    return Text("passed", style="green") if case.passed else Text("wrong", style="red")


def _score(measured: Measurement) -> str:
    return (
        f"{measured.result.fitness_score:g}" if measured.result.valid else f"failed: {measured.result.reason}"
    )


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3f}"


def _interval(ratio: Interval | None) -> str:
    return "" if ratio is None else f"{ratio.median:.3f}"


def _seconds(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"
