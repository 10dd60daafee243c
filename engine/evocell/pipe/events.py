"""Events as a client gets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

__all__ = ["ReceivedEvent"]


@frozen
class ReceivedEvent:
    """An event of an engine behind a pipe.

    Attributes:
        seq: Its number in the session, from 1; what to resume after.
        at: When, in seconds since 1970.
        name: What happened, such as ``"sandbox.create.stop"``.
        measurements: Numbers by name, with their units in the names.
        metadata: What else is known.
        dropped: How many of the subscription's events before this one are lost, because the client was too
            slow or came back too late.
    """

    seq: int
    at: float
    name: str
    measurements: Mapping[str, float] = field(factory=dict)
    metadata: Mapping[str, Any] = field(factory=dict)
    dropped: int = 0
