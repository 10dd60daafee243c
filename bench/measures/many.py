"""What sandboxes weigh that all keep state, from one to ten thousand, and how fast they answer.

Each number of them is weighed in a process of its own, so that nothing else is on the scales.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import evocell
from measures.machine import private_bytes
from measures.report import Report, Row, timed

_SOURCE = "count = 0\ndef bump():\n    global count\n    count += 1\n    return count\n"
_CALLERS = 8
_TARGET_BYTES = 2e9
_TARGET_SESSIONS = 10_000


def measure(report: Report, sessions: int) -> None:
    """Give many sandboxes a session, call each twice, and weigh them all.

    Args:
        report: Where the rows go.
        sessions: How many sandboxes.
    """
    command = [sys.executable, "-c", "import sys; from measures import many; many.main(int(sys.argv[1]))"]
    ran = subprocess.run(
        [*command, str(sessions)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    seen = json.loads(ran.stdout)
    name = f"{sessions:,} live {'sandbox' if sessions == 1 else 'sandboxes'} with state, 2 workers"
    target = _TARGET_BYTES if sessions >= _TARGET_SESSIONS else None
    report.rates(f"{name}: calls", [sessions / round_s for round_s in seen["taken_s"]])
    report.add(
        Row(name=f"{name}: memory each", samples=[(seen["whole"] - seen["before"]) / sessions], unit="MB")
    )
    report.add(
        Row(name=f"{name}: memory, engine included", samples=[seen["whole"]], unit="MB", target=target)
    )


def main(sessions: int) -> None:
    """Do it in this process, and print what was seen as JSON."""
    config = evocell.Config.load(workers=2, default_max_processes=max(100, sessions))
    taken_s: list[float] = []
    with evocell.Engine(config) as engine:
        # Both workers have answered before anything is weighed.
        warm = engine.batch_create([evocell.SandboxSpec(source=_SOURCE)] * 4)
        _bump(engine, warm)
        engine.batch_destroy(warm)
        before = private_bytes()
        made = engine.batch_create([evocell.SandboxSpec(source=_SOURCE) for _ in range(sessions)])
        for expected in (1, 2):
            answers = timed(taken_s, _bump, engine, made)
            assert answers == [expected] * sessions, "a session lost its state"
        print(json.dumps({"taken_s": taken_s, "before": before, "whole": private_bytes()}))


def _bump(engine: evocell.Engine, sandboxes: Sequence[evocell.Sandbox]) -> list[object]:
    with ThreadPoolExecutor(_CALLERS) as callers:
        return list(callers.map(lambda sandbox: engine.run(sandbox, "bump").unwrap(), sandboxes))
