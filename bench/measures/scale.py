"""A batch of the size that the engine is made for: how fast, and what it holds while it runs."""

from __future__ import annotations

import gc
import time

import psutil

import evocell
from evocell.workers.memory_watch import own_memory
from measures.report import Report, Row

_CANDIDATES = 1_000
_CASES = 20
_LOOK_EVERY = 50


def measure(report: Report, engine: evocell.Engine) -> None:
    """Measure one batch of many candidates, all different, that answer each case with a product.

    Args:
        report: Where the rows go.
        engine: An engine that has nothing else to do.
    """
    cases = [evocell.Case((n,), expected=n * n) for n in range(_CASES)]
    task = evocell.Evaluation("solve", cases)
    sources = [f"def solve(n):\n    return n * n  # {number}\n" for number in range(_CANDIDATES)]
    engine.evaluate(sources[:10], task)
    before = _weigh()
    peak = list(before)

    def look(_: evocell.FitnessResult, done: int, __: int) -> None:
        if done % _LOOK_EVERY == 0:
            peak[:] = map(max, peak, _weigh())

    begun = time.perf_counter()
    results = engine.evaluate(sources, task, progress=look)
    taken_s = time.perf_counter() - begun
    assert all(result.valid for result in results)
    name = f"evaluate {_CANDIDATES:,} candidates on {_CASES} cases"
    report.add(Row(name=f"{name}: calls", samples=[_CANDIDATES * _CASES / taken_s], unit="1/s"))
    growth = [most - first for most, first in zip(peak, before, strict=True)]
    report.add(Row(name=f"{name}: growth of the engine, results included", samples=[growth[0]], unit="MB"))
    if growth[1:]:
        report.add(Row(name=f"{name}: growth of a worker, at most", samples=[max(growth[1:])], unit="MB"))


def _weigh() -> list[int]:
    """Bytes of memory of this process and of each worker."""
    gc.collect()
    here = psutil.Process()
    return [own_memory(process) for process in [here, *here.children()]]
