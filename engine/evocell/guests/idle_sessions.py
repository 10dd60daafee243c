"""What the sessions of one process take while nothing runs in them, and when there is no room for another."""

from __future__ import annotations

from typing import Generic, TypeVar

from evocell.guests.capacity import ASLEEP_BYTES, AWAKE_DESCRIPTORS, Capacity

__all__ = ["IdleSessions", "weight"]

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
