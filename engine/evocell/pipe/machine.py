"""Sans-I/O protocol state machine of one end of a pipe: bytes in, events out; calls in, bytes out.

A connection begins with the client's request ``hello`` and is open once the server has answered it. From then
on either end may send requests, responses and notifications. A violation raises `ProtocolError`, after which
the machine accepts no input: its owner sends the bytes that `close` returns, and ends the connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import count
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

from evocell.errors import EvocellError, ProtocolError
from evocell.pipe import errors
from evocell.pipe.codec import MessageEncoder, TypeOptions, message_reader
from evocell.pipe.limits import GREETING_LIMITS, PipeLimits
from evocell.wire.frames import FrameLimits, Framing, Message, Notification, Request, Response

__all__ = [
    "CANCEL",
    "CLOSING",
    "HELLO",
    "Answered",
    "Event",
    "Greeted",
    "Machine",
    "NotificationReceived",
    "Phase",
    "Reading",
    "Refused",
    "RequestReceived",
    "RequestWithdrawn",
]

HELLO = "hello"
CANCEL = "cancel"
CLOSING = "closing"

_MSGIDS = 1 << 32


class Phase(Enum):
    """The phase of a connection."""

    GREETING = "greeting"
    OPEN = "open"
    CLOSED = "closed"


@frozen
class Greeted:
    """A client says hello; the server answers with `Machine.accept` or closes."""

    msgid: int
    params: Mapping[str, Any] = field(repr=False)


@frozen
class RequestReceived:
    """A request to be answered."""

    msgid: int
    method: str
    params: Mapping[str, Any] = field(repr=False)


@frozen
class Refused:
    """A request over a limit, to be answered with the error."""

    msgid: int
    error: EvocellError


@frozen
class RequestWithdrawn:
    """A request was withdrawn by its sender; it must still be answered, usually as cancelled."""

    msgid: int


@frozen
class Answered:
    """A request of this end was answered; `error` is None on success."""

    msgid: int
    error: EvocellError | None
    result: Any = field(default=None, repr=False)


@frozen
class NotificationReceived:
    """A notification."""

    method: str
    params: Mapping[str, Any] = field(repr=False)


@frozen
class Reading:
    """Messages found in received bytes.

    Attributes:
        messages: Each message with its length in bytes.
        error: The fault of the bytes after them, or None.
    """

    messages: tuple[tuple[Message, int], ...]
    error: ProtocolError | None = None


Event: TypeAlias = Greeted | RequestReceived | Refused | RequestWithdrawn | Answered | NotificationReceived


class Machine:
    """The state machine of one end of a connection.

    Attributes:
        phase: The phase of the connection.

    Args:
        role: The role of this end.
        limits: Limits of incoming messages, once the connection is open.
        framing: How messages follow one another.
    """

    def __init__(
        self,
        role: Literal["server", "client"],
        limits: PipeLimits | None = None,
        *,
        framing: Framing = "stream",
    ) -> None:
        self.limits = limits or PipeLimits()
        self.phase = Phase.GREETING
        self._role = role
        first = GREETING_LIMITS if role == "server" else self.limits.frames
        self._reader = message_reader(first, framing)
        self._encoder = MessageEncoder(self.limits.frames, framing)
        self._ids = count(1)
        self._asked: dict[int, int] = {}
        self._asked_bytes = 0
        self._refused: set[int] = set()
        self._waiting: set[int] = set()
        self._broken: ProtocolError | None = None

    @property
    def in_flight(self) -> int:
        """Unanswered requests of the other end."""
        return len(self._asked)

    @property
    def waiting(self) -> int:
        """Unanswered requests of this end."""
        return len(self._waiting)

    @property
    def pending_bytes(self) -> int:
        """Bytes held of an incomplete message."""
        return self._reader.pending_bytes

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take received bytes; yields the events they contain, one by one.

        Raises:
            ProtocolError: The other end violated the protocol. Earlier events have been yielded.
        """
        found = self.read(data)
        for message, n_bytes in found.messages:
            yield self.take(message, n_bytes)
        if found.error is not None:
            raise found.error

    def read(self, data: bytes) -> Reading:
        """Parse messages from bytes, the first half of `receive`. It may run in a thread.

        Returns:
            The messages, for `take`, and the fault of the rest.
        """
        if self.phase is Phase.CLOSED:
            return Reading((), self._broken)
        messages: list[tuple[Message, int]] = []
        try:
            messages.extend((message, self._reader.message_bytes) for message in self._reader.feed(data))
        except ProtocolError as error:
            return Reading(tuple(messages), error)
        return Reading(tuple(messages))

    def take(self, message: Message, n_bytes: int) -> Event:
        """Turn a message into its event, the second half of `receive`.

        Raises:
            ProtocolError: The other end broke a rule.
        """
        if self._broken is not None:
            raise self._broken
        try:
            return self._event(message, n_bytes)
        except ProtocolError as error:
            self._broken = error
            raise

    def receive_end(self) -> None:
        """Record the end of the received bytes.

        Raises:
            ProtocolError: They ended inside a message.
        """
        if self._broken is None and self._reader.pending_bytes:
            self._broken = ProtocolError(
                f"the stream ended inside a message, after {self._reader.pending_bytes:,} bytes of it"
            )
            raise self._broken

    def accept(self, msgid: int, result: Mapping[str, Any], types: TypeOptions) -> bytes:
        """Answer a hello; the connection is open.

        Args:
            msgid: The hello's.
            result: The answer for the client.
            types: The client's forms.
        """
        data = self.respond(msgid, dict(result))
        self._open(self.limits.frames, types)
        return data

    def request(self, method: str, params: Mapping[str, Any]) -> tuple[int, bytes]:
        """Send a request.

        Returns:
            The id of the expected answer, and the bytes to send.

        Raises:
            ProtocolError: The request cannot be sent: this end is at fault.
        """
        msgid = self.reserve()
        try:
            return msgid, self.encode(Request(msgid, method, dict(params)))
        except ProtocolError:
            self.release(msgid)
            raise

    def reserve(self) -> int:
        """Allocate an id for a request of this end, whose answer is expected from now on."""
        msgid = next(self._ids) % _MSGIDS
        while msgid in self._waiting:
            msgid = next(self._ids) % _MSGIDS
        self._waiting.add(msgid)
        return msgid

    def release(self, msgid: int) -> None:
        """Release an id for which nothing was sent."""
        self._waiting.discard(msgid)

    def encode(self, message: Message) -> bytes:
        """Return the bytes of a message; it may run in a thread.

        Raises:
            ProtocolError: It has no encoding, or exceeds the other end's limit.
        """
        return self._encoder.encode(message)

    def respond(self, msgid: int, result: Any) -> bytes:
        """Answer a request of the other end.

        Raises:
            ProtocolError: The answer has no encoding; `fail` can still be used.
        """
        data = self.encode(Response(msgid, None, result))
        self.settle(msgid)
        return data

    def fail(self, msgid: int, error: EvocellError) -> bytes:
        """Answer a request of the other end with an error."""
        data = self._encoder.encode(Response(msgid, errors.to_wire(error)))
        self.settle(msgid)
        return data

    def notify(self, method: str, params: Mapping[str, Any]) -> bytes:
        """Send a notification.

        Raises:
            ProtocolError: It has no encoding: this end is at fault.
        """
        return self._encoder.encode(Notification(method, dict(params)))

    def cancel(self, msgid: int) -> bytes:
        """Withdraw a request of this end; it will still be answered."""
        return self.notify(CANCEL, {"msgid": msgid})

    def close(self, reason: EvocellError) -> bytes:
        """Close the connection; returns the bytes that give the other end the reason."""
        self.phase = Phase.CLOSED
        return self._encoder.encode(Notification(CLOSING, errors.to_wire(reason)))

    def _event(self, message: Message, n_bytes: int) -> Event:
        match message:
            case Request(msgid, method, params):
                return self._request(msgid, method, params, n_bytes)
            case Response(msgid, error, result):
                return self._response(msgid, error, result)
            case Notification(method, params):
                return self._notification(method, params)

    def _request(self, msgid: int, method: str, params: Mapping[str, Any], n_bytes: int) -> Event:
        if msgid in self._asked or msgid in self._refused:
            raise ProtocolError(f"the request id {msgid} is in use by a request that is not answered yet")
        if self.phase is Phase.GREETING:
            if self._role == "client" or method != HELLO:
                raise ProtocolError(f"the first message must be the request {HELLO!r}, not {method!r}")
            if self._asked:
                raise ProtocolError("nothing may follow a hello before it is answered")
            self._count(msgid, n_bytes)
            return Greeted(msgid, params)
        if method == HELLO:
            raise ProtocolError("a connection has one hello")
        limits = self.limits
        if len(self._asked) >= limits.max_in_flight:
            return self._refuse(msgid, "requests", limits.max_in_flight)
        if self._asked and self._asked_bytes + n_bytes > limits.max_in_flight_bytes:
            return self._refuse(msgid, "bytes of requests", limits.max_in_flight_bytes)
        self._count(msgid, n_bytes)
        return RequestReceived(msgid, method, params)

    def _count(self, msgid: int, n_bytes: int) -> None:
        self._asked[msgid] = n_bytes
        self._asked_bytes += n_bytes

    def _refuse(self, msgid: int, what: str, limit: int) -> Refused:
        if len(self._refused) >= self.limits.max_in_flight:
            raise ProtocolError("requests keep coming although they are refused as Busy")
        self._refused.add(msgid)
        sentence = f"{limit:,} {what} wait for an answer, and no more may; send it again later"
        return Refused(msgid, errors.Busy(sentence, limit))

    def _response(self, msgid: int, error: Mapping[str, Any] | None, result: Any) -> Event:
        if msgid not in self._waiting:
            raise ProtocolError(f"there is no request {msgid} that waits for an answer")
        self._waiting.discard(msgid)
        if self.phase is Phase.GREETING and error is None:
            self._open(self.limits.frames, None)
        return Answered(msgid, None if error is None else errors.from_wire(error), result)

    def _notification(self, method: str, params: Mapping[str, Any]) -> Event:
        if self.phase is Phase.GREETING and self._role == "server":
            raise ProtocolError(f"the first message must be the request {HELLO!r}, not {method!r}")
        if method == CANCEL:
            msgid = params.get("msgid")
            if not isinstance(msgid, int) or isinstance(msgid, bool):
                raise ProtocolError(f"{CANCEL} needs the id of a request as 'msgid'")
            return RequestWithdrawn(msgid)
        return NotificationReceived(method, params)

    def _open(self, frames: FrameLimits, types: TypeOptions | None) -> None:
        self.phase = Phase.OPEN
        self._reader.limits = frames
        if types is not None:
            self._encoder.types = types

    def settle(self, msgid: int) -> None:
        """Record that a request of the other end was answered.

        Raises:
            ProtocolError: There is no such request: this end is at fault.
        """
        if msgid in self._refused:
            self._refused.discard(msgid)
            return
        if msgid not in self._asked:
            raise ProtocolError(f"there is no request {msgid} to be answered: this end is at fault")
        self._asked_bytes -= self._asked.pop(msgid)
