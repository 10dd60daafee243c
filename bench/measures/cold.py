"""The very first start on a machine: no image, no compiled code."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from measures.report import Report

_START = (
    "import time, evocell\n"
    "begun = time.perf_counter()\n"
    "engine = evocell.Engine(progress=evocell.silent)\n"
    "print(time.perf_counter() - begun)\n"
    "engine.close()\n"
)
_TARGET_S = 300.0


def measure(report: Report) -> None:
    """Time the first start with an empty cache, in a process of its own.

    Args:
        report: Where the row goes.
    """
    with tempfile.TemporaryDirectory() as cache:
        ran = subprocess.run(
            [sys.executable, "-c", _START],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "EVOCELL_CACHE_DIR": cache},
        )
    report.times("engine: ready, nothing in the cache", [float(ran.stdout)], target_s=_TARGET_S)
