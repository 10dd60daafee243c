"""Structure of a module's functions: loops, calls, bulk memory operations, and estimates of the work.

The code is read in one pass. Runs of instructions that neither jump nor divide nor call are skipped by one
regular expression; of the 74 MB of CPython's code, some seven million instructions remain that are handled
one by one, which takes eight seconds of one core.

The pass also estimates how often each instruction executes: per iteration of the innermost loop around it, or
outside of loops per call of the function. Both sides of a branch are taken equally often, and so are the
targets of a branch table. Control that enters a block leaves it at its end, and a loop is left at its end:
jumps that lead further out are ignored.

Source: WebAssembly core specification 3.0, section 5.4 (instructions in the binary format).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from attrs import Factory, define

from evocell_runtime.code_patterns import (
    BLOCKS,
    BULK,
    CALLS,
    CALLS_INDIRECT,
    DIVISIONS,
    JUMPS,
    PLAIN,
    VECTOR_STORES,
    after_try_table,
    run_of,
)
from evocell_runtime.errors import ImageError
from evocell_runtime.leb128 import read_unsigned

__all__ = ["Bulk", "CallSite", "Function", "Loop", "Work", "functions"]

_PLAIN = run_of(*PLAIN)
_NEXT = re.compile(
    b"(?s:"
    + _PLAIN
    + b"("
    + b"|".join(
        [JUMPS, rb"[\x05\x0b\x0e\x1f]", BLOCKS, CALLS, CALLS_INDIRECT, BULK, DIVISIONS, VECTOR_STORES]
    )
    + b"))"
)
_SKIP = re.compile(b"(?s:" + _PLAIN + b")")
_NO_OPERATIONS = bytes(set(range(256)) - {*range(0x28, 0x40), *range(0x45, 0xC5), 0xFD})
_INDIRECT = (0x11, 0x13)
_VECTOR_STORE = 0x0B
_TAIL = (0x12, 0x13)
_LARGEST_TABLE = 1 << 20
_SELDOM = 1 / 16
"""Least estimated frequency of code behind conditional branches, so that a long piece of code behind many
checks is not nearly free."""


@define
class Work:
    """Estimated numbers of instructions executed by code, without its inner loops and callees.

    Attributes:
        operations: Loads, stores, operations on numbers and vectors.
        branches: Branches, branch tables and returns, without the jump back to the loop's header.
        quotients: Divisions, remainders and square roots.
        vector_stores: Stores of a vector.
    """

    operations: float = 0.0
    branches: float = 0.0
    quotients: float = 0.0
    vector_stores: float = 0.0


@define
class Loop:
    """One loop of a function.

    Attributes:
        start: Offset of its body in the code section, just after its block type.
        end: Offset after its `end`.
        parent: Index of the loop around it, or -1.
        own_bytes: Length of its body in bytes, without inner loops.
        calls: Number of calls in its body, without inner loops.
        calls_inside: Whether it or an inner loop calls anything.
        work: The work of one iteration.
    """

    start: int
    end: int
    parent: int
    own_bytes: int = 0
    calls: int = 0
    calls_inside: bool = False
    work: Work = Factory(Work)


@define
class CallSite:
    """One call.

    Attributes:
        at: Offset of the instruction in the code section.
        end: Offset of the next instruction.
        target: Index of the function, or of the type for a call through the table.
        indirect: Whether it is a call through the table.
        loop: Index of the innermost loop around it, or -1.
        times: Estimated executions per iteration of that loop, or per call of the function.
    """

    at: int
    end: int
    target: int
    indirect: bool
    loop: int
    times: float = 1.0


@define
class Bulk:
    """A `memory.copy` or `memory.fill`, whose length is on top of the stack.

    Attributes:
        at: Offset of the instruction in the code section.
    """

    at: int


@define
class Function:
    """Structure of a function's code.

    Attributes:
        begin: Offset of its declaration of locals in the code section.
        code: Offset of its first instruction.
        end: Offset of its end.
        locals_count: Number of locals, without parameters.
        loops: Its loops, in order of their start.
        calls: Its calls, in order.
        bulk: Its bulk memory operations, in order.
        work: The work of a call outside of loops.
    """

    begin: int
    code: int
    end: int
    locals_count: int
    loops: list[Loop] = Factory(list)
    calls: list[CallSite] = Factory(list)
    bulk: list[Bulk] = Factory(list)
    work: Work = Factory(Work)


def functions(code: bytes) -> Iterator[Function]:
    """Read the functions of a code section.

    Args:
        code: The contents of the section.

    Raises:
        ImageError: An instruction is unknown, or a function does not end at its declared length.
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
    walk = _Walk(code, Function(begin, at, end, locals_count))
    find, skip, steps = _NEXT.match, _SKIP.match, _STEPS
    while at < end:
        found = find(code, at, end)
        if found is None:
            run = skip(code, at, end)
            if run is None or run.end() == at:
                return None
            walk.pass_run(at, run.end())
            at = run.end()
            continue
        start, after = found.span(1)
        walk.pass_run(at, start)
        at = steps.get(code[start], _quotient)(walk, start, after)
        if at < 0:
            return None
    return None if walk.blocks else walk.function


class _Walk:
    """State of the pass over one function's code."""

    __slots__ = (
        "around",
        "arriving",
        "blocks",
        "code",
        "elsewhere",
        "entered",
        "function",
        "inner",
        "times",
        "work",
    )

    def __init__(self, code: bytes, function: Function) -> None:
        self.code = code
        self.function = function
        self.blocks: list[int] = []  # for each open block: its loop's index, or -1 if it is no loop;
        self.entered: list[float] = []  # how often it is entered;
        self.arriving: list[float] = []  # how often jumps lead to its end;
        self.elsewhere: list[float] = []  # how often the else side of an `if` is taken
        self.around: list[tuple[int, int]] = []  # index of each open loop, and its position in `blocks`
        self.inner = -1  # the innermost loop's position in `blocks`, or -1
        self.times = 1.0  # how often the next instruction executes
        self.work = function.work

    def pass_run(self, start: int, end: int) -> None:
        """Count the operations in a run of plain instructions, by opcode bytes.

        Access to variables and constants is free, since compilers keep them in registers. A byte of an offset
        or a constant may be mistaken for an operation; decoding each instruction would take four times as
        long.
        """
        self.work.operations += self.times * len(self.code[start:end].translate(None, _NO_OPERATIONS))

    def open(self, loop: int = -1, elsewhere: float = 0.0) -> None:
        self.blocks.append(loop)
        self.entered.append(self.times + elsewhere)
        self.arriving.append(0.0)
        self.elsewhere.append(elsewhere)

    def jump(self, depth: int, times: float) -> None:
        """Count a jump to a block's end; jumps out of the innermost loop or to its header are ignored."""
        place = len(self.blocks) - 1 - depth
        if place > self.inner:
            self.arriving[place] += times

    def branch(self, depth: int) -> None:
        """Count a branch, unless it jumps to the innermost loop's header: each iteration pays for that."""
        if self.inner < 0 or len(self.blocks) - 1 - depth != self.inner:
            self.work.branches += self.times


def _branch_if(walk: _Walk, start: int, after: int) -> int:
    depth, _ = read_unsigned(walk.code, start + 1)
    walk.branch(depth)
    taken = walk.times * 0.5
    if walk.times > _SELDOM:
        walk.times = taken
    walk.jump(depth, taken)
    return after


def _branch(walk: _Walk, start: int, after: int) -> int:
    depth, _ = read_unsigned(walk.code, start + 1)
    walk.branch(depth)
    walk.jump(depth, walk.times)
    walk.times = 0.0
    return after


def _leave(walk: _Walk, _start: int, after: int) -> int:
    walk.work.branches += walk.times
    walk.times = 0.0
    return after


def _table(walk: _Walk, _start: int, after: int) -> int:
    labels, at = read_unsigned(walk.code, after)
    if labels > _LARGEST_TABLE:
        return -1
    walk.work.branches += walk.times
    share = walk.times / (labels + 1)
    for _ in range(labels + 1):
        depth, at = read_unsigned(walk.code, at)
        walk.jump(depth, share)
    walk.times = 0.0
    return at


def _block(walk: _Walk, _start: int, after: int) -> int:
    walk.open()
    return after


def _try(walk: _Walk, _start: int, after: int) -> int:
    walk.open()
    at = after_try_table(walk.code, after, walk.function.end)
    return -1 if at is None else at


def _if(walk: _Walk, _start: int, after: int) -> int:
    walk.work.branches += walk.times
    walk.times *= 0.5
    walk.open(elsewhere=walk.times)
    return after


def _else(walk: _Walk, _start: int, after: int) -> int:
    if not walk.blocks:
        return -1
    walk.arriving[-1] += walk.times
    walk.times, walk.elsewhere[-1] = walk.elsewhere[-1], 0.0
    return after


def _loop(walk: _Walk, _start: int, after: int) -> int:
    loops = walk.function.loops
    parent = walk.around[-1][0] if walk.around else -1
    walk.around.append((len(loops), len(walk.blocks)))
    walk.inner = len(walk.blocks)
    walk.open(len(loops))
    loops.append(Loop(after, 0, parent))
    walk.times, walk.work = 1.0, loops[-1].work
    return after


def _end(walk: _Walk, _start: int, after: int) -> int:
    if not walk.blocks:
        return after if after == walk.function.end else -1
    ended, entered = walk.blocks.pop(), walk.entered.pop()
    walk.times = min(entered, walk.times + walk.arriving.pop() + walk.elsewhere.pop())
    if ended < 0:
        return after
    loops = walk.function.loops
    _close(loops, ended, after)
    walk.around.pop()
    number, walk.inner = walk.around[-1] if walk.around else (-1, -1)
    walk.times, walk.work = entered, walk.function.work if number < 0 else loops[number].work
    return after


def _call(walk: _Walk, start: int, after: int) -> int:
    op = walk.code[start]
    target, _ = read_unsigned(walk.code, start + 1)
    inner = walk.around[-1][0] if walk.around else -1
    walk.function.calls.append(CallSite(start, after, target, op in _INDIRECT, inner, walk.times))
    if inner >= 0:
        walk.function.loops[inner].calls += 1
    if op in _TAIL:
        walk.times = 0.0
    return after


def _bulk(walk: _Walk, start: int, after: int) -> int:
    walk.function.bulk.append(Bulk(start))
    if walk.around:
        walk.function.loops[walk.around[-1][0]].calls += 1
    return after


def _vector(walk: _Walk, start: int, after: int) -> int:
    if walk.code[start + 1] != _VECTOR_STORE:
        return _quotient(walk, start, after)
    walk.work.vector_stores += walk.times
    return after


def _quotient(walk: _Walk, _start: int, after: int) -> int:
    walk.work.quotients += walk.times
    return after


_STEPS: Mapping[int, Callable[[_Walk, int, int], int]] = {
    0x00: _leave,
    0x02: _block,
    0x03: _loop,
    0x04: _if,
    0x05: _else,
    0x08: _leave,
    0x0A: _leave,
    0x0B: _end,
    0x0C: _branch,
    0x0D: _branch_if,
    0x0E: _table,
    0x0F: _leave,
    0x10: _call,
    0x11: _call,
    0x12: _call,
    0x13: _call,
    0x1F: _try,
    0xFC: _bulk,
    0xFD: _vector,
}
"""Handlers by opcode for the instructions that are handled one by one; all others are divisions.

A handler returns the offset of the next instruction, or -1 if the code is malformed."""


def _close(loops: list[Loop], ended: int, at: int) -> None:
    loop = loops[ended]
    loop.end = at
    loop.own_bytes += at - loop.start
    loop.calls_inside = loop.calls_inside or loop.calls > 0
    if loop.parent >= 0:
        around = loops[loop.parent]
        around.own_bytes -= at - loop.start
        around.calls_inside = around.calls_inside or loop.calls_inside


def _locals(code: bytes, at: int) -> tuple[int, int]:
    groups, at = read_unsigned(code, at)
    total = 0
    for _ in range(groups):
        count, at = read_unsigned(code, at)
        total += count
        at += 1
    return total, at
