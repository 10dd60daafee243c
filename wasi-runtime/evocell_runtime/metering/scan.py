"""The structure of a module's functions: loops, calls and bulk memory operations, and where they lie.

One pass over the code. Long runs of instructions that neither branch backwards nor call are matched by one
regular expression; what is left of the 74 MB of CPython's code are some four million instructions that are
looked at one by one, which takes four seconds of one core.

Source: WebAssembly core specification 3.0, section 5.4 (instructions in the binary format).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import define

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

__all__ = ["Bulk", "CallSite", "Function", "Loop", "functions"]

_STRAIGHT = run_of(*STRAIGHT)
_NEXT = re.compile(
    b"(?s:"
    + _STRAIGHT
    + b"("
    + b"|".join([BLOCKS, rb"[\x05\x0b\x0e\x1f]", CALLS, CALLS_INDIRECT, BULK])
    + b"))"
)
_SKIP = re.compile(b"(?s:" + _STRAIGHT + b")")

_BLOCK_OP, _LOOP, _IF, _ELSE, _END, _BR_TABLE, _TRY_TABLE = 0x02, 0x03, 0x04, 0x05, 0x0B, 0x0E, 0x1F
_CALL, _CALL_INDIRECT, _RETURN_CALL, _RETURN_CALL_INDIRECT, _PREFIX = 0x10, 0x11, 0x12, 0x13, 0xFC
_LARGEST_TABLE = 1 << 20


@define
class Loop:
    """One loop of a function.

    Attributes:
        start: Where its body begins, just after its block type; offset in the code section.
        end: Where it ends, its `end` included.
        parent: Index of the loop around it, or -1.
        own_bytes: Length of its body without the loops in it.
        calls: Calls in its body without the loops in it.
        calls_inside: Whether it calls anything, the loops in it included.
        loops_inside: Whether there are loops in it.
    """

    start: int
    end: int
    parent: int
    own_bytes: int = 0
    calls: int = 0
    calls_inside: bool = False
    loops_inside: bool = False


@define
class CallSite:
    """One call.

    Attributes:
        at: Where the instruction begins; offset in the code section.
        end: Where the next one begins.
        target: Index of the function, or of the type for a call through the table.
        indirect: Whether it goes through the table.
        loop: Index of the innermost loop around it, or -1.
    """

    at: int
    end: int
    target: int
    indirect: bool
    loop: int


@define
class Bulk:
    """A `memory.copy` or `memory.fill`: where the instruction begins; its length is on top of the stack."""

    at: int


@define
class Function:
    """What a function's code holds.

    Attributes:
        begin: Where its locals begin; offset in the code section.
        code: Where its instructions begin.
        end: Where it ends.
        locals_count: Its locals, parameters left out.
        loops: In the order in which they begin.
        calls: In order.
        bulk: In order.
    """

    begin: int
    code: int
    end: int
    locals_count: int
    loops: list[Loop]
    calls: list[CallSite]
    bulk: list[Bulk]

    @property
    def straight_bytes(self) -> int:
        """Length of its code outside of loops."""
        inside = sum(loop.end - loop.start for loop in self.loops if loop.parent < 0)
        return self.end - self.code - inside


def functions(code: bytes) -> Iterator[Function]:
    """Read a code section.

    Args:
        code: The section's contents.

    Raises:
        ImageError: An instruction is not known, or a function does not end where it says.
        ValueError: An integer is malformed.
    """
    count, at = read_unsigned(code, 0)
    for number in range(count):
        size, begin = read_unsigned(code, at)
        at = begin + size
        found = _function(code, begin, at)
        if found is None:
            msg = f"function {number} of the interpreter's code cannot be read"
            raise ImageError(msg)
        yield found


def _function(code: bytes, begin: int, end: int) -> Function | None:
    locals_count, at = _locals(code, begin)
    function = Function(begin, at, end, locals_count, [], [], [])
    loops, calls, bulk = function.loops, function.calls, function.bulk
    blocks: list[int] = []  # the loop that each open block is, or -1
    around: list[int] = []  # the loops that are open
    find, skip = _NEXT.match, _SKIP.match
    while at < end:
        found = find(code, at, end)
        if found is None:
            run = skip(code, at, end)
            if run is None or run.end() == at:
                return None
            at = run.end()
            continue
        start, at = found.span(1)
        op = code[start]
        if op in (_BLOCK_OP, _IF):
            blocks.append(-1)
        elif op == _END:
            if blocks:
                ended = blocks.pop()
                if ended >= 0:
                    around.pop()
                    _close(loops, ended, at)
            elif at != end:
                return None
        elif op in (_CALL, _RETURN_CALL, _CALL_INDIRECT, _RETURN_CALL_INDIRECT):
            target, _ = read_unsigned(code, start + 1)
            inner = around[-1] if around else -1
            calls.append(CallSite(start, at, target, op in (_CALL_INDIRECT, _RETURN_CALL_INDIRECT), inner))
            if around:
                loops[inner].calls += 1
        elif op == _LOOP:
            loops.append(Loop(at, 0, around[-1] if around else -1))
            around.append(len(loops) - 1)
            blocks.append(len(loops) - 1)
        elif op == _BR_TABLE:
            labels, at = read_unsigned(code, at)
            if labels > _LARGEST_TABLE:
                return None
            for _ in range(labels + 1):
                _, at = read_unsigned(code, at)
        elif op == _TRY_TABLE:
            blocks.append(-1)
            after = after_try_table(code, at, end)
            if after is None:
                return None
            at = after
        elif op == _PREFIX:
            bulk.append(Bulk(start))
            if around:
                loops[around[-1]].calls += 1
        elif op != _ELSE:
            return None
    return None if blocks else function


def _close(loops: list[Loop], ended: int, at: int) -> None:
    loop = loops[ended]
    loop.end = at
    loop.own_bytes += at - loop.start
    loop.calls_inside = loop.calls_inside or loop.calls > 0
    if loop.parent >= 0:
        around = loops[loop.parent]
        around.own_bytes -= at - loop.start
        around.loops_inside = True
        around.calls_inside = around.calls_inside or loop.calls_inside


def _locals(code: bytes, at: int) -> tuple[int, int]:
    groups, at = read_unsigned(code, at)
    total = 0
    for _ in range(groups):
        count, at = read_unsigned(code, at)
        total += count
        at += 1
    return total, at
