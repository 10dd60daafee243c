"""What the numbers were taken on, and how much memory is the engine's own."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

_CPU = Path("/proc/cpuinfo")


def private_bytes() -> int:
    """Return the memory that only this process and its children have: the sum of their unique set sizes."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    rollups = "".join(Path(f"/proc/{member.pid}/smaps_rollup").read_text() for member in family)
    return 1024 * sum(map(int, re.findall(r"^Private_\w+: +(\d+) kB$", rollups, re.MULTILINE)))


def describe(image_id: str) -> dict[str, str]:
    """Describe the machine, the versions and the load, for the head of the report.

    Args:
        image_id: The image that was measured.
    """
    model = re.search(r"^model name\s*: (.*)$", _CPU.read_text(), re.MULTILINE) if _CPU.exists() else None
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{len(os.sched_getaffinity(0))} cores, {model[1] if model else platform.machine()}",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "evocell": f"{version('evocell')}, wasmtime {version('wasmtime')}, image {image_id[:12]}",
        "load before": "{:.2f} in the last minute, {:.2f} in five".format(*os.getloadavg()),
    }
