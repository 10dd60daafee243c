"""The very first start on a machine: no image, no compiled code."""

from __future__ import annotations

import tempfile

from measures.report import Report
from measures.starting import ready_s

_TARGET_S = 300.0


def measure(report: Report) -> None:
    """Time the first start with an empty cache, in a process of its own.

    Args:
        report: Where the row goes.
    """
    with tempfile.TemporaryDirectory() as cache:
        taken_s = ready_s({"EVOCELL_CACHE_DIR": cache})
    report.times("engine: ready, nothing in the cache", [taken_s], target_s=_TARGET_S)
