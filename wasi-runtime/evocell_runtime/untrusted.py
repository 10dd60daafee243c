"""Bytes of a guest, as a type that cannot be mistaken for trusted bytes.

A decoder for trusted data takes `bytes`; given these it fails, under mypy and at run time. The decoder for
untrusted data is `evocell.wire.values.decode_hostile`.
"""

from __future__ import annotations

from typing import Final, final

__all__ = ["GuestBytes"]


@final
class GuestBytes:
    """Untrusted bytes of a guest.

    They can be measured, compared and shown as text without being decoded. They are neither `bytes` nor a
    buffer, and their `repr` does not show their contents.

    Args:
        raw: The bytes.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw: Final = raw

    def __len__(self) -> int:
        """Return their number."""
        return len(self._raw)

    def __eq__(self, other: object) -> bool:
        """Return whether they equal others, or plain ones."""
        if isinstance(other, GuestBytes):
            return self._raw == other._raw
        return self._raw == other if isinstance(other, bytes) else NotImplemented

    def __hash__(self) -> int:
        """Return the hash of the plain bytes."""
        return hash(self._raw)

    def __contains__(self, part: bytes) -> bool:
        """Return whether they contain a sequence of bytes."""
        return part in self._raw

    def __repr__(self) -> str:
        """Their number."""
        return f"<{len(self._raw):,} bytes of a guest>"

    def startswith(self, prefix: bytes) -> bool:
        """Return whether they begin with others."""
        return self._raw.startswith(prefix)

    def text(self, max_bytes: int | None = None) -> str:
        """Return them as text, replacing invalid UTF-8.

        Args:
            max_bytes: Most bytes to convert.
        """
        return self._raw[:max_bytes].decode(errors="replace")

    def unchecked(self) -> bytes:
        """Return the plain bytes: for the hostile decoder, for forwarding, or for a guest."""
        return self._raw
