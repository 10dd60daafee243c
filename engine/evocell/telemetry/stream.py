"""The event stream: numbered events for subscribers, who can resume it, and for the log on disk.

An event is packed once. A subscriber has a queue bounded in length and bytes; when it is full its oldest
event is dropped and counted. A slow subscriber misses events; it neither slows the engine nor fills memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Self

import msgpack
import trio
from attrs import frozen

from evocell.errors import ConfigurationError
from evocell.models.references import Completable
from evocell.telemetry.event_log import EventLog, read_events
from evocell.telemetry.events import Telemetry, TelemetryEvent

__all__ = ["EventStream", "StreamedEvent", "Subscription", "unpack_event"]

HANDLER_ID = "evocell.stream"
"""Id of the stream's handler in the engine's telemetry."""

KEPT = 10_000
"""Most events kept in memory for resuming subscribers."""

KEPT_BYTES = 16 << 20
"""Most bytes of these events, and of each subscriber's queue."""

CAPACITY = 1_000
"""Default capacity of a subscriber's queue, in events."""

MAX_CAPACITY = 1_000_000


@frozen
class StreamedEvent:
    """An event on its way to subscribers.

    Attributes:
        seq: Its number, from 1, without gaps in the whole stream.
        at: When, in seconds since 1970.
        name: Its name.
        packed: A msgpack map with ``seq``, ``at``, ``name``, ``measurements`` and ``metadata``.
    """

    seq: int
    at: float
    name: str
    packed: bytes

    @property
    def event(self) -> TelemetryEvent:
        """The event itself."""
        return unpack_event(self.packed)[1]


class Subscription:
    """A subscription to the stream, made by `EventStream.subscribe`; thread-safe.

    Attributes:
        missed: Events after the number it resumed from that were no longer kept.
    """

    def __init__(self, stream: EventStream, prefix: str, capacity: int) -> None:
        self.missed = 0
        self._stream = stream
        self._prefix = prefix
        self._capacity = capacity
        self._changed = threading.Condition()
        self._replay: Iterator[StreamedEvent] = iter(())
        self._queue: deque[StreamedEvent] = deque()
        self._bytes = 0
        self._dropped = 0
        self._closed = False
        self._waiters: list[tuple[trio.lowlevel.TrioToken, trio.Event]] = []

    @property
    def dropped(self) -> int:
        """Number of events dropped because its queue was full."""
        return self._dropped

    @property
    def closed(self) -> bool:
        """Whether no more events will arrive."""
        return self._closed

    def take(self, most: int = 100) -> list[StreamedEvent]:
        """Return at most `most` next events without waiting; may be empty."""
        with self._changed:
            taken = list(islice(self._replay, most))
            while self._queue and len(taken) < most:
                event = self._queue.popleft()
                self._bytes -= len(event.packed)
                taken.append(event)
            return taken

    def get(self, timeout_s: float | None = None, most: int = 100) -> list[StreamedEvent]:
        """Return the next events, blocking until there is one.

        Args:
            timeout_s: Timeout in seconds; None for no timeout.
            most: Most events.

        Returns:
            Events; empty after the timeout or if the subscription is closed.
        """
        ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            taken = self.take(most)
            if taken or self._closed:
                return taken
            with self._changed:
                left = None if ends_at is None else ends_at - time.monotonic()
                if left is not None and left <= 0:
                    return []
                if not self._queue:
                    self._changed.wait(left)

    async def wait(self) -> None:
        """Wait, in a trio loop, until `take` has something to return or the subscription is closed.

        Cancellation: Nothing is lost.
        """
        while True:
            with self._changed:
                head = next(self._replay, None)
                if head is not None:
                    self._replay = chain((head,), self._replay)
                if head is not None or self._queue or self._closed:
                    break
                event = trio.Event()
                self._waiters.append((trio.lowlevel.current_trio_token(), event))
            await event.wait()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """End the subscription; queued events can still be taken. Idempotent."""
        self._stream.unsubscribe(self)
        with self._changed:
            self._closed = True
            self._wake()

    def __enter__(self) -> Self:
        """Return the subscription itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def start_from(self, replay: Iterator[StreamedEvent], missed: int) -> None:
        """Prepend the replayed events."""
        self.missed = missed
        self._replay = replay

    def wants(self, name: str) -> bool:
        """Return whether an event is under its prefix."""
        prefix = self._prefix
        return not prefix or name == prefix or (name.startswith(prefix) and name[len(prefix)] == ".")

    def offer(self, event: StreamedEvent) -> None:
        """Put an event into the queue; drop the oldest ones if it is full."""
        with self._changed:
            self._queue.append(event)
            self._bytes += len(event.packed)
            while len(self._queue) > self._capacity or self._bytes > KEPT_BYTES:
                self._bytes -= len(self._queue.popleft().packed)
                self._dropped += 1
            self._wake()

    def _wake(self) -> None:
        self._changed.notify_all()
        waiters, self._waiters = self._waiters, []
        for token, event in waiters:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(event.set)


class EventStream(Completable):
    """Numbers an engine's events and delivers them to subscribers; thread-safe.

    Numbering starts with the first subscription, or at once if there is a log.

    Args:
        telemetry: The source of the events.
        log: The log they are also written to; None for none.
    """

    def __init__(self, telemetry: Telemetry, log: EventLog | None = None) -> None:
        self._telemetry = telemetry
        self._log = log
        self._lock = threading.Lock()
        self._kept: deque[StreamedEvent] = deque()
        self._kept_bytes = 0
        self._last = 0
        self._subscriptions: tuple[Subscription, ...] = ()
        self._begun = False
        self._closed = False
        if log is not None:
            self._begin()

    @property
    def last_seq(self) -> int:
        """The number of the latest event; 0 before the first."""
        return self._last

    def subscribe(
        self, prefix: str = "", *, after: int | None = None, capacity: int = CAPACITY
    ) -> Subscription:
        """Subscribe to the events under a prefix, from now on or after a given number.

        Args:
            prefix: As in `Telemetry.attach`.
            after: The last number seen; later events are replayed as far as they are kept, and
                `Subscription.missed` counts the others. None for events from now on.
            capacity: Events its queue holds, 1 to 1,000,000; when it is full the oldest is dropped.

        Raises:
            ConfigurationError: An argument is invalid, or `after` is beyond the last event, for example a
                number from another engine.
        """
        _check_subscription(prefix, after, capacity)
        subscription = Subscription(self, prefix, capacity)
        with self._lock:
            self._begin()
            if after is not None:
                if after > self._last:
                    raise ConfigurationError(
                        f"after is {after}, and the last event of this engine has the number {self._last}; "
                        "another engine must have given it out",
                        "after",
                    )
                subscription.start_from(*self._replay(subscription, after))
            self._subscriptions = (*self._subscriptions, subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        with self._lock:
            self._subscriptions = tuple(one for one in self._subscriptions if one is not subscription)

    def close(self) -> None:
        """End all subscriptions and the log; idempotent."""
        self._telemetry.detach(HANDLER_ID)
        for subscription in self._subscriptions:
            subscription.close()
        with self._lock:
            if self._log is not None and not self._closed:
                self._log.close()
            self._closed = True

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._telemetry.attach(HANDLER_ID, "", self._receive)

    def _receive(self, event: TelemetryEvent) -> None:
        with self._lock:
            if self._closed:
                return
            seq = self._last + 1
            streamed = StreamedEvent(seq, event.at, event.name, _pack(seq, event))
            self._last = seq
            self._kept.append(streamed)
            self._kept_bytes += len(streamed.packed)
            while len(self._kept) > KEPT or self._kept_bytes > KEPT_BYTES:
                self._kept_bytes -= len(self._kept.popleft().packed)
            if self._log is not None:
                self._log.append(streamed.packed)
            for subscription in self._subscriptions:
                if subscription.wants(event.name):
                    subscription.offer(streamed)

    def _replay(self, subscription: Subscription, after: int) -> tuple[Iterator[StreamedEvent], int]:
        """Return the retained events after a number, and the number of missing ones, as far as known."""
        kept = [one for one in self._kept if one.seq > after]
        first_kept = kept[0].seq if kept else self._last + 1
        logged: Iterator[StreamedEvent] = iter(())
        missed = first_kept - 1 - after
        if self._log is not None and missed:
            begins = {path: seq for path in self._log.files() if (seq := _first_seq(path)) is not None}
            earlier = [path for path, seq in begins.items() if seq <= after + 1]
            wanted = list(begins)[max(0, len(earlier) - 1) :]
            if wanted:
                missed = max(0, begins[wanted[0]] - 1 - after)
                logged = _logged(subscription, wanted, after + 1 + missed, first_kept)
        return (one for one in chain(logged, kept) if subscription.wants(one.name)), missed


def _first_seq(path: Path) -> int | None:
    """Return the number of the first event of a file; None if the file is empty."""
    try:
        packed = next(read_events(path), None)
    except OSError:
        return None
    return None if packed is None else unpack_event(packed)[0]


def _logged(
    subscription: Subscription, files: Sequence[Path], first: int, end: int
) -> Iterator[StreamedEvent]:
    """Read the events of a half-open range of numbers; returns also the number of missing ones."""
    for path in files:
        with suppress(FileNotFoundError):
            for packed in read_events(path):
                streamed = _streamed(packed)
                if first <= streamed.seq < end:
                    subscription.missed += streamed.seq - first
                    first = streamed.seq + 1
                    yield streamed
    subscription.missed += end - first


def unpack_event(packed: bytes) -> tuple[int, TelemetryEvent]:
    """Return the number and the event of a msgpack map of the stream.

    Raises:
        ValueError: It is not an event of the stream.
    """
    try:
        found = msgpack.unpackb(packed)
        metadata = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in found["metadata"].items()
        }
        event = TelemetryEvent(found["name"], found["measurements"], metadata, found["at"])
        return int(found["seq"]), event
    except (msgpack.UnpackException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no event: {error}") from error


def _streamed(packed: bytes) -> StreamedEvent:
    seq, event = unpack_event(packed)
    return StreamedEvent(seq, event.at, event.name, packed)


def _pack(seq: int, event: TelemetryEvent) -> bytes:
    packed: bytes = msgpack.packb(
        {
            "seq": seq,
            "at": event.at,
            "name": event.name,
            "measurements": dict(event.measurements),
            "metadata": dict(event.metadata),
        },
        unicode_errors="backslashreplace",
        default=repr,
    )
    return packed


def _check_subscription(prefix: object, after: object, capacity: object) -> None:
    if not isinstance(prefix, str) or prefix.endswith("."):
        raise ConfigurationError(f'prefix must be whole words of a name, or "", not {prefix!r}', "prefix")
    if after is not None and (isinstance(after, bool) or not isinstance(after, int) or after < 0):
        raise ConfigurationError(f"after must be the number of an event, not {after!r}", "after")
    if isinstance(capacity, bool) or not isinstance(capacity, int) or not 0 < capacity <= MAX_CAPACITY:
        raise ConfigurationError(
            f"capacity must be a number of events from 1 to {MAX_CAPACITY:,}, not {capacity!r}", "capacity"
        )
