"""Encoding and decoding of the pipe's messages: MessagePack with extension types for values. No I/O.

A client chooses the forms it reads: tuples, sets and arrays as extension types that distinguish them, or as
plain lists that any MessagePack library can decode. It may send either form.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

import msgpack
from attrs import field, frozen
from attrs.validators import in_

from evocell.errors import ProtocolError
from evocell.pipe.packing import Packing, is_long
from evocell.wire.frames import (
    FrameLimits,
    FrameReader,
    Framing,
    Message,
    PacketReader,
    frame_of,
    in_packet,
)
from evocell.wire.values import decode_hostile
from evocell_guest.values import EncodeError, TooLarge, encode

__all__ = ["MessageEncoder", "TypeOptions", "message_reader"]

_SHORT_BYTES = 4096
_UNSAFE_KEY = "__proto__"
PAIRS = 9
"""Extension type of a map that the reader cannot represent; only sent by a server."""


@frozen(kw_only=True)
class TypeOptions:
    """The forms in which a client reads types that MessagePack lacks.

    Attributes:
        tuples: ``"list"`` for tuples and sets as lists, ``"ext"`` for extension types that distinguish them.
        arrays: ``"list"`` for arrays as nested lists, ``"ext"`` for extension types that hold their bytes;
            with the latter, long lists of numbers are sent in one, too.
        maps: ``"any"`` for maps unchanged, ``"plain"`` for an extension type for maps with keys other than
            strings, or with the key ``__proto__``: sandboxed code chooses its keys, and not every
            language has maps for all of them.
    """

    tuples: Literal["list", "ext"] = field(default="list", validator=in_(("list", "ext")))
    arrays: Literal["list", "ext"] = field(default="list", validator=in_(("list", "ext")))
    maps: Literal["any", "plain"] = field(default="any", validator=in_(("any", "plain")))


class MessageEncoder:
    """Encodes messages in the reader's chosen forms.

    Attributes:
        types: The reader's forms; may be changed between two messages.

    Args:
        limits: What one message may be.
        framing: How messages follow one another.
    """

    def __init__(self, limits: FrameLimits, framing: Framing = "stream") -> None:
        self.types = TypeOptions(tuples="ext", arrays="ext")
        self.limits = limits
        self._framing = framing

    def encode(self, message: Message) -> bytes:
        """Return the bytes of a message.

        Raises:
            ProtocolError: The message has a value without an encoding, or exceeds the reader's limit.
        """
        try:
            data = _encode(frame_of(message), self.types, self.limits.max_bytes)
        except (EncodeError, TooLarge, ValueError, TypeError) as error:
            raise ProtocolError(f"the message cannot be sent: {error}") from error
        if len(data) > self.limits.max_bytes:
            raise ProtocolError(
                f"the message cannot be sent: it takes {len(data):,} bytes and the limit is "
                f"{self.limits.max_bytes:,}"
            )
        return in_packet(data) if self._framing == "packet4" else data


def message_reader(limits: FrameLimits, framing: Framing = "stream") -> FrameReader:
    """Make a reader that decodes the extension types of values, with their contents under its limits.

    Args:
        limits: What one message may be; ``reader.limits`` may be changed between two messages.
        framing: How messages follow one another.
    """
    kind = PacketReader if framing == "packet4" else FrameReader
    reader: FrameReader

    def decode(raw: bytes) -> Any:
        bounds = reader.limits
        return decode_hostile(
            raw, max_bytes=bounds.max_bytes, max_items=bounds.max_items, max_depth=bounds.max_depth
        )

    reader = kind(limits, decode=decode)
    return reader


def _encode(frame: list[Any], types: TypeOptions, max_bytes: int) -> bytes:
    long = is_long(frame)
    if types.maps == "any" and not long:
        # Plain data needs no conversion; long lists of numbers are shorter as an extension type.
        with suppress(TypeError, ValueError, OverflowError):
            plain: bytes = msgpack.packb(frame, strict_types=True)
            if types.arrays == "list" or len(plain) <= _SHORT_BYTES:
                return plain
    if types.tuples == types.arrays == "ext" and types.maps == "any":
        return encode(frame, root="message")
    return Packing(
        tuples_as_lists=types.tuples == "list",
        arrays_as_lists=types.arrays == "list",
        is_plain_map=_is_plain_map if types.maps == "plain" else None,
        pairs_code=PAIRS,
        max_bytes=max_bytes,
    ).pack(frame)


def _is_plain_map(value: Mapping[Any, Any]) -> bool:
    return all(type(key) is str and key != _UNSAFE_KEY for key in value)
