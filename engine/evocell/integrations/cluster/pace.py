"""Flow control of a node: window and batch size, from recent durations of requests."""

from __future__ import annotations

import math
from collections import deque

from evocell.workers.worker_process import LONG_AHEAD, SHORT_AHEAD

__all__ = ["Pace"]

AHEAD_S = 0.4
"""Seconds of work to queue per guest process; beside half of it, which is a batch, a message costs little."""

FEWEST, MOST = 2, 64
"""Bounds on requests per guest process, including the one being run."""

FIRST = 4
"""Requests per guest process before any measurement."""

LINGER_S = 0.03
"""Most seconds for which a busy node's next batch of short requests is held back to grow."""

LONG_S = 0.02
"""Requests longer than this are not held back: the cost of a message is negligible beside them."""

PREFETCH_S = 0.2
"""Requests longer than this are given to a guest process once it has ended the one before, and until then
they can go to another node."""

RECENT = 16
"""Requests whose durations count: the next evaluation may have requests of another kind."""

_OWN_S = 0.0005
"""A node's overhead per request beside the guest's time, in seconds."""


class Pace:
    """Statistics of one node's requests.

    Args:
        processes: Guest processes of the node.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._recent: deque[float] = deque(maxlen=RECENT)

    def saw(self, ran_s: float) -> None:
        """Record the duration of a request, in seconds."""
        self._recent.append(ran_s + _OWN_S)

    @property
    def _typical_s(self) -> float | None:
        return sum(self._recent) / len(self._recent) if self._recent else None

    @property
    def at_once(self) -> int:
        """Number of requests to give to the processes: one each to run, and more if they are short."""
        typical_s = self._typical_s
        if typical_s is None or typical_s < LONG_S:
            return SHORT_AHEAD * self.processes
        return (LONG_AHEAD if typical_s < PREFETCH_S else 1) * self.processes

    @property
    def window(self) -> int:
        """Number of requests that the node should have, running and queued."""
        typical_s = self._typical_s
        if typical_s is None:
            return FIRST * self.processes
        ahead = 1 + int(AHEAD_S / typical_s)
        return self.processes * max(FEWEST, min(MOST, ahead))

    @property
    def batch(self) -> int:
        """Number of requests per batch: half of the window, so that the node works on the other half."""
        return max(1, self.window // 2)

    def hold_s(self, in_flight: int) -> float:
        """Return the seconds for which a small batch may wait to grow: half of the node's work in flight."""
        typical_s = self._typical_s
        if typical_s is None or typical_s > LONG_S:
            return 0.0
        return min(LINGER_S, in_flight * typical_s / self.processes / 2)

    def left_s(self, in_flight: int) -> float:
        """Return the seconds that the node takes for requests in flight; infinite if it has not run any."""
        typical_s = self._typical_s
        return math.inf if typical_s is None else in_flight * typical_s / self.processes
