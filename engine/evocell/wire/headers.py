"""Tables of MessagePack's first bytes, for parsers of untrusted bytes.

Source: the MessagePack specification. Small integers (below 0x80, from 0xE0 on), short maps (0x80), short
lists (0x90) and short texts (0xA0 to 0xBF) have their length in the first byte itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["ARRAY_LENGTH", "BLOB_LENGTH", "EXT_LENGTH", "FIXED_EXT", "MAP_LENGTH", "SCALAR_BYTES"]

SCALAR_BYTES: Final[Mapping[int, int]] = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),
    **dict(zip((0xCC, 0xCD, 0xCE, 0xCF), (1, 2, 4, 8), strict=True)),
    **dict(zip((0xD0, 0xD1, 0xD2, 0xD3), (1, 2, 4, 8), strict=True)),
    0xCA: 4,
    0xCB: 8,
}
"""First byte of None, a boolean, an integer or a float -> bytes of the value after it."""
BLOB_LENGTH: Final[Mapping[int, int]] = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""First byte of bytes or a text -> bytes of the length after it."""
ARRAY_LENGTH: Final[Mapping[int, int]] = {0xDC: 2, 0xDD: 4}
"""First byte of a list -> bytes of its number of values."""
MAP_LENGTH: Final[Mapping[int, int]] = {0xDE: 2, 0xDF: 4}
"""First byte of a map -> bytes of its number of pairs."""
EXT_LENGTH: Final[Mapping[int, int]] = {0xC7: 1, 0xC8: 2, 0xC9: 4}
"""First byte of an extension -> bytes of the length after it; the type's byte is not counted."""
FIXED_EXT: Final[Mapping[int, int]] = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
"""First byte of an extension -> bytes of its payload."""
