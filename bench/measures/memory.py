"""What a sandbox weighs, as unique set size: memory that nothing else shares."""

from __future__ import annotations

import gc

import evocell
from measures.baseline import Baseline
from measures.machine import private_bytes
from measures.report import Report, Row

_SOURCE = "def solve(n):\n    return n * n\n"
_RECORDS = 2_000
_LIVE = 200


def measure(report: Report, baseline: Baseline, engine: evocell.Engine) -> None:
    """Weigh sandboxes that are only records, and ones that hold an instance after a call.

    Args:
        report: Where the rows go.
        baseline: What they are compared with.
        engine: An engine that has nothing else to do.
    """
    specs = [evocell.SandboxSpec(source=_SOURCE) for _ in range(_RECORDS)]
    before = _weigh()
    made = engine.batch_create(specs)
    idle = (_weigh() - before) / _RECORDS
    before = _weigh()
    for sandbox in made[:_LIVE]:
        engine.run(sandbox, "solve", args=(3,)).unwrap()
    live = (_weigh() - before) / _LIVE
    engine.batch_destroy(made)
    _add(report, baseline, f"memory each: idle, of {_RECORDS:,}", idle)
    _add(report, baseline, f"memory each: live after one call, of {_LIVE}", live, 1e6)


def _weigh() -> int:
    gc.collect()
    return private_bytes()


def _add(report: Report, baseline: Baseline, name: str, weight: float, target: float | None = None) -> None:
    ratio = baseline.memory_bytes / weight if weight > 0 else None
    report.add(Row(name=name, samples=[weight], unit="MB", target=target, ratio=ratio))
