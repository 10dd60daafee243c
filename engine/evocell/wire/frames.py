"""MessagePack-RPC without any I/O: bytes in, messages out; messages in, bytes out.

Workers and other programs speak the same three messages, as the MessagePack-RPC specification has them:
a request `[0, msgid, method, params]`, a response `[1, msgid, error, result]` and a notification
`[2, method, params]`. Nothing delimits them but their own structure, so a reader follows that
structure as bytes arrive, and holds every message to its limits before it is whole.

What comes through is plain data: no extension types, so nothing is built that a sender chose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
from attrs import field, frozen

from evocell.errors import ProtocolError

__all__ = ["FrameLimits", "FrameReader", "Message", "Notification", "Request", "Response", "encode_message"]

_MAX_METHOD_CHARS = 64
_MAX_MSGID = (1 << 32) - 1

# First byte -> bytes of a scalar after it, bytes of a length after it, or (array, map) header width.
_SCALAR = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_SCALAR |= {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_BLOB = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAY = {0xDC: 2, 0xDD: 4}
_MAP = {0xDE: 2, 0xDF: 4}


@frozen(kw_only=True)
class FrameLimits:
    """What one message may be.

    Attributes:
        max_bytes: Its length.
        max_items: Values in it, all levels together.
        max_depth: Containers around one another, the message itself included.
    """

    max_bytes: int = 64 << 20
    max_items: int = 100_000
    max_depth: int = 16


@frozen
class Request:
    """Asks for something; a `Response` with the same id answers.

    Attributes:
        msgid: Chosen by the sender, 32 bits, not in use.
        method: What is asked for.
        params: Arguments by name.
    """

    msgid: int
    method: str
    params: dict[str, Any] = field(factory=dict, repr=False)


@frozen
class Response:
    """Answers a request.

    Attributes:
        msgid: The request's.
        error: None, or a map that says what went wrong.
        result: The answer, if there is no error.
    """

    msgid: int
    error: dict[str, Any] | None
    result: Any = field(default=None, repr=False)


@frozen
class Notification:
    """Tells something; nothing answers.

    Attributes:
        method: What is told.
        params: Its details by name.
    """

    method: str
    params: dict[str, Any] = field(factory=dict, repr=False)


Message = Request | Response | Notification


def encode_message(message: Message) -> bytes:
    """The bytes of a message.

    Raises:
        TypeError: It holds something that is not plain data.
    """
    match message:
        case Request(msgid, method, params):
            frame: list[Any] = [0, msgid, method, [params]]
        case Response(msgid, error, result):
            frame = [1, msgid, error, result]
        case Notification(method, params):
            frame = [2, method, [params]]
    data: bytes = msgpack.packb(frame)
    return data


class FrameReader:
    """Finds messages in a stream of bytes.

    After a `ProtocolError` the stream has no more messages: whoever sent it is out of step.

    Args:
        limits: What one message may be.
    """

    def __init__(self, limits: FrameLimits | None = None) -> None:
        self._limits = limits or FrameLimits()
        self._buffer = bytearray()
        self._broken: ProtocolError | None = None
        self._begin()

    def _begin(self) -> None:
        self._position = 0
        self._items = 1
        self._left = [1]

    @property
    def pending_bytes(self) -> int:
        """Bytes held of a message that is not whole."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes in; hands out the messages that they complete, one by one.

        Raises:
            ProtocolError: The stream is malformed or a message is over a limit. What came before it has
                been handed out.
        """
        if self._broken is not None:
            raise self._broken
        self._buffer += data
        try:
            while self._whole():
                raw = bytes(self._buffer[: self._position])
                del self._buffer[: self._position]
                self._begin()
                yield _message(raw)
            if len(self._buffer) > self._limits.max_bytes:
                self._refuse(f"it is longer than {self._limits.max_bytes:,} bytes")
        except ProtocolError as error:
            self._broken = error
            raise

    def _whole(self) -> bool:
        """Follow the structure as far as the bytes go; whether the message at the front is complete."""
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
            if self._position + size > self._limits.max_bytes:
                self._refuse(f"it is longer than {self._limits.max_bytes:,} bytes")
            if children < 0 and self._position + size > len(buffer):
                return False
            self._position += size
            left[-1] -= 1
            if children > 0:
                self._enter(children)
        return True

    def _step(self, first: int) -> tuple[int, int] | None:
        """Length of the value's own bytes and its number of children (-1: none); None if more is needed."""
        if first < 0x80 or first >= 0xE0:
            return 1, -1
        if first < 0x90:
            return 1, 2 * (first & 0x0F)
        if first < 0xA0:
            return 1, first & 0x0F
        if first < 0xC0:
            return 1 + (first & 0x1F), -1
        if (size := _SCALAR.get(first)) is not None:
            return 1 + size, -1
        for widths, factor in ((_BLOB, 0), (_ARRAY, 1), (_MAP, 2)):
            if (width := widths.get(first)) is not None:
                start = self._position + 1
                if start + width > len(self._buffer):
                    return None
                number = int.from_bytes(self._buffer[start : start + width], "big")
                return (1 + width, factor * number) if factor else (1 + width + number, -1)
        self._refuse(f"0x{first:02x} begins no value that may be in a message")
        return None

    def _enter(self, children: int) -> None:
        self._items += children
        if self._items > self._limits.max_items:
            self._refuse(f"it holds more than {self._limits.max_items:,} values")
        if len(self._left) > self._limits.max_depth:
            self._refuse(f"it is nested deeper than {self._limits.max_depth} levels")
        self._left.append(children)

    def _refuse(self, why: str) -> None:
        raise ProtocolError(f"a malformed message: {why}")


def _message(raw: bytes) -> Message:
    try:
        frame = msgpack.unpackb(raw, strict_map_key=True, use_list=True)
    except (ValueError, TypeError, UnicodeDecodeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a malformed message: {error}") from error
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
        and len(method) <= _MAX_METHOD_CHARS
        and all(isinstance(name, str) for name in params)
    )
