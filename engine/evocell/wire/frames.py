"""Sans-I/O MessagePack-RPC: bytes in, messages out; messages in, bytes out.

Workers and other programs speak the same three messages, as the MessagePack-RPC specification has them:
a request `[0, msgid, method, params]`, a response `[1, msgid, error, result]` and a notification
`[2, method, params]`. Messages are delimited by their structure only, so a reader parses the structure as
bytes arrive, and enforces the limits before a message is complete.

Messages are plain data. Extension types are refused, so a sender cannot choose what is constructed, unless
the reader has a decoder that knows (and checks) some.

In a packet framing (as used by Erlang's ports) each message is preceded by its length: four bytes,
big-endian; see `PacketReader`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import msgpack
from attrs import field, frozen

from evocell.errors import ProtocolError
from evocell.wire.headers import (
    ARRAY_LENGTH,
    BLOB_LENGTH,
    EXT_LENGTH,
    FIXED_EXT,
    MAP_LENGTH,
    SCALAR_BYTES,
)

__all__ = [
    "FrameLimits",
    "FrameReader",
    "Framing",
    "Message",
    "Notification",
    "PacketReader",
    "Request",
    "Response",
    "encode_message",
    "frame_of",
    "in_packet",
    "open_reader",
    "pack",
]

Framing: TypeAlias = Literal["stream", "packet4"]
"""Framing: messages back to back, or each preceded by its length in four bytes."""

MAX_METHOD_CHARS = 64
_SHORT_BYTES = 2048
# The one extension type that msgpack decodes by itself; its code, -1, follows one of these bytes.
_TIMESTAMP = re.compile(rb"[\x04\x08\x0c\xd6\xd7]\xff")
_NO_CONTAINERS = bytes(byte for byte in range(256) if not (0x80 <= byte < 0xA0 or 0xDC <= byte < 0xE0))
PACKET_HEADER_BYTES = 4
_MAX_MSGID = (1 << 32) - 1


@frozen(kw_only=True)
class FrameLimits:
    """Bounds of one message.

    Attributes:
        max_bytes: Most bytes.
        max_items: Most values, on all levels together.
        max_depth: Most nested containers, including the message itself.
    """

    max_bytes: int = 64 << 20
    max_items: int = 100_000
    max_depth: int = 16


@frozen
class Request:
    """A request; the `Response` with the same id answers it.

    Attributes:
        msgid: Chosen by the sender, 32 bits, not in use.
        method: Name of the method.
        params: Arguments by name.
    """

    msgid: int
    method: str
    params: dict[str, Any] = field(factory=dict, repr=False)


@frozen
class Response:
    """The answer to a request.

    Attributes:
        msgid: The request's.
        error: None, or a map that describes the failure.
        result: The answer, if there is no error.
    """

    msgid: int
    error: dict[str, Any] | None
    result: Any = field(default=None, repr=False)


@frozen
class Notification:
    """A notification; it has no answer.

    Attributes:
        method: Name of the notification.
        params: Its details by name.
    """

    method: str
    params: dict[str, Any] = field(factory=dict, repr=False)


Message = Request | Response | Notification

_BUFFER_BYTES = 4096


def pack(plain: object) -> bytes:
    """Return plain data as MessagePack.

    The encoder's buffer begins small and grows. By default it is so large that each of them is mapped and
    unmapped, with a page fault, where the allocator has a fixed threshold, as in workers.
    """
    data: bytes = msgpack.packb(plain, buf_size=_BUFFER_BYTES)
    return data


def encode_message(message: Message) -> bytes:
    """Encode a message.

    Raises:
        TypeError: It contains something other than plain data.
    """
    return pack(frame_of(message))


def frame_of(message: Message) -> list[Any]:
    """Return the list that represents a message on the wire."""
    match message:
        case Request(msgid, method, params):
            return [0, msgid, method, [params]]
        case Response(msgid, error, result):
            return [1, msgid, error, result]
        case Notification(method, params):
            return [2, method, [params]]


def in_packet(data: bytes) -> bytes:
    """Return a message preceded by its length."""
    return len(data).to_bytes(PACKET_HEADER_BYTES, "big") + data


def _plain(raw: bytes) -> Any:
    return msgpack.unpackb(raw, strict_map_key=True, use_list=True)


class FrameReader:
    """Parses messages from a stream of bytes.

    No messages follow a `ProtocolError`: the stream is out of sync.

    Args:
        limits: Bounds of one message.
        decode: Decodes a complete message, and must enforce the limits on the contents of extension
            types. None for plain data, where extension types are refused.
    """

    def __init__(
        self, limits: FrameLimits | None = None, *, decode: Callable[[bytes], Any] | None = None
    ) -> None:
        self.limits = limits or FrameLimits()
        """Bounds of the next message; may be changed between two messages."""
        self._decode = decode or _plain
        self._extensions = decode is not None
        self._buffer = bytearray()
        self._broken: ProtocolError | None = None
        self.message_bytes = 0
        """Length of the last returned message."""
        self._begin()

    def _begin(self) -> None:
        self._position = 0
        self._items = 1
        self._left = [1]

    @property
    def pending_bytes(self) -> int:
        """Bytes held of an incomplete message."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes; yields the messages that they complete, one by one.

        Raises:
            ProtocolError: The stream is malformed or a message is over a limit. Earlier messages have been
                yielded.
        """
        if self._broken is not None:
            raise self._broken
        self._buffer += data
        try:
            while True:
                if (short := self._short()) is not None:
                    yield short
                    continue
                if not self._whole():
                    break
                raw = bytes(self._buffer[: self._position])
                del self._buffer[: self._position]
                self._begin()
                self.message_bytes = len(raw)
                yield _message(raw, self._decode)
            if len(self._buffer) > self.limits.max_bytes:
                self._refuse(f"it is longer than {self.limits.max_bytes:,} bytes")
        except ProtocolError as error:
            self._broken = error
            raise

    def _short(self) -> Message | None:
        """Read a short message of plain data in one step; None for anything else.

        A message this short cannot exceed a limit, except on depth, and need not be parsed value by value.
        Announced lengths are bounded before memory is allocated.
        """
        limits = self.limits
        if self._position or not self._buffer or min(limits.max_bytes, limits.max_items) < _SHORT_BYTES:
            return None
        unpacker = msgpack.Unpacker(strict_map_key=True, ext_hook=_no_extension, max_buffer_size=_SHORT_BYTES)
        unpacker.feed(self._buffer[:_SHORT_BYTES])
        try:
            frame = unpacker.unpack()
        except (msgpack.UnpackException, ValueError, TypeError):
            return None  # incomplete, long, not plain, or malformed: the general path tells which
        size = unpacker.tell()
        raw = bytes(self._buffer[:size])
        if len(raw.translate(None, _NO_CONTAINERS)) > limits.max_depth or _TIMESTAMP.search(raw):
            return None
        message = _as_message(frame)
        del self._buffer[:size]
        self.message_bytes = size
        return message

    def _whole(self) -> bool:
        """Parse the structure as far as the bytes go; return whether the first message is complete."""
        buffer, left = self._buffer, self._left
        while left:
            if left[-1] == 0:
                left.pop()
                continue
            if self._position >= len(buffer):
                return False
            step = self._step(buffer[self._position])
            if step is None:
                return False
            size, children = step
            if self._position + size > self.limits.max_bytes:
                self._refuse(f"it is longer than {self.limits.max_bytes:,} bytes")
            if children < 0 and self._position + size > len(buffer):
                return False
            self._position += size
            left[-1] -= 1
            if children > 0:
                self._enter(children)
        return True

    def _step(self, first: int) -> tuple[int, int] | None:
        """Return a value's own length and number of children (-1: none); None if more bytes are needed."""
        if first < 0x80 or first >= 0xE0:
            return 1, -1
        if first < 0x90:
            return 1, 2 * (first & 0x0F)
        if first < 0xA0:
            return 1, first & 0x0F
        if first < 0xC0:
            return 1 + (first & 0x1F), -1
        if (size := SCALAR_BYTES.get(first)) is not None:
            return 1 + size, -1
        for widths, factor in ((BLOB_LENGTH, 0), (ARRAY_LENGTH, 1), (MAP_LENGTH, 2)):
            if (width := widths.get(first)) is not None:
                start = self._position + 1
                if start + width > len(self._buffer):
                    return None
                number = int.from_bytes(self._buffer[start : start + width], "big")
                return (1 + width, factor * number) if factor else (1 + width + number, -1)
        if self._extensions:
            if (size := FIXED_EXT.get(first)) is not None:
                return 2 + size, -1
            if (width := EXT_LENGTH.get(first)) is not None:
                start = self._position + 1
                if start + width > len(self._buffer):
                    return None
                number = int.from_bytes(self._buffer[start : start + width], "big")
                return 2 + width + number, -1
        self._refuse(f"0x{first:02x} begins no value that may be in a message")
        return None

    def _enter(self, children: int) -> None:
        self._items += children
        if self._items > self.limits.max_items:
            self._refuse(f"it holds more than {self.limits.max_items:,} values")
        if len(self._left) > self.limits.max_depth:
            self._refuse(f"it is nested deeper than {self.limits.max_depth} levels")
        self._left.append(children)

    def _refuse(self, why: str) -> None:
        raise ProtocolError(f"a malformed message: {why}")


class PacketReader(FrameReader):
    """Parses messages from a stream of packets: one message each, preceded by its length."""

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes; yields the messages that they complete; see `FrameReader.feed`."""
        if self._broken is not None:
            raise self._broken
        self._buffer += data
        try:
            while (raw := self._packet()) is not None:
                yield self._only_message(raw)
        except ProtocolError as error:
            self._broken = error
            raise

    def _packet(self) -> bytes | None:
        if len(self._buffer) < PACKET_HEADER_BYTES:
            return None
        end = PACKET_HEADER_BYTES + int.from_bytes(self._buffer[:PACKET_HEADER_BYTES], "big")
        if end - PACKET_HEADER_BYTES > self.limits.max_bytes:
            self._refuse(f"it is longer than {self.limits.max_bytes:,} bytes")
        if len(self._buffer) < end:
            return None
        raw = bytes(self._buffer[PACKET_HEADER_BYTES:end])
        del self._buffer[:end]
        return raw

    def _only_message(self, raw: bytes) -> Message:
        whole = FrameReader(self.limits, decode=self._decode if self._extensions else None)
        found = list(whole.feed(raw))
        if len(found) != 1 or whole.pending_bytes:
            self._refuse("a packet must hold exactly one message")
        self.message_bytes = len(raw)
        return found[0]


def open_reader(
    framing: Framing, limits: FrameLimits, decode: Callable[[bytes], Any] | None = None
) -> FrameReader:
    """Make the reader of a framing."""
    kind = PacketReader if framing == "packet4" else FrameReader
    return kind(limits, decode=decode)


def _no_extension(code: int, _: bytes) -> None:
    raise ValueError(f"extension type {code}")


def _message(raw: bytes, decode: Callable[[bytes], Any]) -> Message:
    try:
        frame = decode(raw)
    except ProtocolError:
        raise
    except (ValueError, TypeError, UnicodeDecodeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a malformed message: {error}") from error
    return _as_message(frame)


def _as_message(frame: Any) -> Message:
    match frame:
        case [0, int(msgid), str(method), [dict(params)]] if _sound(msgid, method, params):
            return Request(msgid, method, params)
        case [1, int(msgid), None, result] if 0 <= msgid <= _MAX_MSGID:
            return Response(msgid, None, result)
        case [1, int(msgid), dict(failure), _] if 0 <= msgid <= _MAX_MSGID:
            return Response(msgid, failure)
        case [2, str(method), [dict(params)]] if _sound(0, method, params):
            return Notification(method, params)
        case _:
            raise ProtocolError(
                "a malformed message: it is none of [0, msgid, method, [params]], [1, msgid, error, result] "
                "and [2, method, [params]]"
            )


def _sound(msgid: int, method: str, params: dict[Any, Any]) -> bool:
    return (
        0 <= msgid <= _MAX_MSGID
        and len(method) <= MAX_METHOD_CHARS
        and all(isinstance(name, str) for name in params)
    )
