"""The isolator and the workers: what the engine stands on, without its bookkeeping."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

import evocell
from evocell.code.compiler import CompiledVersion
from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise
from evocell.execution.interface import CallJob, CompileJob, OpenWorker, Worker
from evocell.workers.open_worker import open_local_worker, open_worker_processes
from evocell_guest import values
from evocell_runtime.cache import ImageCache
from evocell_runtime.image import Image, open_image
from evocell_runtime.spec import ImageSpec
from measures.baseline import Baseline
from measures.report import Report, Row, timed

_SOURCE = "def solve(n):\n    return n * n\n"
_WORK = "def solve(n):\n    total = 0\n    for i in range(20_000):\n        total += i * i % 7\n    return total\n"
_FORKS = 1_000
_CALLS = 500
_BURSTS = 18
_BURST = 200
_FULL_RATE: tuple[tuple[str, OpenWorker, int, float | None], ...] = (
    ("in this process, 1 thread", open_local_worker, 1, None),
    ("in this process, 2 threads", open_local_worker, 2, None),
    ("1 worker process", open_worker_processes, 1, 500.0),
)


def measure(report: Report, baseline: Baseline) -> None:
    """Measure forks, and calls in forks that are thrown away: one at a time, and at full rate."""
    config = evocell.Config.load()
    image = open_image(ImageSpec(warm=config.warm, layers=config.layers), ImageCache(config.cache_path()))
    _forks(report, baseline, image)
    trio.run(_calls, report, baseline, "in this process", open_local_worker)
    trio.run(_calls, report, baseline, "worker process", open_worker_processes)
    for name, open_worker, count, target in _FULL_RATE:
        rates = trio.run(_rates, open_worker, count, report.share(_BURSTS))
        report.rates(f"{name}: fork + call + destroy", rates, target=target, baseline_s=baseline.call_s)
    for what, source in (("fork + call + destroy", _SOURCE), ("fork + 5 ms of Python + destroy", _WORK)):
        _scaling(report, baseline, what, source)


def _scaling(report: Report, baseline: Baseline, what: str, source: str) -> None:
    """Measure how calls scale with cores: one worker and the engine on one core, two and the engine on two.

    The engine's own process takes its share of the cores it is on. A single worker beside it on a machine of two
    cores has one for itself, so both comparisons are given.
    """
    rates = {}
    larger = [2**power for power in range(2, len(os.sched_getaffinity(0)).bit_length())]
    for workers, cores in ((1, 1), (1, 2), (2, 2), *((count, count) for count in larger)):
        with _on_cores(cores) as there:
            if not there:
                return
            taken = trio.run(_rates, open_worker_processes, workers, report.share(_BURSTS), source)
        rates[workers, cores] = statistics.median(taken)
        name = f"{workers} worker process{'es' if workers > 1 else ''} on {cores} core{'s' if cores > 1 else ''}: {what}"
        target = 500.0 * workers if source is _SOURCE else None
        report.rates(name, taken, target=target, baseline_s=baseline.call_s)
    for name, one, target in (
        (f"2 workers on 2 cores against 1 on 1: {what}", (1, 1), 1.8),
        (f"2 workers on 2 cores against 1 on 2: {what}", (1, 2), 1.8),
    ):
        gain = rates[2, 2] / rates[one]
        report.add(Row(name=name, samples=[gain], unit="times", target=target, at_least=True))


@contextmanager
def _on_cores(count: int) -> Iterator[bool]:
    """Keep this process, and those it starts, to some cores; yields whether there are so many."""
    before = os.sched_getaffinity(0)
    if len(before) < count:
        yield False
        return
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield True
    finally:
        os.sched_setaffinity(0, before)


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


async def _rates(open_worker: OpenWorker, count: int, bursts: int, source: str = _SOURCE) -> list[float]:
    """Measure calls per second with as many waiting as the worker has slots."""
    with tempfile.TemporaryDirectory() as directory:
        async with open_worker(_config(count), SnapshotStore(Path(directory))) as worker:
            job = await _job(worker, source)
            return [_BURST / await _took(lambda: _burst(worker, job)) for _ in range(bursts)]


def _config(count: int) -> evocell.Config:
    return evocell.Config.load(threads=count, workers=count)


async def _job(worker: Worker, source: str = _SOURCE) -> CallJob:
    """Compile the code, and call it until the worker is warm and all of its processes are there."""
    compiled = await worker.compile(CompileJob(tree=normalise(source)))
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
        for _ in range(worker.host.slots):
            nursery.start_soon(share)


async def _took(action: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await action()
    return time.perf_counter() - begun
