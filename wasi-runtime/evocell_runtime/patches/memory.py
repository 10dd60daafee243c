"""Changes to the memory of a running interpreter, before it is frozen."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Literal, Protocol

from evocell_runtime.errors import ImageError
from evocell_runtime.patches.model import Memory


class GuestMemory(Protocol):
    """Memory as `evocell_runtime.native.RawMemory` gives access to it."""

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of it."""

    def write(self, offset: int, data: bytes) -> None:
        """Change bytes of it."""


def patch_memory(
    memory: GuestMemory, patches: Iterable[Memory], moment: Literal["started", "warmed"]
) -> None:
    """Make the changes that belong to a moment.

    Raises:
        ImageError: The bytes are not what a patch expects; the message names it.
    """
    for patch in patches:
        if patch.moment != moment:
            continue
        address = patch.address
        for offset in patch.path:
            (pointer,) = struct.unpack("<I", memory.read(address, 4))
            address = pointer + offset
        size = len(patch.replacement)
        if patch.expected is not None and (
            len(patch.expected) != size or memory.read(address, size) != patch.expected
        ):
            found = memory.read(address, size).hex(" ")
            msg = (
                f"the patch {patch.name!r} does not fit the interpreter: at {address} its memory has {found}"
            )
            raise ImageError(msg)
        memory.write(address, patch.replacement)
