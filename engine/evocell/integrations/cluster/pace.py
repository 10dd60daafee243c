"""Flow control of a node: window and batch size, from recent durations of requests."""

from __future__ import annotations

__all__ = ["Pace"]

AHEAD_S = 0.1
"""Seconds of work to queue per guest process: more than a round trip."""

FEWEST, MOST = 2, 64
"""Bounds on requests per guest process, including the one being run."""

FIRST = 4
"""Requests per guest process before any measurement."""

LINGER_S = 0.03
"""Most seconds for which a busy node's next batch of short requests is held back to grow."""

LONG_S = 0.02
"""Requests longer than this are not held back: the cost of a message is negligible beside them."""

_SMOOTHING = 0.1
_OWN_S = 0.0005
"""A node's overhead per request beside the guest's time, in seconds."""


class Pace:
    """Statistics of one node's requests.

    Args:
        processes: Guest processes of the node.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._typical_s: float | None = None

    def saw(self, ran_s: float) -> None:
        """Record the duration of a request, in seconds."""
        took = ran_s + _OWN_S
        known = self._typical_s
        self._typical_s = took if known is None else known + _SMOOTHING * (took - known)

    @property
    def window(self) -> int:
        """Number of requests that the node should have, running and queued."""
        if self._typical_s is None:
            return FIRST * self._processes
        ahead = 1 + int(AHEAD_S / self._typical_s)
        return self._processes * max(FEWEST, min(MOST, ahead))

    @property
    def batch(self) -> int:
        """Number of requests per batch: half of the window, so that the node works on the other half."""
        return max(1, self.window // 2)

    def hold_s(self, in_flight: int) -> float:
        """Return the seconds for which a small batch may wait to grow: half of the node's work in flight."""
        if self._typical_s is None or self._typical_s > LONG_S:
            return 0.0
        return min(LINGER_S, in_flight * self._typical_s / self._processes / 2)
