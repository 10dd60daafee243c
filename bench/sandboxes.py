"""What a sandbox costs, beside a subprocess that imports numpy. The numbers are printed, none is asserted.

just bench [--rounds N] [--live N]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import trio
from rich.console import Console
from rich.table import Table

import evocell
from evocell.api.progress import console_progress
from evocell.code.compiler import CompiledVersion
from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise
from evocell.config import Config
from evocell.execution.local import open_local_worker
from evocell.execution.worker import CallJob, CompileJob, Worker
from evocell_guest import values

SOURCE = "def solve(n):\n    return n * n\n"
ENDLESS = "def solve(n):\n    while True:\n        pass\n"
PAYLOAD = values.encode([[3], {}])
DEADLINE_S = 0.2
BATCH = 100


class Report:
    """Rows of measurements, in the order they were taken."""

    def __init__(self) -> None:
        self.table = Table("measured", "min", "median", "per second", show_edge=False)
        for column in self.table.columns[1:]:
            column.justify = "right"

    def times(self, name: str, taken_s: list[float], *, each: int = 1) -> None:
        """Add a row of times.

        Args:
            name: What was done.
            taken_s: How long it took, each time, in seconds.
            each: How many of it one measurement covers.
        """
        median_s = statistics.median(taken_s)
        self.table.add_row(
            name, f"{min(taken_s) * 1e3:.2f} ms", f"{median_s * 1e3:.2f} ms", f"{each / median_s:,.0f}"
        )

    def figure(self, name: str, value: str) -> None:
        """Add a row with a single figure."""
        self.table.add_row(name, "", value, "")


async def worker_costs(report: Report, rounds: int, live: int) -> None:
    """Measure the worker: what the engine stands on, without its bookkeeping.

    Args:
        report: Where the rows go.
        rounds: Measurements of each kind.
        live: Sandboxes that hold an instance at once while memory is measured.
    """
    with tempfile.TemporaryDirectory() as directory, console_progress() as progress:
        snapshots = SnapshotStore(Path(directory))
        async with open_local_worker(Config.load(), snapshots, progress=progress) as worker:
            compiled = await worker.compile(CompileJob(tree=normalise(SOURCE)))
            if not isinstance(compiled, CompiledVersion):
                raise SystemExit(compiled.error)
            await _throw_away_calls(report, worker, compiled, rounds)
            await _sessions(report, worker, compiled, live)


async def _throw_away_calls(report: Report, worker: Worker, code: CompiledVersion, rounds: int) -> None:
    job = CallJob(code=code, entry="program:solve", payload=PAYLOAD, limits=evocell.Limits())
    await worker.call(job)
    taken_s = [await _timed(lambda: worker.call(job)) for _ in range(rounds)]
    report.times("worker: fork + first call + destroy", taken_s)

    async def share() -> None:
        for _ in range(rounds):
            await worker.call(job)

    async def all_slots() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(worker.slots):
                nursery.start_soon(share)

    report.times(
        f"worker: the same, {worker.slots} at once",
        [await _timed(all_slots) / (rounds * worker.slots)],
    )


async def _sessions(report: Report, worker: Worker, code: CompiledVersion, live: int) -> None:
    process = psutil.Process()
    gc.collect()
    before, maps_before, files_before = _unique_bytes(process), _maps(process), process.num_fds()
    jobs = [
        CallJob(
            session=f"bench-{n}", code=code, entry="program:solve", payload=PAYLOAD, limits=evocell.Limits()
        )
        for n in range(live)
    ]
    first_s = [await _timed(lambda job=job: worker.call(job)) for job in jobs]
    unique = (_unique_bytes(process) - before) / live
    maps, files = (_maps(process) - maps_before) / live, (process.num_fds() - files_before) / live
    next_s = [await _timed(lambda job=job: worker.call(job)) for job in jobs]
    end_s = [await _timed(lambda job=job: worker.end_session(job.session)) for job in jobs]
    report.times("worker: fork + first call, kept", first_s)
    report.times("worker: next call of a kept fork", next_s)
    report.times("worker: destroy a kept fork", end_s)
    report.figure(f"memory each, unique, {live:,} live after a call", f"{unique / 1e6:.2f} MB")
    report.figure("memory maps each", f"{maps:.1f}")
    report.figure("descriptors each", f"{files:.1f}")


def engine_costs(report: Report, rounds: int) -> None:
    """Measure the public API: creating, calling and destroying sandboxes, one by one and in batches."""
    start = time.perf_counter()
    with evocell.Engine() as engine:
        report.times("engine: start, image in the cache", [time.perf_counter() - start])
        create_s, first_s, destroy_s = [], [], []
        for n in range(rounds):
            create_s.append(_took(lambda n=n: engine.create_sandbox(f"bench-{n}", source=SOURCE)))
            first_s.append(_took(lambda n=n: engine.run(f"bench-{n}", "solve", args=(3,))))
            destroy_s.append(_took(lambda n=n: engine.destroy_sandbox(f"bench-{n}")))
        report.times("engine: create", create_s)
        report.times("engine: first call", first_s)
        report.times("engine: destroy", destroy_s)

        specs = [evocell.SandboxSpec(source=SOURCE) for _ in range(BATCH)]
        start = time.perf_counter()
        batch = engine.batch_create(specs)
        report.times(f"engine: batch create {BATCH}", [time.perf_counter() - start], each=BATCH)
        task = evocell.Evaluation("solve", [evocell.Case(args=(3,), expected=9)])
        report.times(
            f"engine: batch evaluate {BATCH}", [_took(lambda: engine.batch_evaluate(batch, task))], each=BATCH
        )
        engine.batch_destroy(batch)

        engine.create_sandbox("endless", source=ENDLESS)
        killed_s = [
            _took(lambda: engine.run_with_timeout("endless", "solve", args=(3,), timeout_s=DEADLINE_S))
            for _ in range(5)
        ]
        report.times(f"engine: `while True: pass`, timeout_s={DEADLINE_S:g}", killed_s)


def subprocess_costs(report: Report) -> None:
    """Measure what people do today: a Python process of its own that imports numpy."""
    command = [sys.executable, "-c", "import numpy; print(3 * 3)"]
    taken_s = [_took(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(7)]
    report.times("for comparison: subprocess + numpy", taken_s)


async def _timed(action: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await action()
    return time.perf_counter() - start


def _took(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _unique_bytes(process: psutil.Process) -> int:
    return process.memory_full_info().uss


def _maps(process: psutil.Process) -> int:
    return len(process.memory_maps(grouped=False))


def main() -> None:
    """Run every measurement and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="measurements of each kind")
    parser.add_argument("--live", type=int, default=500, help="sandboxes alive while memory is measured")
    args = parser.parse_args()
    report = Report()
    trio.run(worker_costs, report, args.rounds, args.live)
    engine_costs(report, args.rounds)
    subprocess_costs(report)
    Console().print(report.table)


if __name__ == "__main__":
    main()
