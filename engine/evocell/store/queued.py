"""What waits for the writer of a store: changes, marks of those who wait for them, and what may be lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeAlias

from attrs import define, field

__all__ = ["LATER_S", "LaterWrites", "Once", "Ticket", "Write"]

LATER_S = 0.5
"""Seconds of rest after which the writer takes the writes that no caller waits for."""

LATER_BYTES = 1 << 20
"""Bytes of such writes beyond which they are committed behind the next commit."""

MOST_LATER_BYTES = 16 << 20
"""Bytes of such writes that may wait; further ones are dropped."""

Write: TypeAlias = Callable[[sqlite3.Connection], object]
"""Changes the database inside the writer's transaction; it is called again if that was rolled back."""


@define(eq=False)
class Ticket:
    """A mark in the queue of writes; it is answered once the writes before it were committed or failed.

    Attributes:
        done: Called, in the thread that committed them, with the answer in the fields below.
        since: The value of `Store.losses` from which losses are reported to this ticket; None for the
            failures that no earlier ticket reported.
        failures: Why writes were lost, a sentence each.
        trouble: Why writes are not committed yet; empty if all are.
    """

    done: Callable[[], None]
    since: int | None = None
    failures: list[str] = field(factory=list)
    trouble: str = ""


@define(eq=False)
class Once:
    """A write that is not retried: its caller waits, and gets the error."""

    write: Write

    def __call__(self, connection: sqlite3.Connection) -> object:
        """Make the change."""
        return self.write(connection)


@define(eq=False)
class LaterWrites:
    """Writes that no caller waits for, bounded in bytes. Not thread-safe.

    Attributes:
        is_due: Whether they are to be committed now.
    """

    is_due: bool = False
    _writes: list[Write] = field(factory=list)
    _n_bytes: int = 0

    def __len__(self) -> int:
        return len(self._writes)

    @property
    def are_many(self) -> bool:
        """Whether there are so many bytes of them that they are to be committed soon."""
        return self._n_bytes > LATER_BYTES

    def add(self, write: Write, n_bytes: int) -> bool:
        """Add one, unless there are too many; return whether it is the first."""
        if self._n_bytes + n_bytes > MOST_LATER_BYTES:
            return False
        self._writes.append(write)
        self._n_bytes += n_bytes
        return len(self._writes) == 1

    def take(self) -> list[Write]:
        """Return them, and begin anew."""
        writes, self._writes = self._writes, []
        self._n_bytes, self.is_due = 0, False
        return writes
