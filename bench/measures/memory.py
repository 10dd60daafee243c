"""What a sandbox weighs, as unique set size: memory that nothing else shares."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import evocell
from measures.baseline import Baseline
from measures.machine import private_bytes
from measures.report import Report, Row

_SOURCE = "def solve(n):\n    return n * n\n"
_RECORDS = 2_000
_AWAKE_PER_WORKER = 50
"""Sessions that all stay awake: a worker puts idle ones aside beyond 64."""
_ASIDE_PER_WORKER = 200


def measure(report: Report, baseline: Baseline, engine: evocell.Engine) -> None:
    """Weigh sandboxes that are only records, and ones with a session that has run one call.

    Args:
        report: Where the rows go.
        baseline: What they are compared with.
        engine: An engine that has nothing else to do.
    """
    workers = max(1, engine.config.worker_count())
    awake, aside = _AWAKE_PER_WORKER * workers, _ASIDE_PER_WORKER * workers
    before = _weigh()
    made = engine.batch_create([evocell.SandboxSpec(source=_SOURCE) for _ in range(_RECORDS)])
    idle = (_weigh() - before) / _RECORDS
    _add(report, baseline, f"memory each: a record, of {_RECORDS:,}", idle)
    live = _growth(engine, made[:awake])
    _add(report, baseline, f"memory each: a session after one call, of {awake}", live, 1e6)
    _growth(engine, made[awake : 2 * awake])  # from here on each that comes puts another aside
    slept = _growth(engine, made[2 * awake : 2 * awake + aside])
    _add(report, baseline, f"memory each: a session put aside, of {aside}", slept)
    engine.batch_destroy(made)


def _growth(engine: evocell.Engine, sandboxes: Sequence[evocell.Sandbox]) -> float:
    """Call each sandbox once; returns the bytes by which that made the engine grow, for each of them."""
    before = _weigh()
    for sandbox in sandboxes:
        engine.run(sandbox, "solve", args=(3,)).unwrap()
    return (_weigh() - before) / len(sandboxes)


def _weigh() -> int:
    gc.collect()
    return private_bytes()


def _add(report: Report, baseline: Baseline, name: str, weight: float, target: float | None = None) -> None:
    ratio = baseline.memory_bytes / weight if weight > 0 else None
    report.add(Row(name=name, samples=[weight], unit="MB", target=target, ratio=ratio))
