"""The events of a session as subscribers get them: numbered, kept for a while, and never in the way.

One bounded log serves everybody: a subscriber is a place in it. One that reads slowly, or comes back after
its connection broke, goes on from its place; what has left the log by then is counted as dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import trio
from attrs import frozen

from evocell.models.state import utc_now

__all__ = ["EventLog", "LoggedEvent", "plain_payload"]

_MAX_DEPTH = 8
_MAX_ITEMS = 256
_MAX_CHARS = 4096


@frozen
class LoggedEvent:
    """One event.

    Attributes:
        seq: Its number in the session, from 1, without gaps.
        type: What happened, such as ``"sandbox.create.stop"``.
        time: When, in ISO 8601.
        payload: What is known about it: ``measurements`` and ``metadata``.
    """

    seq: int
    type: str
    time: str
    payload: Mapping[str, Any]


class EventLog:
    """Keeps the latest events of a session. Used from the session's loop only.

    Args:
        size: How many it keeps.
    """

    def __init__(self, size: int) -> None:
        self._kept: deque[LoggedEvent] = deque(maxlen=size)
        self._more = trio.Event()
        self.last = 0
        """Number of the latest event; 0 if there was none."""

    def add(self, type_: str, payload: Mapping[str, Any]) -> None:
        """Number an event and keep it."""
        self.last += 1
        self._kept.append(LoggedEvent(self.last, type_, utc_now().isoformat(), payload))
        self._more.set()
        self._more = trio.Event()

    async def after(self, seq: int) -> tuple[Sequence[LoggedEvent], int]:
        """Wait until there are events after one.

        Args:
            seq: Its number.

        Returns:
            The events that are kept, in order, and how many before them have been dropped.
        """
        while self.last <= seq:
            await self._more.wait()
        first = self._kept[0].seq
        dropped = max(0, first - seq - 1)
        skip = max(0, seq + 1 - first)
        return [event for index, event in enumerate(self._kept) if index >= skip], dropped


def plain_payload(value: Any, depth: int = _MAX_DEPTH) -> Any:
    """Return what may travel of a value in an event: plain data, cut where it is long or deep."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value[:_MAX_CHARS]
    if depth and isinstance(value, Mapping):
        pairs = list(value.items())[:_MAX_ITEMS]
        return {str(key)[:_MAX_CHARS]: plain_payload(item, depth - 1) for key, item in pairs}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [plain_payload(item, depth - 1) for item in list(value)[:_MAX_ITEMS]]
    return str(value)[:_MAX_CHARS]
