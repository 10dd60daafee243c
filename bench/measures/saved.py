"""Runs as files: what a run is written to, and what it is read back from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from attrs import frozen

from measures.report import Report, Series, Unit

FORMAT = 2


@frozen
class SavedRun:
    """A run that is over.

    Attributes:
        machine: What it was taken on.
        series: Its rows by name.
        skipped: What could not be measured, and why.
    """

    machine: Mapping[str, str]
    series: Mapping[str, Series]
    skipped: Mapping[str, str]


def save(report: Report, machine: Mapping[str, str], path: Path) -> None:
    """Write a run to a file; readings in seconds, bytes, and as many a second."""
    document = {
        "format": FORMAT,
        "machine": machine,
        "rows": [_row(series) for series in report.series.values()],
        "skipped": report.skipped,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> SavedRun:
    """Read a run back.

    Raises:
        SystemExit: There is no such file, or it holds something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise SystemExit(f"{path} was written by another version of the benchmarks; run them again")
        series = {row["name"]: _series(row) for row in document["rows"]}
        return SavedRun(document["machine"], series, document["skipped"])
    except OSError as error:
        raise SystemExit(f"{path} cannot be read ({error.strerror}); `just bench` writes one") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} does not hold a run: {error!r}") from error


def _row(series: Series) -> dict[str, object]:
    low, high = series.spread()
    return {
        "name": series.name,
        "section": series.section,
        "unit": series.unit,
        "median": series.median,
        "p10": low,
        "p90": high,
        "n": sum(map(len, series.rounds)),
        "target": series.target,
        "at_least": series.at_least,
        "met": series.met,
        "round_medians": series.medians,
        "round_samples": [[float(f"{reading:.4g}") for reading in taken] for taken in series.rounds],
        "ratios": series.ratios,
    }


def _series(row: Mapping[str, Any]) -> Series:
    return Series(
        name=row["name"],
        section=row["section"],
        unit=cast("Unit", row["unit"]),
        target=row["target"],
        at_least=row["at_least"],
        rounds=[tuple(taken) for taken in row["round_samples"]],
        ratios=list(row["ratios"]),
    )
