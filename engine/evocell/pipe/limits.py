"""Limits and timeouts that one end of a pipe imposes on the other."""

from __future__ import annotations

from attrs import frozen

from evocell.wire.frames import FrameLimits

__all__ = ["GREETING_LIMITS", "PROTOCOL", "PipeLimits"]

PROTOCOL = 1
"""Version of the protocol. It changes when clients of the previous version could misinterpret messages."""

GREETING_LIMITS = FrameLimits(max_bytes=64 << 10, max_items=256, max_depth=8)
"""Limits of a message before the handshake."""


@frozen(kw_only=True)
class PipeLimits:
    """Limits that a server imposes on one client.

    All but ``hello_s`` and ``max_waiting`` are sent to the client in the handshake.

    Attributes:
        max_frame_bytes: Length of one message, in either direction.
        max_items: Values in one message, on all levels together.
        max_depth: Nested containers in a message, including the message itself.
        max_in_flight: Unanswered requests of a client; a further one is refused as ``Busy``.
        max_in_flight_bytes: Bytes of the messages of these requests.
        max_asking: Requests under way with functions that are called from threads: all but ``fitness`` and
            ``progress``. A further one is refused as ``Busy``.
        max_queued_events: Events that wait for a subscriber; the oldest are dropped, and counted.
        max_unsent_bytes: Bytes of messages that a client has not read. While they are exceeded, nothing is
            read from it, and its results wait.
        hello_s: Seconds in which a client must say hello.
        max_waiting: Connections before their hello. For a further one, the longest waiting connection is
            closed, so that idle connections cannot block new ones.
        stall_s: Seconds in which a client with unread messages must read 64 KiB of them, or all.
        detach_s: Seconds for which a detached session waits to be resumed.
    """

    max_frame_bytes: int = 64 << 20
    max_items: int = 500_000
    max_depth: int = 144
    max_in_flight: int = 1024
    max_in_flight_bytes: int = 256 << 20
    max_asking: int = 32
    max_queued_events: int = 10_000
    max_unsent_bytes: int = 8 << 20
    hello_s: float = 10.0
    max_waiting: int = 32
    stall_s: float = 30.0
    detach_s: float = 3600.0

    @property
    def frames(self) -> FrameLimits:
        """Limits of one message after the handshake."""
        return FrameLimits(max_bytes=self.max_frame_bytes, max_items=self.max_items, max_depth=self.max_depth)
