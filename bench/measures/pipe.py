"""The engine through a pipe, beside the same engine in the calling process: latency, and calls per second.

Three kinds of call: ``ping`` is the pipe alone, ``get_info`` a request to the engine that runs nothing, and ``run``
calls a function in a sandbox's session. Each of the calls in flight has a sandbox of its own.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import trio

import evocell
from evocell.pipe.client import AsyncClient
from measures.baseline import Baseline
from measures.report import Report

_SOURCE = "def solve(n):\n    return n * n\n"
_CALLS = 600
_BURST = 256
_BURSTS = 18
_IN_FLIGHT = 64
_WARMING = 100

Engine = evocell.AsyncEngine
Call = Callable[[str], Awaitable[object]]


def measure(report: Report, baseline: Baseline) -> None:
    """Measure calls one at a time and 64 at a time, in this process and through a pipe.

    Args:
        report: Where the rows go.
        baseline: What they are compared with.
    """
    trio.run(_measure, report, baseline, "in process", evocell.AsyncEngine)
    trio.run(_measure, report, baseline, "through a pipe", AsyncClient.spawn)


async def _measure(
    report: Report,
    baseline: Baseline,
    name: str,
    opening: Callable[[], AbstractAsyncContextManager[Engine]],
) -> None:
    async with opening() as engine:
        ids = [f"s{n}" for n in range(_IN_FLIGHT)]
        await engine.batch_create([evocell.SandboxSpec(one, source=_SOURCE) for one in ids])
        kinds: dict[str, Call] = {
            "get_info": engine.get_info,
            "run": lambda one: engine.run(one, "solve", args=(3,)),
        }
        if isinstance(engine, AsyncClient):
            client = engine
            kinds["ping"] = lambda _: client.ping()
        for kind, call in kinds.items():
            await _at_once(call, ids, _WARMING)
            taken_s = [await _took(call, ids[0]) for _ in range(report.share(_CALLS))]
            label = f"pipe: {kind} {name}"
            report.times(
                f"{label}, one at a time", taken_s, baseline_s=baseline.call_s if kind == "run" else None
            )
            rates = [_BURST / await _at_once(call, ids, _BURST) for _ in range(report.share(_BURSTS))]
            report.rates(f"{label}, {_IN_FLIGHT} in flight", rates)
            loaded = await _latencies(call, ids, report.share(_CALLS))
            report.times(f"{label}, {_IN_FLIGHT} in flight, each", loaded)


async def _took(call: Call, one: str) -> float:
    begun = time.perf_counter()
    await call(one)
    return time.perf_counter() - begun


async def _at_once(call: Call, ids: list[str], calls: int) -> float:
    """Make calls with as many in flight as there are sandboxes; returns the seconds they took together."""
    left = iter(range(calls))

    async def lane(one: str) -> None:
        for _ in left:
            await call(one)

    begun = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for one in ids:
            nursery.start_soon(lane, one)
    return time.perf_counter() - begun


async def _latencies(call: Call, ids: list[str], calls: int) -> list[float]:
    """Seconds that each call took with all the others in flight."""
    taken_s: list[float] = []
    left = iter(range(calls))

    async def lane(one: str) -> None:
        taken_s.extend([await _took(call, one) for _ in left])

    async with trio.open_nursery() as nursery:
        for one in ids:
            nursery.start_soon(lane, one)
    return taken_s
