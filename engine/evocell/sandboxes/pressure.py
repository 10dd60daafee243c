"""How much of the memory that this engine may use is taken."""

from __future__ import annotations

from pathlib import Path

import psutil

__all__ = ["memory_taken"]

_GROUP = Path("/sys/fs/cgroup")


def memory_taken(group: Path = _GROUP) -> float:
    """Return the part of the memory that is taken, from 0 to 1: of the machine's, or of its control group's.

    The one of the two that is fuller counts. Pages of files that can be dropped at once are not taken.

    Args:
        group: Where the kernel shows the control group.
    """
    machine = float(psutil.virtual_memory().percent) / 100
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    if not limit or used is None:
        return machine
    return max(machine, max(0, used - _droppable(group / "memory.stat")) / limit)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _droppable(file: Path) -> int:
    try:
        rows = dict(line.split() for line in file.read_text(encoding="ascii").splitlines())
        return int(rows.get("inactive_file", 0))
    except (OSError, ValueError):
        return 0
