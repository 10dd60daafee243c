"""The isolator and the workers: what the engine stands on, without its bookkeeping."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

import evocell
from evocell.code.compiler import CompiledVersion
from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise
from evocell.execution.local import open_local_worker
from evocell.execution.processes import open_worker_processes
from evocell.execution.worker import CallJob, CompileJob, OpenWorker, Worker
from evocell_guest import values
from evocell_runtime.cache import ImageCache
from evocell_runtime.image import Image, open_image
from evocell_runtime.spec import ImageSpec
from measures.baseline import Baseline
from measures.report import Report, Row, timed

_SOURCE = "def solve(n):\n    return n * n\n"
_FORKS = 1_000
_CALLS = 500
_BURSTS = 18
_BURST = 200
_FULL_RATE: tuple[tuple[str, OpenWorker, int, float | None], ...] = (
    ("in this process, 1 thread", open_local_worker, 1, None),
    ("in this process, 2 threads", open_local_worker, 2, None),
    ("1 worker process", open_worker_processes, 1, 500.0),
    ("2 worker processes", open_worker_processes, 2, 1000.0),
)


def measure(report: Report, baseline: Baseline) -> None:
    """Measure forks, and calls in forks that are thrown away: one at a time, and at full rate."""
    config = evocell.Config.load()
    image = open_image(ImageSpec(warm=config.warm, layers=config.layers), ImageCache(config.cache_path()))
    _forks(report, baseline, image)
    trio.run(_calls, report, baseline, "in this process", open_local_worker)
    trio.run(_calls, report, baseline, "worker process", open_worker_processes)
    medians = {}
    for name, open_worker, count, target in _FULL_RATE:
        rates = trio.run(_rates, open_worker, count, report.share(_BURSTS))
        medians[name] = statistics.median(rates)
        report.rates(f"{name}: fork + call + destroy", rates, target=target, baseline_s=baseline.call_s)
    gain = medians["2 worker processes"] / medians["1 worker process"]
    report.add(
        Row(name="2 worker processes against 1", samples=[gain], unit="times", target=1.8, at_least=True)
    )


def _forks(report: Report, baseline: Baseline, image: Image) -> None:
    fork_s: list[float] = []
    close_s: list[float] = []
    for _ in range(report.share(_FORKS)):
        timed(close_s, timed(fork_s, image.fork).close)
    report.times("isolator: fork", fork_s, target_s=0.3e-3, baseline_s=baseline.call_s)
    report.times("isolator: destroy", close_s, baseline_s=baseline.call_s)


async def _calls(report: Report, baseline: Baseline, name: str, open_worker: OpenWorker) -> None:
    """Measure one call after the other, in one thread or process."""
    with tempfile.TemporaryDirectory() as directory:
        async with open_worker(_config(1), SnapshotStore(Path(directory))) as worker:
            job = await _job(worker)
            taken_s = [await _took(lambda: worker.call(job)) for _ in range(report.share(_CALLS))]
    report.times(f"{name}: fork + first call + destroy", taken_s, target_s=1.5e-3, baseline_s=baseline.call_s)


async def _rates(open_worker: OpenWorker, count: int, bursts: int) -> list[float]:
    """Measure calls per second with as many waiting as the worker has slots."""
    with tempfile.TemporaryDirectory() as directory:
        async with open_worker(_config(count), SnapshotStore(Path(directory))) as worker:
            job = await _job(worker)
            return [_BURST / await _took(lambda: _burst(worker, job)) for _ in range(bursts)]


def _config(count: int) -> evocell.Config:
    return evocell.Config.load(threads=count, workers=count)


async def _job(worker: Worker) -> CallJob:
    """Compile the code, and call it until the worker is warm and all of its processes are there."""
    compiled = await worker.compile(CompileJob(tree=normalise(_SOURCE)))
    assert isinstance(compiled, CompiledVersion), compiled
    job = CallJob(
        code=compiled, entry="program:solve", payload=values.encode([[3], {}]), limits=evocell.Limits()
    )
    await trio.sleep(1)
    await _burst(worker, job)
    return job


async def _burst(worker: Worker, job: CallJob) -> None:
    left = iter(range(_BURST))

    async def share() -> None:
        for _ in left:
            report = await worker.call(job)
            assert report.outcome.ok, report.outcome

    async with trio.open_nursery() as nursery:
        for _ in range(worker.slots):
            nursery.start_soon(share)


async def _took(action: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await action()
    return time.perf_counter() - begun
