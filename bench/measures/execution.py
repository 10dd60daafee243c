"""The isolator and the worker: what the engine stands on, without its bookkeeping."""

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
from evocell.execution.worker import CallJob, CompileJob, Worker
from evocell_guest import values
from evocell_runtime.cache import ImageCache
from evocell_runtime.image import Image, open_image
from evocell_runtime.spec import ImageSpec
from measures.baseline import Baseline
from measures.report import Report, Row, timed

_SOURCE = "def solve(n):\n    return n * n\n"
_FORKS = 1_000
_CALLS = 500
_WARM_UP = 20
_BURSTS = 7
_BURST = 200
_THREADS = (1, 2)


def measure(report: Report, baseline: Baseline) -> None:
    """Measure forks, and calls in forks that are thrown away, one at a time and at full rate."""
    config = evocell.Config.load()
    image = open_image(ImageSpec(warm=config.warm, layers=config.layers), ImageCache(config.cache_path()))
    _forks(report, baseline, image)
    for threads in _THREADS:
        trio.run(_calls, report, baseline, threads)


def _forks(report: Report, baseline: Baseline, image: Image) -> None:
    fork_s: list[float] = []
    close_s: list[float] = []
    for _ in range(_FORKS):
        timed(close_s, timed(fork_s, image.fork).close)
    report.times("isolator: fork", fork_s, target_s=0.3e-3, baseline_s=baseline.call_s)
    report.times("isolator: destroy", close_s, baseline_s=baseline.call_s)


async def _calls(report: Report, baseline: Baseline, threads: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        snapshots = SnapshotStore(Path(directory))
        async with open_local_worker(evocell.Config.load(threads=threads), snapshots) as worker:
            compiled = await worker.compile(CompileJob(tree=normalise(_SOURCE)))
            assert isinstance(compiled, CompiledVersion), compiled
            job = CallJob(
                code=compiled,
                entry="program:solve",
                payload=values.encode([[3], {}]),
                limits=evocell.Limits(),
            )
            for _ in range(_WARM_UP):
                await worker.call(job)
            if threads == 1:
                taken_s = [await _took(lambda: worker.call(job)) for _ in range(_CALLS)]
                report.times(
                    "worker: fork + first call + destroy",
                    taken_s,
                    target_s=1.5e-3,
                    baseline_s=baseline.call_s,
                )
            rates = [_BURST / await _took(lambda: _burst(worker, job)) for _ in range(_BURSTS)]
            report.add(
                Row(
                    name=f"worker: fork + call + destroy, {threads} thread{'s' * (threads > 1)}",
                    samples=rates,
                    unit="1/s",
                    target=500.0 if threads == 1 else None,
                    ratio=statistics.median(rates) * baseline.call_s,
                )
            )


async def _burst(worker: Worker, job: CallJob) -> None:
    left = iter(range(_BURST))

    async def share() -> None:
        for _ in left:
            await worker.call(job)

    async with trio.open_nursery() as nursery:
        for _ in range(worker.slots):
            nursery.start_soon(share)


async def _took(action: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await action()
    return time.perf_counter() - begun
