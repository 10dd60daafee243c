"""How fast numpy arrays cross the border."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import evocell
from measures.report import Report, Row, repeat

_SOURCE = """
import numpy

given = numpy.arange(1_000_000, dtype=float)

def take(array):
    return array.size

def give():
    return given
"""
_NUMBERS = 1_000_000
_REPEATS = 30


def measure(report: Report, engine: evocell.Engine) -> None:
    """Send arrays of 8 MB in and out of a session.

    Args:
        report: Where the rows go.
        engine: An engine that has nothing else to do.
    """
    array = np.arange(_NUMBERS, dtype=float)
    engine.create_sandbox("arrays", source=_SOURCE)
    _add(report, "numpy array in, 8 MB", array, lambda: engine.run("arrays", "take", args=(array,)).unwrap())
    _add(report, "numpy array out, 8 MB", array, lambda: engine.run("arrays", "give").unwrap())
    engine.destroy_sandbox("arrays")


def _add(report: Report, name: str, array: np.ndarray, action: Callable[[], object]) -> None:
    action()
    report.add(
        Row(
            name=name,
            samples=[array.nbytes / taken_s for taken_s in repeat(action, report.share(_REPEATS))],
            unit="MB/s",
        )
    )
