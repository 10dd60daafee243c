"""An engine on two Dask nodes of one guest process, in turns with one of two processes on the same machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median

from attrs import field, frozen

import evocell
from measures.baseline import Baseline
from measures.dask_processes import Cluster, wait_for
from measures.report import Report, Row

__all__ = ["PROGRAMS", "Paired", "break_even_s", "measure", "paired"]

_texts = count()
"""A number for each candidate: no two may be equal, so that each of them is compiled."""

PROGRAMS = (("trivial", 0, 400), ("50 ms", 1_000_000, 60), ("500 ms", 10_000_000, 8))
"""A name, turns of a loop (some 50 ns each), and how many candidates one reading evaluates."""

WANTED = 0.9
LEAST = {"trivial": 0.5, "50 ms": WANTED, "500 ms": WANTED}
"""The least part of the rate of one engine that is wanted."""

_SCORED = evocell.Limits(fuel=1 << 60, timeout_s=60)


@frozen
class Paired:
    """Rates at home and on the cluster, read in turns.

    Attributes:
        name: What was evaluated.
        home: Evaluations a second of one engine with two processes, one reading after the other.
        nodes: The same of two nodes with one process each.
    """

    name: str
    home: list[float] = field(factory=list)
    nodes: list[float] = field(factory=list)

    @property
    def ratio(self) -> float:
        """The median of how much of the home rate the nodes reached, pair by pair."""
        return median(there / here for here, there in zip(self.home, self.nodes, strict=True))


@contextmanager
def _engines(directory: Path) -> Iterator[tuple[evocell.Engine, evocell.Engine]]:
    cluster = Cluster(directory)
    try:
        for number in range(2):
            cluster.start_worker(f"node-{number}")
        client = cluster.client()
        client.wait_for_workers(2)
        with (
            evocell.Engine(evocell.Config.load(workers=2)) as home,
            evocell.Engine(evocell.Config.load(workers=1), cluster=client) as nodes,
        ):
            wait_for(lambda: sum(one.status == "up" for one in nodes.workers()) == 2)
            yield home, nodes
    finally:
        cluster.close()


def paired(rounds: int) -> list[Paired]:
    """Read all rates, in turns: home, nodes, nodes, home.

    Args:
        rounds: Pairs of readings of each.
    """
    found = [Paired(name) for name, _, _ in PROGRAMS]
    with tempfile.TemporaryDirectory() as directory, _engines(Path(directory)) as (home, nodes):
        for engine in (home, nodes):
            _rate(engine, 0, 100)
        for turn in range(rounds):
            for pair, (_, turns, size) in zip(found, PROGRAMS, strict=True):
                readings = [(home, pair.home), (nodes, pair.nodes)]
                for engine, rates in readings if turn % 2 == 0 else reversed(readings):
                    rates.append(_rate(engine, turns, size))
    return found


def _rate(engine: evocell.Engine, turns: int, size: int) -> float:
    """Evaluations a second of candidates that all differ."""
    sources = [
        f"def solve(n):\n    s = 0\n    for i in range({turns}): s += i\n    return n\n# {next(_texts)}\n"
        for _ in range(size)
    ]
    task = evocell.Evaluation("solve", [evocell.Case((3,), expected=3)], score="equal", limits=_SCORED)
    begun = time.perf_counter()
    results = engine.evaluate(sources, task)
    took = time.perf_counter() - begun
    assert all(result.valid for result in results), results[0]
    return size / took


def measure(report: Report, _: Baseline) -> None:
    """Add rows for each program, and one for where a cluster of this size begins to pay.

    Args:
        report: Where the rows go.
    """
    for pair in paired(1 if report.quick else 4):
        report.rates(f"cluster: {pair.name} evaluations, one engine of 2 processes", pair.home)
        report.rates(f"cluster: {pair.name} evaluations, 2 Dask nodes of 1 process", pair.nodes)
        parts = [there / here for here, there in zip(pair.home, pair.nodes, strict=True)]
        report.add(
            Row(
                name=f"cluster: {pair.name} evaluations, nodes beside one engine",
                samples=parts,
                unit="times",
                target=LEAST[pair.name],
                at_least=True,
            )
        )
        if pair.name == "trivial":
            report.add(
                Row(
                    name="cluster: run time from which nodes reach 0.9", samples=break_even_s(pair), unit="ms"
                )
            )


def break_even_s(pair: Paired) -> list[float]:
    """How long an evaluation must take a process, in seconds, for two nodes to reach 0.9 of one engine's rate.

    Two processes do one in half of that time; what a node costs beside it is what trivial ones take longer.
    """
    extra_s = [1 / there - 1 / here for here, there in zip(pair.home, pair.nodes, strict=True)]
    return [max(0.0, 2 * WANTED / (1 - WANTED) * extra) for extra in extra_s]
