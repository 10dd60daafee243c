"""Capacity of a worker for sessions, and accounting of idle sessions.

A resident session takes memory, mappings and descriptors of its process; a hibernated one takes some memory
only. So mappings and descriptors bound the resident sessions (further ones are hibernated, which costs some
milliseconds at their next call), and memory bounds all sessions (further ones are refused). `evocell doctor`
shows the same numbers.
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
"""Stands for an absent limit."""

AWAKE_SESSIONS = 256
"""Most resident sessions: more would take memory that hibernated sandboxes use better."""

CHOICE = "choice"
"""Names that constant as the bound on resident sessions."""

AWAKE_BYTES = 1_400_000
"""Private memory of a resident session. Source: `just bench`, 1.06 MB, and more while a call runs."""

AWAKE_MAPPINGS = 7
"""Memory mappings of a resident session. Source: `just bench`, 6, and one more while a call runs."""

AWAKE_DESCRIPTORS = 4
"""Descriptors of a resident session: one per mounted directory. Source: `just bench`."""

ASLEEP_BYTES = 32_768
"""Memory of a hibernated session without data of its own. Source: decision 7, 26 KB packed."""

_MEMORY_SHARE = 0.65
"""Share of a worker's memory for sessions; blobs, the interpreter and calls take the rest."""
_AWAKE_SHARE = 0.5
"""Share of that for resident sessions."""
_RESERVED_MAPPINGS = 2_000
_RESERVED_DESCRIPTORS = 800
"""Descriptors of the process itself and of calls under way, with up to 64 open files each."""

_MAX_MAP_COUNT = Path("/proc/sys/vm/max_map_count")


@frozen(kw_only=True)
class Resources:
    """Resource limits of a worker process.

    Attributes:
        memory_bytes: Private memory.
        descriptors: Descriptors; `UNLIMITED` if unbounded.
        mappings: Memory mappings; None if unknown.
    """

    memory_bytes: int
    descriptors: int
    mappings: int | None


@frozen(kw_only=True)
class Capacity:
    """Number of sessions one worker can hold.

    Attributes:
        awake: Most sessions kept resident.
        awake_bound: The resource that bounds them, such as ``"memory"``; `CHOICE` if it is `MOST_AWAKE`.
        hibernated_bytes: Memory for hibernated sessions.
    """

    awake: int
    awake_bound: str
    hibernated_bytes: int

    @property
    def sessions(self) -> int:
        """Most sessions, if none has much data of its own."""
        return self.awake + self.hibernated_bytes // ASLEEP_BYTES


def capacity(found: Resources) -> Capacity:
    """Return the capacity of a worker with the given resources."""
    memory = int(found.memory_bytes * _MEMORY_SHARE)
    bounds = {
        CHOICE: AWAKE_SESSIONS,
        "memory": int(memory * _AWAKE_SHARE) // AWAKE_BYTES,
        "open files (ulimit -n)": (found.descriptors - _RESERVED_DESCRIPTORS) // AWAKE_DESCRIPTORS,
    }
    if found.mappings is not None:
        bounds["vm.max_map_count"] = (found.mappings - _RESERVED_MAPPINGS) // AWAKE_MAPPINGS
    bound = min(bounds, key=bounds.__getitem__)
    awake = max(1, bounds[bound])  # at least one, to do anything at all
    return Capacity(awake=awake, awake_bound=bound, hibernated_bytes=max(0, memory - awake * AWAKE_BYTES))


def own_resources(memory_bytes: int) -> Resources:
    """Return the resources of this process.

    Args:
        memory_bytes: Private memory that it may hold.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Resources(
        memory_bytes=memory_bytes, descriptors=finite(soft), mappings=read_number(_MAX_MAP_COUNT)
    )


def raise_descriptor_limit() -> None:
    """Raise this process's soft limit of descriptors to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def finite(limit: int) -> int:
    """Convert the kernel's "no limit" into `UNLIMITED`."""
    return UNLIMITED if limit == resource.RLIM_INFINITY else limit


def read_number(file: Path) -> int | None:
    """Read a file that holds one integer; None if it is absent or holds anything else."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


S = TypeVar("S")


def weight(open_files: int) -> int:
    """Return a resident session's weight: with open files it may take the descriptors of several."""
    return 1 + -(-open_files // AWAKE_DESCRIPTORS)


class IdleSessions(Generic[S]):
    """Accounting of idle sessions: resident ones by weight, hibernated ones by bytes.

    Args:
        capacity: The worker's capacity.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._awake: dict[S, int] = {}  # least recently used first
        self._bound: dict[S, int] = {}  # resident, pinned by open files
        self._hibernated: dict[S, int] = {}
        self._awake_weight = 0
        self._asleep_bytes = 0

    def rest(self, session: S, weight: int) -> None:
        """Record a session as just used and resident."""
        self.leave(session)
        self._awake[session] = weight
        self._awake_weight += weight

    def stay(self, session: S) -> None:
        """Record that a resident session cannot be hibernated."""
        found = self._awake.pop(session, None)
        if found is not None:
            self._bound[session] = found

    def sleep(self, session: S, held_bytes: int) -> None:
        """Record a session as hibernated, with its size."""
        self.leave(session)
        self._hibernated[session] = max(held_bytes, ASLEEP_BYTES)
        self._asleep_bytes += self._hibernated[session]

    def leave(self, session: S) -> None:
        """Record that a session is in use or was dropped; idempotent."""
        self._awake_weight -= self._awake.pop(session, 0) + self._bound.pop(session, 0)
        self._asleep_bytes -= self._hibernated.pop(session, 0)

    def surplus(self, most: int) -> list[S]:
        """Return the sessions to hibernate so that resident weight is at most `most`; least recent first."""
        over = self._awake_weight - most
        found: list[S] = []
        for session, weighs in self._awake.items():
            if over <= 0:
                break
            found.append(session)
            over -= weighs
        return found

    def refusal(self) -> str | None:
        """Return why there is no room for another session; None if there is room."""
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
