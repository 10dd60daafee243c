"""How many runs a node is given, and how many at a time: by how long they have taken lately."""

from __future__ import annotations

__all__ = ["Pace"]

AHEAD_S = 0.1
"""Work that a guest process should have before it, in seconds: more than a message takes to and fro."""

FEWEST, MOST = 2, 64
"""Runs for each guest process, the one at work included."""

FIRST = 4
"""The same as long as nothing is known."""

LINGER_S = 0.03
"""How long a node that has enough to do is not sent a batch that could be larger, if runs are short."""

LONG_S = 0.02
"""Runs that take longer than this do not wait for others: what a message costs is little beside them."""

_SMOOTHING = 0.1
_OWN_S = 0.0005
"""What a node takes for a run beside the guest's own time, in seconds."""


class Pace:
    """What is known of the runs of one node.

    Args:
        processes: Guest processes of the node.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._typical_s: float | None = None

    def saw(self, ran_s: float) -> None:
        """Take note of how long a run took, in seconds."""
        took = ran_s + _OWN_S
        known = self._typical_s
        self._typical_s = took if known is None else known + _SMOOTHING * (took - known)

    @property
    def window(self) -> int:
        """How many runs the node should have, at work and waiting."""
        if self._typical_s is None:
            return FIRST * self._processes
        ahead = 1 + int(AHEAD_S / self._typical_s)
        return self._processes * max(FEWEST, min(MOST, ahead))

    @property
    def batch(self) -> int:
        """How many of them should travel together: half, so that the node has the others meanwhile."""
        return max(1, self.window // 2)

    @property
    def enough(self) -> int:
        """How many runs keep the node busy while further ones wait to travel together."""
        return max(self._processes, self.window // 4)

    @property
    def linger_s(self) -> float:
        """How long after a batch a node that has enough to do should get no small one, in seconds."""
        return 0.0 if self._typical_s is None or self._typical_s > LONG_S else LINGER_S
