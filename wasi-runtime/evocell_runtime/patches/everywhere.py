"""Instructions that become others wherever they are, found without reading each instruction of 74 MB one by one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

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
from evocell_runtime.patches.assembler import assemble
from evocell_runtime.patches.instructions import after_locals, write_locals
from evocell_runtime.patches.model import Form
from evocell_runtime.patches.module import TYPE_CODES, Module
from evocell_runtime.patches.opcodes import BY_NAME

_SATURATING = rb"\xfc[\x00-\x07]"
_LIKELY = re.compile(_SATURATING)
_OTHERS = tuple(one for one in STRAIGHT if one != _SATURATING)
_RUN = re.compile(
    b"(?s:" + run_of(*_OTHERS, BLOCKS, rb"[\x05\x0b]", CALLS, CALLS_INDIRECT, BULK) + b")",
)
_BR_TABLE, _TRY_TABLE, _PREFIX = 0x0E, 0x1F, 0xFC

_NARROWED = re.compile(
    rb"[\x3a\x3b]"  # i32.store8, i32.store16
    rb"|\x41(?:\xff\x01|\xff\xff\x03)\x71"  # i32.const 255 or 65535, i32.and
    rb"|[\xc0\xc1]"  # i32.extend8_s, i32.extend16_s
)


def rewrite_everywhere(module: Module, forms: Sequence[Form]) -> None:
    """Change instructions in all functions of a module.

    Raises:
        ImageError: They are not there as often as is said, or a function has an instruction that is not known.
    """
    by_code = {_code(form): form for form in forms}
    seen: Counter[tuple[str, bool]] = Counter()
    for own in range(len(module.bodies)):
        number = own + len(module.imports)
        body = module.body(number)
        if _LIKELY.search(body) is None:
            continue
        found = [at for at in _places(body) if body[at + 1] in by_code]
        if found:
            module.replaced[number] = _rewritten(module, number, found, by_code, seen)
    for form in forms:
        narrow = seen[form.instruction, True]
        there = (narrow + seen[form.instruction, False], narrow)
        if there != form.places:
            msg = f"{form.instruction} is there {there[0]} times, {there[1]} of them narrowed"
            raise ImageError(msg)


def _code(form: Form) -> int:
    (opcode, number), kinds = BY_NAME[form.instruction]
    if opcode != _PREFIX or number > 7 or kinds:
        msg = f"{form.instruction} cannot be changed everywhere"
        raise ImageError(msg)
    return number


def _places(body: bytes | memoryview) -> Iterator[int]:
    """Where the saturating conversions are."""
    _, at = after_locals(body)
    while at < len(body):
        run = _RUN.match(body, at)
        end = at if run is None else run.end()
        if end > at:
            at = end
        elif body[at] == _PREFIX and body[at + 1] <= 7:
            yield at
            at += 2
        elif body[at] == _BR_TABLE:
            labels, at = read_unsigned(body, at + 1)
            for _ in range(labels + 1):
                _, at = read_unsigned(body, at)
        else:
            after = after_try_table(body, at + 1, len(body)) if body[at] == _TRY_TABLE else None
            if after is None:
                msg = f"there is no instruction that begins with {bytes(body[at : at + 4]).hex(' ')}"
                raise ImageError(msg)
            at = after


def _rewritten(
    module: Module, number: int, found: list[int], by_code: dict[int, Form], seen: Counter[tuple[str, bool]]
) -> bytes:
    body = module.body(number)
    groups, begin = after_locals(body)
    fresh = len(module.signature(number)[0]) + sum(many for many, _ in groups)
    variables: dict[str, int] = {}
    parts: list[bytes | memoryview] = []
    for at in found:
        form = by_code[body[at + 1]]
        narrow = _NARROWED.match(body, at + 2) is not None
        seen[form.instruction, narrow] += 1
        variable = variables.setdefault(form.local, fresh + len(variables))
        text = form.narrow if narrow else form.replacement
        parts += [body[begin:at], assemble(module, text, first_new_local=variable)]
        begin = at + 2
    groups += [(1, TYPE_CODES[name]) for name in variables]
    return b"".join([write_locals(groups), *parts, body[begin:]])
