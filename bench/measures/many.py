"""Very many sandboxes that all keep state, and that each answer twice."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import evocell
from measures.machine import private_bytes
from measures.report import Report, Row, timed

_SOURCE = "count = 0\ndef bump():\n    global count\n    count += 1\n    return count\n"
_CALLERS = 8
_TARGET_BYTES = 2e9


def measure(report: Report, sessions: int) -> None:
    """Give many sandboxes a session, call each twice, and weigh them all.

    Args:
        report: Where the rows go.
        sessions: How many sandboxes.
    """
    config = evocell.Config.load(workers=2, default_max_processes=sessions)
    taken_s: list[float] = []
    with evocell.Engine(config) as engine:
        made = engine.batch_create([evocell.SandboxSpec(source=_SOURCE) for _ in range(sessions)])
        for expected in (1, 2):
            answers = timed(taken_s, _bump, engine, made)
            assert answers == [expected] * sessions, "a session lost its state"
        weight = private_bytes()
    rates = [sessions / round_s for round_s in taken_s]
    report.add(Row(name=f"{sessions:,} sessions, 2 workers: calls", samples=rates, unit="1/s"))
    report.add(
        Row(
            name=f"{sessions:,} sessions, 2 workers: memory",
            samples=[weight],
            unit="MB",
            target=_TARGET_BYTES,
        )
    )


def _bump(engine: evocell.Engine, sandboxes: Sequence[evocell.Sandbox]) -> list[object]:
    with ThreadPoolExecutor(_CALLERS) as callers:
        return list(callers.map(lambda sandbox: engine.run(sandbox, "bump").unwrap(), sandboxes))
