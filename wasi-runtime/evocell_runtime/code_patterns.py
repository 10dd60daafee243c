"""WebAssembly's instructions as regular expressions over bytes, to read 74 MB of code in seconds.

Long runs of instructions are matched by one expression, whose alternatives are the instructions with their
immediates. Instructions that hold a vector (`br_table`, `try_table`) are read by hand.

Source: WebAssembly core specification 3.0, section 5.4 (instructions in the binary format).
"""

from __future__ import annotations

import re

from evocell_runtime.leb128 import read_unsigned

__all__ = [
    "BLOCK",
    "BLOCKS",
    "BULK",
    "CALLS",
    "CALLS_INDIRECT",
    "DIVISIONS",
    "JUMPS",
    "PLAIN",
    "STRAIGHT",
    "VECTOR_STORES",
    "after_try_table",
    "run_of",
]

_RUN = 4_096
"""Most instructions per match, which bounds the backtracking state of the expression."""

_LEB = rb"[\x80-\xff]*[\x00-\x7f]"
_ADDRESS = rb"[\x00-\x3f]" + _LEB  # alignment without a memory index, offset

BLOCK = rb"(?:[\x00-\x62\x65-\x7f]|[\x80-\xff]+[\x00-\x7f])"
"""Block type, except references to concrete types."""

JUMPS = rb"[\x00\x0a\x0f]|[\x08\x0c\x0d]" + _LEB
"""Instructions that leave the straight path without a block of their own: `unreachable`, `throw_ref`,
`return`, `throw`, `br` and `br_if`."""

DIVISIONS = rb"[\x6d-\x70\x7f-\x82\x91\x95\x9f\xa3]|\xfd[\xe3\xe7\xef\xf3]\x01"
"""Quotients, remainders and square roots."""

VECTOR_STORES = rb"\xfd\x0b" + _ADDRESS
"""`v128.store`."""

PLAIN = (
    rb"[\x01\x1a\x1b\x45-\x6c\x71-\x7e\x83-\x90\x92-\x94\x96-\x9e\xa0-\xa2\xa4-\xc4\xd1]",  # drop; numbers
    rb"[\x20-\x24\x41\x42\xd0\xd2]" + _LEB,  # variables, constants
    rb"[\x28-\x3e]" + _ADDRESS,  # loads and stores
    rb"[\x3f\x40]\x00",  # memory.size, memory.grow
    rb"\x43.{4}|\x44.{8}",  # f32.const, f64.const
    rb"\xfc[\x00-\x07]",  # saturating conversions
    rb"\xfd[\x00-\x0a\x5c\x5d]" + _ADDRESS,  # vectors: loads,
    rb"\xfd[\x54-\x5b]" + _ADDRESS + rb".",  # loads and stores of a lane,
    rb"\xfd[\x0c\x0d].{16}",  # constants and shuffles,
    rb"\xfd[\x15-\x22].",  # lanes,
    rb"\xfd(?:[\x0e-\x14\x23-\x53\x5e-\x7f]|[\x80-\xe2\xe4-\xe6\xe8-\xee\xf0-\xf2\xf4-\xff]\x01)",
)
"""Instructions that are none of these, open and close no block, call nothing and move no run of bytes."""

STRAIGHT = (PLAIN[0], JUMPS, *PLAIN[1:], DIVISIONS, VECTOR_STORES)
"""Instructions that neither open or close a block, nor call, nor move a range of bytes."""

BLOCKS = rb"[\x02-\x04]" + BLOCK
"""`block`, `loop` and `if`; `else` and `end` are 0x05 and 0x0b."""

CALLS = rb"[\x10\x12]" + _LEB
CALLS_INDIRECT = rb"[\x11\x13]" + _LEB + _LEB
"""Indirect calls."""

BULK = rb"\xfc(?:\x0a\x00\x00|\x0b\x00)"
"""`memory.copy` and `memory.fill`."""

_BLOCK_TYPE = re.compile(BLOCK)


def run_of(*instructions: bytes) -> bytes:
    """Return an expression for a run of these instructions, to be compiled inside `(?s:...)`."""
    return b"(?:" + b"|".join(instructions) + b"){0,%d}" % _RUN


def after_try_table(code: bytes | memoryview, at: int, end: int) -> int | None:
    """Skip the immediates of a `try_table`: block type and handlers.

    Args:
        code: The code.
        at: Offset of the block type.
        end: End of the function.

    Returns:
        Offset of the next instruction; None if the block's type is unknown.
    """
    blocked = _BLOCK_TYPE.match(code, at, end)
    if blocked is None:
        return None
    handlers, at = read_unsigned(code, blocked.end())
    for _ in range(handlers):  # catch and catch_ref have a tag and a label, the other two a label
        numbers = 2 if code[at] < 2 else 1
        at += 1
        for _ in range(numbers):
            _, at = read_unsigned(code, at)
    return at
