"""What people do today: a Python process of its own for each candidate."""

from __future__ import annotations

import subprocess
import sys

from attrs import frozen

from measures.report import Report, Row, repeat

_CALL = "def solve(n): return n * n\nprint(solve(3))"
_UNIQUE = (
    "import re\n"
    "print(sum(map(int, re.findall(r'Private_\\w+: +(\\d+)', open('/proc/self/smaps_rollup').read()))))"
)
_REPEATS = 30


@frozen
class Baseline:
    """A process that imports numpy and calls a function: what one costs.

    Attributes:
        call_s: Seconds from start to end, the median.
        memory_bytes: Its unique set size after the call.
    """

    call_s: float
    memory_bytes: float


def measure(report: Report) -> Baseline:
    """Time subprocesses with and without numpy, and weigh one."""
    report.add(
        Row(name="subprocess: python, call, end", samples=repeat(lambda: _run(_CALL), report.share(_REPEATS)))
    )
    with_numpy = report.add(
        Row(
            name="subprocess: python, import numpy, call, end (the baseline)",
            samples=repeat(lambda: _run(f"import numpy\n{_CALL}"), report.share(_REPEATS)),
            ratio=1.0,
        )
    )
    weighed = [
        1024.0 * int(_run(f"import numpy\n{_CALL}\n{_UNIQUE}").split()[-1]) for _ in range(report.share(6))
    ]
    memory = report.add(Row(name="subprocess with numpy: memory", samples=weighed, unit="MB", ratio=1.0))
    return Baseline(with_numpy.median, memory.median)


def _run(program: str) -> str:
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return ran.stdout
