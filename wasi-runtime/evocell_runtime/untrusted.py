"""Bytes that came out of a guest, as a type that nothing takes for bytes by mistake.

A decoder that believes what it reads takes `bytes`; given these it fails, under mypy and at run time. The
one that does not is `evocell.wire.values.decode_hostile`.
"""

from __future__ import annotations

from typing import Final, final

__all__ = ["GuestBytes"]


@final
class GuestBytes:
    """Bytes out of a guest: what they hold is its own choice.

    They can be measured, compared and shown as text without being decoded. They are neither `bytes` nor a
    buffer, and their `repr` shows nothing of what is in them.

    Args:
        raw: The bytes.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw: Final = raw

    def __len__(self) -> int:
        """How many they are."""
        return len(self._raw)

    def __eq__(self, other: object) -> bool:
        """Whether they are the same as others, or as plain ones."""
        if isinstance(other, GuestBytes):
            return self._raw == other._raw
        return self._raw == other if isinstance(other, bytes) else NotImplemented

    def __hash__(self) -> int:
        """The hash of the plain ones."""
        return hash(self._raw)

    def __contains__(self, part: bytes) -> bool:
        """Whether they hold a sequence of bytes."""
        return part in self._raw

    def __repr__(self) -> str:
        """Their number."""
        return f"<{len(self._raw):,} bytes of a guest>"

    def startswith(self, prefix: bytes) -> bool:
        """Whether they begin with others."""
        return self._raw.startswith(prefix)

    def text(self, max_bytes: int | None = None) -> str:
        """Them as text, whatever they are; what is no UTF-8 is replaced.

        Args:
            max_bytes: How many of them at most.
        """
        return self._raw[:max_bytes].decode(errors="replace")

    def unchecked(self) -> bytes:
        """The plain bytes: for the hostile decoder, to be passed on, or to be handed to a guest."""
        return self._raw
