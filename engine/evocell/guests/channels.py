"""Channels between the processes of one call: queues of messages, bounded in number and in bytes."""

from __future__ import annotations

from collections import deque

from attrs import frozen

from evocell.guests.questions import Receive, Refused, Send

__all__ = ["Channels", "Message"]

MOST_CHANNELS = 10_000

MESSAGE_BYTES = 64
"""Overhead counted for a message in transit, in addition to its contents."""

_UNKNOWN = Refused("stranger", "there is no such channel")


@frozen
class Message:
    """A message in transit.

    Attributes:
        sent_ns: The sender's virtual time when it was sent.
        data: Its contents, bytes of a guest.
    """

    sent_ns: int
    data: bytes


class Channels:
    """The channels of one call, by domain.

    A process uses those of its domain only. A copy has the domain of its original, a fresh process its own.

    Args:
        most_bytes: Most bytes of all messages in transit, with their overhead.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._queues: dict[tuple[int, int], deque[Message]] = {}
        self._last = 0
        self._held_bytes = 0

    def open(self, domain: int) -> int | Refused:
        """Open a channel in a domain, and return its number."""
        if len(self._queues) >= MOST_CHANNELS:
            return Refused("full", f"there are {MOST_CHANNELS:,} channels already")
        self._last += 1
        self._queues[domain, self._last] = deque()
        return self._last

    def size(self, domain: int, channel: int) -> int | Refused:
        """Return the number of messages in a channel."""
        queue = self._queues.get((domain, channel))
        return _UNKNOWN if queue is None else len(queue)

    def send(self, domain: int, question: Send, at_ns: int) -> Refused | None:
        """Put a message into a channel; None if that was done."""
        queue = self._queues.get((domain, question.channel))
        if queue is None:
            return _UNKNOWN
        if self._held_bytes + len(question.data) + MESSAGE_BYTES > self._most_bytes:
            return Refused("full", f"messages on their way take {self._most_bytes:,} bytes at the most")
        queue.append(Message(at_ns, question.data))
        self._held_bytes += len(question.data) + MESSAGE_BYTES
        return None

    def receive(self, domain: int, question: Receive, until_ns: int | None) -> Message | Refused | None:
        """Return the first message of a channel, and remove it if the question takes it.

        Args:
            domain: The receiver's domain.
            question: The question.
            until_ns: The virtual time by which it must have been sent; None for any.

        Returns:
            None if there is none yet.
        """
        queue = self._queues.get((domain, question.channel))
        if queue is None:
            return _UNKNOWN
        if not queue or (until_ns is not None and queue[0].sent_ns > until_ns):
            return None
        message = queue[0]
        if question.takes:
            queue.popleft()
            self._held_bytes -= len(message.data) + MESSAGE_BYTES
        return message
