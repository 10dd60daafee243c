"""What a sandbox weighs, as unique set size: memory that nothing else shares."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import evocell
from evocell.guests.capacity import AWAKE_SESSIONS
from measures.baseline import Baseline
from measures.machine import private_bytes
from measures.report import Report, Row

_SOURCE = "def solve(n):\n    return n * n\n"
_RECORDS = 2_000
_READY = 200
_ASIDE = 200
assert _READY <= AWAKE_SESSIONS


def measure(report: Report, baseline: Baseline) -> None:
    """Weigh sandboxes that are only records, and ones with a session that has run one call.

    One worker holds them all, so that it is known which of the sessions it keeps ready.

    Args:
        report: Where the rows go.
        baseline: What they are compared with.
    """
    with evocell.Engine(evocell.Config.load(workers=1)) as engine:
        # The first ones bring what all share, and give back what starting the engine took.
        engine.batch_create([evocell.SandboxSpec(source=_SOURCE) for _ in range(_RECORDS)])
        before = _weigh()
        made = engine.batch_create([evocell.SandboxSpec(source=_SOURCE) for _ in range(_RECORDS)])
        idle = (_weigh() - before) / _RECORDS
        _add(report, baseline, f"memory each: a record, of {_RECORDS:,}", idle)
        ready = _growth(engine, made[:_READY])
        _add(report, baseline, f"memory each: a session kept ready, of {_READY}", ready, 1e6)
        # Beyond that each that comes puts another aside. It takes about as many again until the worker's heap
        # has settled; the first one also brings the image that all differ from.
        full = AWAKE_SESSIONS * 5 // 2
        _growth(engine, made[_READY:full])
        aside = _growth(engine, made[full : full + _ASIDE])
        _add(report, baseline, f"memory each: a session put aside, of {_ASIDE}", aside)


def _growth(engine: evocell.Engine, sandboxes: Sequence[evocell.Sandbox]) -> float:
    """Call each sandbox once; returns the bytes by which that made the engine grow, for each of them."""
    before = _weigh()
    for sandbox in sandboxes:
        engine.run(sandbox, "solve", args=(3,)).unwrap()
    return (_weigh() - before) / max(1, len(sandboxes))


def _weigh() -> int:
    gc.collect()
    return private_bytes()


def _add(report: Report, baseline: Baseline, name: str, weight: float, target: float | None = None) -> None:
    ratio = baseline.memory_bytes / weight if weight > 0 else None
    report.add(Row(name=name, samples=[weight], unit="MB", target=target, ratio=ratio))
