"""Check, before compilation, that an interpreter's code cannot keep state outside its memory.

Freezing, forking and the reuse of bodies require that between two calls the whole state of a guest is in its
linear memory. WebAssembly has other persistent state: tables, globals, element and data segments that can be
dropped. So the sections are checked, and every instruction of every function is read: instructions that could
write to any of these are refused, as are unknown ones. The only exception is a single mutable 32-bit global,
the C compiler's stack pointer, which has its initial value again when a call has returned.

The 74 MB of CPython's code take some two seconds: long runs of instructions are matched by one regular
expression, whose alternatives are the instructions with their immediates; the two that hold a vector are read
by hand.

Source: WebAssembly core specification 3.0, section 5.4 (instructions in the binary format).
"""

from __future__ import annotations

import re

from evocell_runtime.code_patterns import (
    BLOCKS,
    BULK,
    CALLS,
    CALLS_INDIRECT,
    STRAIGHT,
    after_try_table,
    run_of,
)
from evocell_runtime.errors import ImageError
from evocell_runtime.leb128 import read_unsigned
from evocell_runtime.rewrite import sections

_TABLE, _GLOBAL, _EXPORT, _CODE = 4, 6, 7, 10
_KNOWN_SECTIONS = frozenset({1, 2, 3, _TABLE, _GLOBAL, _EXPORT, 9, _CODE, 13})
_I32, _CONST_I32, _END = 0x7F, 0x41, 0x0B
_EXTERNAL = {0: "function", 1: "table", 2: "memory", 3: "global", 4: "tag"}
_BR_TABLE, _TRY_TABLE = 0x0E, 0x1F
_LASTING = {
    b"\x26": "table.set",
    b"\xfc\x08": "memory.init",
    b"\xfc\x09": "data.drop",
    b"\xfc\x0c": "table.init",
    b"\xfc\x0d": "elem.drop",
    b"\xfc\x0e": "table.copy",
    b"\xfc\x0f": "table.grow",
    b"\xfc\x11": "table.fill",
}

_HARMLESS = re.compile(
    b"(?s:" + run_of(*STRAIGHT, rb"[\x05\x0b]", CALLS, BLOCKS, CALLS_INDIRECT, BULK) + b")"
)


def check_state(code: bytes) -> None:
    """Refuse code whose guests could keep state outside their memory.

    Args:
        code: The interpreter's module as `rewrite.split` gives it: its memory is imported.

    Raises:
        ImageError: Other state in it can be changed, or it has an instruction that this check does not know.
    """
    try:
        by_id = dict(sections(memoryview(code)))
        for sid in sorted(by_id.keys() - _KNOWN_SECTIONS):
            msg = f"the interpreter has a section {sid}, of which it is not known whether it keeps state"
            raise ImageError(msg)
        mutable = _mutable_globals(by_id.get(_GLOBAL, memoryview(b"\0")))
        if len(mutable) > 1:
            msg = (
                f"the interpreter has {len(mutable)} mutable globals, and only its stack pointer is known to "
                "be what it was after a call: the others would be left to the next guest"
            )
            raise ImageError(msg)
        _check_exports(by_id.get(_EXPORT, memoryview(b"\0")), mutable)
        _check_functions(by_id.get(_CODE, memoryview(b"\0")))
    except (ValueError, IndexError) as e:
        msg = f"the interpreter is not a well-formed WebAssembly module: {e}"
        raise ImageError(msg) from e


def _mutable_globals(body: memoryview) -> set[int]:
    count, at = read_unsigned(body, 0)
    mutable: set[int] = set()
    for number in range(count):
        if body[at] != _I32 or body[at + 1] not in (0, 1) or body[at + 2] != _CONST_I32:
            msg = f"global {number} of the interpreter is not a 32-bit integer with a constant start"
            raise ImageError(msg)
        if body[at + 1]:
            mutable.add(number)
        _, at = read_unsigned(body, at + 3)
        if body[at] != _END:
            msg = f"global {number} of the interpreter has a computed start"
            raise ImageError(msg)
        at += 1
    return mutable


def _check_exports(body: memoryview, mutable: set[int]) -> None:
    count, at = read_unsigned(body, 0)
    for _ in range(count):
        size, at = read_unsigned(body, at)
        name = bytes(body[at : at + size]).decode(errors="replace")
        kind = _EXTERNAL.get(body[at + size], "something")
        index, at = read_unsigned(body, at + size + 1)
        if kind == "table" or (kind == "global" and index in mutable):
            msg = f"the interpreter exports the {kind} {name}, which others could write to"
            raise ImageError(msg)


def _check_functions(code: memoryview) -> None:
    count, at = read_unsigned(code, 0)
    match = _HARMLESS.match
    for number in range(count):
        size, at = read_unsigned(code, at)
        end = at + size
        at = _after_locals(code, at)
        while at < end:
            begun, at = at, _end(match(code, at, end))
            if at == begun:
                at = _after_vector(code, at, end, number)
        if at != end:
            msg = f"function {number} of the code does not end where it says"
            raise ImageError(msg)


def _end(found: re.Match[bytes] | None) -> int:
    assert found is not None  # it also matches the empty string
    return found.end()


def _after_locals(code: memoryview, at: int) -> int:
    groups, at = read_unsigned(code, at)
    for _ in range(groups):
        _, at = read_unsigned(code, at)
        if code[at] < 0x65:
            msg = f"a local variable of the interpreter has the type 0x{code[at]:02x}, which is not known"
            raise ImageError(msg)
        at += 1
    return at


def _after_vector(code: memoryview, at: int, end: int, function: int) -> int:
    """Skip an instruction that the expression does not cover; return the offset of the next one."""
    first = code[at]
    if first == _BR_TABLE:
        count, at = read_unsigned(code, at + 1)
        return _skip(code, at, count + 1)
    if first == _TRY_TABLE:
        after = after_try_table(code, at + 1, end)
        if after is not None:
            return after
    for beginning, name in _LASTING.items():
        if code[at : min(end, at + len(beginning))] == beginning:
            msg = (
                f"function {function} of the interpreter's code has the instruction {name}, which changes "
                "what is not in its memory: a guest would leave it to the next"
            )
            raise ImageError(msg)
    shown = bytes(code[at : min(end, at + 4)]).hex(" ")
    msg = f"function {function} of the interpreter's code has an instruction that is not known ({shown})"
    raise ImageError(msg)


def _skip(code: memoryview, at: int, count: int) -> int:
    """Skip integers."""
    for _ in range(count):
        _, at = read_unsigned(code, at)
    return at
