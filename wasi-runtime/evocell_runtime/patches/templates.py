"""WAT with names in capitals after an @, which stand for other text."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"@([A-Z]+(?:_[A-Z]+)*)")
_DEEPEST = 4


def fill(text: str, named: Mapping[str, str | int]) -> str:
    """Put in what the names stand for, and the names in that.

    Raises:
        KeyError: A name is not known.
    """
    for _ in range(_DEEPEST):
        text = _NAME.sub(lambda found: str(named[found[1]]), text)
    return text


def refusal(exception: int, message: str) -> str:
    """A function `$refuse` that raises an exception; it imports `$raise`, which is `PyErr_SetString`, and `$sp`.

    Donors have no data of their own, so the message is written to the stack.

    Args:
        exception: Where the pointer to its class lies.
        message: ASCII.
    """
    padded = message.encode("ascii") + bytes(8 - len(message) % 8)
    room = -(-len(padded) // 16) * 16
    stores = "\n".join(
        f"(i64.store offset={at} (local.get $at) (i64.const 0x{int.from_bytes(padded[at : at + 8], 'little'):x}))"
        for at in range(0, len(padded), 8)
    )
    return f"""
  (func $refuse
    (local $at i32)
    (local.set $at (i32.sub (global.get $sp) (i32.const {room})))
    (global.set $sp (local.get $at))
    {stores}
    (call $raise (i32.load (i32.const {exception})) (local.get $at))
    (global.set $sp (i32.add (local.get $at) (i32.const {room}))))"""
