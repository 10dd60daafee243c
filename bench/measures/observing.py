"""What it costs to remember: lineage queries among many, and keeping results where durability is promised."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from evocell.models.fitness import FitnessResult
from evocell.models.state import SandboxState
from evocell.store.fitness import FitnessRecorder
from evocell.store.journal import Journal
from evocell.store.lineage import LineageTracker
from evocell.store.runs import open_run
from evocell.store.store import Store
from evocell.telemetry.events import Telemetry
from measures.report import Report, repeat, timed

_GENERATIONS, _SIZE = 1_000, 100
_QUERY_S = 0.010
_RECORD_S = 50e-6
_BATCH = 100
_REPEATS = 30


@cache
def _family(*, crossover: bool) -> LineageTracker:
    """Make 100,000 individuals in 1,000 generations, each with one parent or with two."""
    chance = random.Random(1)
    tracker = LineageTracker()
    before: list[str] = []
    for generation in range(_GENERATIONS):
        born = [f"g{generation}-{place}" for place in range(_SIZE)]
        for name in born:
            parents = [chance.choice(before) for _ in range(1 + crossover)] if before else []
            tracker.record(name, parents, generation=generation)
        before = born
    return tracker


def measure(report: Report) -> None:
    """Ask about 100,000 individuals, and keep results as a batch of 100 does.

    Args:
        report: Where the rows go.
    """
    _measure_queries(report, _family(crossover=False), "one parent each")
    _measure_queries(report, _family(crossover=True), "two parents each")
    _measure_recording(report)


def _measure_queries(report: Report, tracker: LineageTracker, kind: str) -> None:
    last, other = f"g{_GENERATIONS - 1}-0", f"g{_GENERATIONS - 1}-1"
    queries: tuple[tuple[str, Callable[[], object]], ...] = (
        (f"ancestors among 100,000, {kind}", lambda: tracker.ancestors(last)),
        (f"descendants among 100,000, {kind}", lambda: tracker.descendants("g0-0")),
        (f"common ancestor among 100,000, {kind}", lambda: tracker.common_ancestor(last, other)),
        (f"line of 1,000 among 100,000, {kind}", lambda: tracker.line(last)),
    )
    for name, ask in queries:
        ask()
        report.times(name, repeat(ask, report.share(_REPEATS)), target_s=_QUERY_S)


def _measure_recording(report: Report) -> None:
    """Record batches of 100 results; what the caller waits for at the end of each is counted in."""
    with tempfile.TemporaryDirectory() as place, Store(Path(place) / "evocell.db") as store:
        run = open_run(store, image_id="bench", has_version=lambda _: True)
        journal = Journal(store, run.number)
        lineage = LineageTracker(journal)
        fitness = FitnessRecorder(journal, Telemetry())
        names = map("sandbox-{}".format, itertools.count(1))

        def batch(*, wait: bool) -> None:
            numbers = []
            ids = list(itertools.islice(names, _BATCH))
            for one in ids:
                number = lineage.record(one, kept=False)
                journal.state(number, SandboxState(one), kept=False)
                numbers.append(number)
            key = journal.begin_batch(
                "evaluate", numbers, entry="program:solve", task="t", direction="maximize"
            )
            for one, number in zip(ids, numbers, strict=True):
                result = FitnessResult(one, 0, 1.0, valid=True, fuel_used=1)
                fitness.record(result, number=number, version="v", batch=key)
            journal.end_batch(key, "done")
            if wait:
                store.flush_blocking()

        batch(wait=True)
        samples: list[float] = []
        for _ in range(report.share(_REPEATS)):
            timed(samples, batch, wait=True)
        each = [sample / _BATCH for sample in samples]
        report.times("record an evaluation, on disk (in batches of 100)", each, target_s=_RECORD_S)
        samples = []
        for _ in range(report.share(_REPEATS)):
            timed(samples, batch, wait=False)
            store.flush_blocking()
        report.times("record an evaluation, caller's part", [sample / _BATCH for sample in samples])
        run.close()
