"""How many sandboxes one worker can hold, and the accounting of those that are idle.

A session that is ready to run takes memory, mappings and descriptors of its process; one that is put aside
takes some memory only. So mappings and descriptors bound how many are kept ready (further ones are put aside,
which costs them some milliseconds at their next call), and memory bounds how many there can be at all (more
are refused). `evocell doctor` shows the same numbers.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Generic, TypeVar

from attrs import frozen

__all__ = [
    "ASLEEP_BYTES",
    "AWAKE_SESSIONS",
    "CHOICE",
    "UNLIMITED",
    "Capacity",
    "IdleSessions",
    "Resources",
    "capacity",
    "finite",
    "own_resources",
    "raise_descriptor_limit",
    "read_number",
    "weight",
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


S = TypeVar("S")


def weight(open_files: int) -> int:
    """What a session that is ready counts for: with its open files it may take the descriptors of several."""
    return 1 + -(-open_files // AWAKE_DESCRIPTORS)


class IdleSessions(Generic[S]):
    """Counts sessions at rest: ready ones by weight, those put aside by bytes.

    Args:
        capacity: How many there is room for.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._awake: dict[S, int] = {}  # the one idle longest first
        self._bound: dict[S, int] = {}  # ready, and cannot be put aside
        self._hibernated: dict[S, int] = {}
        self._awake_weight = 0
        self._asleep_bytes = 0

    def rest(self, session: S, weight: int) -> None:
        """Note that a session has just been used and is ready."""
        self.leave(session)
        self._awake[session] = weight
        self._awake_weight += weight

    def stay(self, session: S) -> None:
        """Note that a ready session cannot be put aside."""
        found = self._awake.pop(session, None)
        if found is not None:
            self._bound[session] = found

    def sleep(self, session: S, held_bytes: int) -> None:
        """Note that a session is put aside, and what it takes."""
        self.leave(session)
        self._hibernated[session] = max(held_bytes, ASLEEP_BYTES)
        self._asleep_bytes += self._hibernated[session]

    def leave(self, session: S) -> None:
        """Note that a session is in use, or gone; idempotent."""
        self._awake_weight -= self._awake.pop(session, 0) + self._bound.pop(session, 0)
        self._asleep_bytes -= self._hibernated.pop(session, 0)

    def surplus(self, most: int) -> list[S]:
        """The sessions to put aside so that no more than a weight of `most` is ready; idle longest first."""
        over = self._awake_weight - most
        found: list[S] = []
        for session, weighs in self._awake.items():
            if over <= 0:
                break
            found.append(session)
            over -= weighs
        return found

    def refusal(self) -> str | None:
        """Say why there is no room for another session; None if there is."""
        most = self.capacity.awake
        bound = sum(self._bound.values())
        if bound >= most:
            return (
                f"{len(self._bound):,} sandboxes have files open, so that they cannot be put aside, and the "
                f"descriptors and mappings are enough for {most:,}"
            )
        full = self._asleep_bytes + ASLEEP_BYTES > self.capacity.hibernated_bytes
        if full and self._awake_weight >= most:
            return (
                f"{len(self._awake) + len(self._bound) + len(self._hibernated):,} sandboxes keep state, "
                f"of which {len(self._hibernated):,} are put aside and take {self._asleep_bytes:,} bytes of "
                f"{self.capacity.hibernated_bytes:,}"
            )
        return None
