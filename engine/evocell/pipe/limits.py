"""Limits and timeouts that one end of a pipe imposes on the other."""

from __future__ import annotations

from attrs import frozen

from evocell.wire.frames import FrameLimits

__all__ = ["GREETING_LIMITS", "PROTOCOL", "PipeLimits"]

PROTOCOL = 1
"""Version of the protocol. It changes when a client written for the one before could misunderstand."""

GREETING_LIMITS = FrameLimits(max_bytes=64 << 10, max_items=256, max_depth=8)
"""What a message may be before both ends have said hello."""


@frozen(kw_only=True)
class PipeLimits:
    """Limits that a server imposes on one client.

    The client learns all but ``hello_s`` and ``max_waiting`` at the handshake.

    Attributes:
        max_frame_bytes: Length of one message, in either direction.
        max_items: Values in one message, all levels together.
        max_depth: Containers around one another in a message, the message itself included.
        max_in_flight: Requests of a client that wait for an answer; one more is refused as ``Busy``.
        max_in_flight_bytes: Bytes of the messages that these requests came in.
        max_asking: Requests under way that lend functions which are asked from threads: all but ``fitness``
            and ``progress``. One more is refused as ``Busy``.
        max_queued_events: Events that wait for a subscriber; the oldest are dropped, and counted.
        max_unsent_bytes: Bytes of messages that a client has not read. While there are more, nothing is read
            from it, and its results wait.
        hello_s: Seconds in which a client must say hello.
        max_waiting: Connections that have not said hello yet. When one more comes, the one that has waited
            longest is closed, so that idle ones keep none out.
        stall_s: Seconds in which a client that has something to read must read 64 KiB of it, or all.
        detach_s: Seconds that a detached session waits to be attached again.
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
        """What one message may be, after the handshake."""
        return FrameLimits(max_bytes=self.max_frame_bytes, max_items=self.max_items, max_depth=self.max_depth)
