"""Candidates of four lines, where the engine's own work decides: rates of many, and the latency of a lone one."""

from __future__ import annotations

import os
import tempfile
import time
from functools import cache
from itertools import count

import evocell
from measures.baseline import Baseline
from measures.report import Report, timed

__all__ = ["measure"]

_SOURCE = "def f(x):\n    a = x + {0}\n    b = a * 2\n    return b - 2 * {0} + 1\n"
_TASK = evocell.Evaluation("f", [evocell.Case((1,), expected=3)], score="equal")
_MANY = 1_000
_FEW = 100
_BATCHES = 12
_LONE = 300
_WARMING = 50

_numbers = count()
"""A number for each candidate: no two may be equal, so that each of them is compiled."""


def measure(report: Report, baseline: Baseline) -> None:
    """Measure rates on two workers, and latencies from a thread, with and without a `state_dir`.

    Args:
        report: Where the rows go.
        baseline: What they are compared with.
    """
    with evocell.Engine(evocell.Config.load(workers=2)) as engine:
        engine.evaluate(_new(_WARMING), _TASK)
        _rates(report, baseline, engine)
        _lone(report, baseline, engine, "")
    os.sync()  # what other sections left to be written is not to be waited for here
    directory = f"{_directories().name}/{next(_numbers)}"
    with evocell.Engine(evocell.Config.load(workers=2, state_dir=directory)) as engine:
        engine.evaluate(_new(_WARMING), _TASK)
        _lone(report, baseline, engine, ", with a state_dir")


@cache
def _directories() -> tempfile.TemporaryDirectory[str]:
    """Make a directory for all rounds, which is removed at the end of the run.

    For half a minute after many files were removed, ext4 takes a millisecond to create one.
    """
    return tempfile.TemporaryDirectory()


def _new(size: int) -> list[str]:
    return [_SOURCE.format(next(_numbers)) for _ in range(size)]


def _rates(report: Report, baseline: Baseline, engine: evocell.Engine) -> None:
    new_per_s: list[float] = []
    known_per_s: list[float] = []
    few_s: list[float] = []
    for _ in range(report.share(_BATCHES)):
        sources = _new(_MANY)
        for rates in (new_per_s, known_per_s):
            begun = time.perf_counter()
            results = engine.evaluate(sources, _TASK)
            rates.append(_MANY / (time.perf_counter() - begun))
            assert all(result.fitness_score == 1 for result in results), results[0]
        timed(few_s, engine.evaluate, _new(_FEW), _TASK)
    name = f"small: {_MANY:,} candidates of four lines, two workers"
    report.rates(f"{name}, all new", new_per_s, target=1_500, baseline_s=baseline.call_s)
    report.rates(f"{name}, all known", known_per_s, target=2_500, baseline_s=baseline.call_s)
    report.times(
        f"small: {_FEW} candidates of four lines, two workers, all new",
        few_s,
        target_s=80e-3,
        baseline_s=baseline.call_s,
        each=_FEW,
    )


def _lone(report: Report, baseline: Baseline, engine: evocell.Engine, where: str) -> None:
    taken_s: list[float] = []
    for source in _new(report.share(_LONE)):
        timed(taken_s, engine.evaluate_one, source, _TASK)
    report.times(
        f"small: evaluate_one of a new program{where}", taken_s, target_s=2e-3, baseline_s=baseline.call_s
    )
