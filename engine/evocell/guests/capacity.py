"""How many sandboxes can keep state in one worker at once, and what bounds them.

A session that is ready to run takes memory, mappings and descriptors of its process; one that is put aside
takes some memory only. So mappings and descriptors bound how many are kept ready (further ones are put aside,
which costs them some milliseconds at their next call), and memory bounds how many there can be at all (more
are refused). `evocell doctor` shows the same numbers.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from attrs import frozen

__all__ = [
    "ASLEEP_BYTES",
    "AWAKE_SESSIONS",
    "CHOICE",
    "UNLIMITED",
    "Capacity",
    "Resources",
    "capacity",
    "finite",
    "own_resources",
    "raise_descriptor_limit",
    "read_number",
]

UNLIMITED = sys.maxsize
"""Stands for a limit that is not set."""

AWAKE_SESSIONS = 256
"""Sessions that are kept ready at most: more would take memory that sandboxes put aside use better."""

CHOICE = "choice"
"""Names that number as what bounds the sessions that are ready."""

AWAKE_BYTES = 1_400_000
"""Memory of its own of a session that is ready. Source: `just bench`, 1.06 MB, and more while a call runs."""

AWAKE_MAPPINGS = 7
"""Memory mappings of a session that is ready. Source: `just bench`, 6, and one more while a call runs."""

AWAKE_DESCRIPTORS = 4
"""Descriptors of a session that is ready: one for each directory it is given. Source: `just bench`."""

ASLEEP_BYTES = 32_768
"""Memory of a session that is put aside and has no data of its own. Source: decision 7, 26 KB packed."""

_MEMORY_SHARE = 0.65
"""The part of a worker's memory that sessions may take; blobs, the interpreter and calls take the rest."""
_AWAKE_SHARE = 0.5
"""The part of that which may go to those that are ready."""
_RESERVED_MAPPINGS = 2_000
_RESERVED_DESCRIPTORS = 800
"""What the process itself and the calls under way take, with up to 64 open files each."""

_MAX_MAP_COUNT = Path("/proc/sys/vm/max_map_count")


@frozen(kw_only=True)
class Resources:
    """What a worker process may take.

    Attributes:
        memory_bytes: Memory of its own.
        descriptors: Descriptors; `UNLIMITED` if nothing bounds them.
        mappings: Memory mappings; None where the system does not say.
    """

    memory_bytes: int
    descriptors: int
    mappings: int | None


@frozen(kw_only=True)
class Capacity:
    """How many sandboxes can keep state in one worker.

    Attributes:
        awake: How many of them are kept ready at most.
        awake_bound: What bounds these, such as ``"memory"``; `CHOICE` if they are as many as shall be.
        hibernated_bytes: Memory for those that are put aside.
    """

    awake: int
    awake_bound: str
    hibernated_bytes: int

    @property
    def sessions(self) -> int:
        """How many there can be, if none has much data of its own."""
        return self.awake + self.hibernated_bytes // ASLEEP_BYTES


def capacity(found: Resources) -> Capacity:
    """Work out how many sandboxes can keep state in a worker that may take so much."""
    memory = int(found.memory_bytes * _MEMORY_SHARE)
    bounds = {
        CHOICE: AWAKE_SESSIONS,
        "memory": int(memory * _AWAKE_SHARE) // AWAKE_BYTES,
        "open files (ulimit -n)": (found.descriptors - _RESERVED_DESCRIPTORS) // AWAKE_DESCRIPTORS,
    }
    if found.mappings is not None:
        bounds["vm.max_map_count"] = (found.mappings - _RESERVED_MAPPINGS) // AWAKE_MAPPINGS
    bound = min(bounds, key=bounds.__getitem__)
    awake = max(1, bounds[bound])  # one is needed to do anything at all
    return Capacity(awake=awake, awake_bound=bound, hibernated_bytes=max(0, memory - awake * AWAKE_BYTES))


def own_resources(memory_bytes: int) -> Resources:
    """Find what this process may take.

    Args:
        memory_bytes: Memory of its own that it may hold.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Resources(
        memory_bytes=memory_bytes, descriptors=finite(soft), mappings=read_number(_MAX_MAP_COUNT)
    )


def raise_descriptor_limit() -> None:
    """Let this process have as many descriptors as it may give itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def finite(limit: int) -> int:
    """Turn the kernel's word for "no limit" into a number larger than any other."""
    return UNLIMITED if limit == resource.RLIM_INFINITY else limit


def read_number(file: Path) -> int | None:
    """Read a file that holds one whole number; None if it is absent or says something else."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
