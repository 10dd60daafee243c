"""Functions of the pinned interpreter taken out into a module of their own, to be tried without the interpreter."""

from __future__ import annotations

from collections.abc import Iterable

from evocell_runtime.leb128 import write_unsigned
from evocell_runtime.patches.assembler import encode
from evocell_runtime.patches.instructions import after_locals, instructions
from evocell_runtime.patches.module import CODE, FUNCTION, IMPORT, TYPE, Module, write_types
from evocell_runtime.rewrite import MAGIC

_MEMORY, _GLOBAL, _EXPORT, _DATA = 5, 6, 7, 11


def extract(module: Module, names: Iterable[str], *, pages: int, data: bool = False) -> bytes:
    """A module with these functions and what they call, their names, and a memory and a stack pointer.

    Args:
        module: The interpreter.
        names: Functions, which the module exports under these names.
        pages: How much memory it has, in pages of 64 KiB.
        data: Whether the memory starts with the interpreter's data.
    """
    wanted = [module.number(name) for name in names]
    numbers: dict[int, int] = {}
    waiting = list(wanted)
    bodies: list[bytes] = []
    while waiting:
        number = waiting.pop(0)
        if number in numbers:
            continue
        assert number >= len(module.imports), f"{module.name(number)} is not in the interpreter"
        numbers[number] = len(numbers)
        bodies.append(bytes(module.body(number)))
        waiting += [one.immediates[0] for one in instructions(bodies[-1]) if one.kinds == "F"]
    fresh = [_renumbered(body, numbers) for body in bodies]
    by_id = {sid: bytes(section) for sid, section in module.sections if sid}
    types = [module.function_types[number - len(module.imports)] for number in numbers]
    memory = write_unsigned(pages)
    exports = [
        *(_name(module.name(number)) + b"\0" + write_unsigned(numbers[number]) for number in wanted),
        _name("memory") + b"\2\0",
        _name("stack_pointer") + b"\3\0",
    ]
    parts = {
        TYPE: write_types(module.types),
        FUNCTION: _vector(write_unsigned(number) for number in types),
        _MEMORY: b"\1\0" + memory,
        _GLOBAL: by_id[_GLOBAL],
        _EXPORT: _vector(exports),
        CODE: _vector(write_unsigned(len(body)) + body for body in fresh),
    }
    if data:
        parts[_DATA] = by_id[_DATA]
    named = _vector(write_unsigned(new) + _name(module.name(old)) for old, new in numbers.items())
    parts_in_order = [(sid, parts[sid]) for sid in sorted(parts)]
    parts_in_order.insert(1, (IMPORT, b"\0"))
    parts_in_order.append((0, _name("name") + b"\1" + write_unsigned(len(named)) + named))
    return MAGIC + b"".join(bytes([sid]) + write_unsigned(len(body)) + body for sid, body in parts_in_order)


def _renumbered(body: bytes, numbers: dict[int, int]) -> bytes:
    _, begin = after_locals(body)
    out = bytearray(body[:begin])
    for one in instructions(body):
        if one.kinds == "F" and one.name == "call":
            out += encode(one.name, (numbers[one.immediates[0]],))
        else:
            assert not one.name.startswith(("table.", "call_indirect", "ref.")), one.name
            out += body[one.at : one.end]
    return bytes(out)


def _vector(items: Iterable[bytes]) -> bytes:
    listed = list(items)
    return write_unsigned(len(listed)) + b"".join(listed)


def _name(text: str) -> bytes:
    raw = text.encode()
    return write_unsigned(len(raw)) + raw
