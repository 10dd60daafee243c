"""Functions of a small module made into functions of the interpreter."""

from __future__ import annotations

from attrs import frozen

import wasmtime
from evocell_runtime.errors import ImageError
from evocell_runtime.leb128 import read_unsigned, write_unsigned
from evocell_runtime.patches.assembler import encode
from evocell_runtime.patches.instructions import after_locals, instructions
from evocell_runtime.patches.module import CODE, IMPORT, Module, Signature, open_module

INTERPRETER, ORIGINAL = "interpreter", "original"
"""Whence a donor imports: the interpreter's functions as they become, and replaced ones as they were."""

_EXPORT = 7
_NOT_OWNED = {4: "a table", 5: "a memory", 6: "a global", 8: "a start function", 9: "elements", 11: "data", 13: "a tag"}
_KINDS = {1: "table", 2: "memory", 3: "stack_pointer"}


@frozen
class Grafted:
    """What a donor gives.

    Attributes:
        bodies: New bodies of functions of the interpreter, by their numbers.
        added: Functions to add, in order: their types and bodies. Those of replaced functions as they were
            are among them.
    """

    bodies: dict[int, bytes]
    added: list[tuple[Signature, bytes]]


def graft(module: Module, wat: str, next_number: int) -> Grafted:
    """Assemble a donor and fit it into the interpreter.

    Args:
        module: The interpreter; types that it has not are added to it.
        wat: The donor.
        next_number: The number that the first added function gets.

    Raises:
        ImageError: The donor is not WAT, owns what a donor may not, or names or types a function wrongly.
    """
    try:
        donor = open_module(bytes(wasmtime.wat2wasm(wat)))
    except wasmtime.WasmtimeError as e:
        msg = f"the donor cannot be assembled: {e}"
        raise ImageError(msg) from e
    by_id = {sid: body for sid, body in donor.sections if sid}
    owned = sorted(_NOT_OWNED.keys() & by_id.keys())
    if owned:
        msg = f"a donor may have functions only, and this one has {_NOT_OWNED[owned[0]]} of its own"
        raise ImageError(msg)
    _check_imports(by_id[IMPORT] if IMPORT in by_id else memoryview(b"\0"))
    exported = _exports(by_id.get(_EXPORT, memoryview(b"\0")))
    bodies: dict[int, bytes] = {}
    added: list[tuple[Signature, bytes]] = []
    numbers: list[int] = []
    for place, (name, type_number) in enumerate(donor.imports):
        origin, _, function = name.partition(".")
        target = module.number(function)
        _same_type(module.signature(target), donor.types[type_number], function)
        if origin == ORIGINAL:
            if function not in exported.values():
                msg = f"the donor imports the original of {function}, which it does not replace"
                raise ImageError(msg)
            added.append((module.signature(target), bytes(module.body(target))))
            target = next_number + len(added) - 1
        elif origin != INTERPRETER:
            msg = f"import {place} of the donor is from {origin!r}; it must be {INTERPRETER} or {ORIGINAL}"
            raise ImageError(msg)
        numbers.append(target)
    first = len(donor.imports)
    owners = [number for number in range(first, first + len(donor.bodies)) if number not in exported]
    fresh = {number: next_number + len(added) + place for place, number in enumerate(owners)}
    for number in range(first, first + len(donor.bodies)):
        numbers.append(fresh[number] if number in fresh else module.number(exported[number]))
    for number in range(first, first + len(donor.bodies)):
        body = _renumbered(module, donor, bytes(donor.body(number)), numbers)
        if number in fresh:
            added.append((donor.signature(number), body))
        else:
            _same_type(module.signature(numbers[number]), donor.signature(number), exported[number])
            bodies[numbers[number]] = body
    return Grafted(bodies, added)


def _same_type(theirs: Signature, ours: Signature, function: str) -> None:
    if theirs != ours:
        msg = f"the donor has {function} with the type {ours}, and it is {theirs} in the interpreter"
        raise ImageError(msg)


def _check_imports(body: memoryview) -> None:
    count, at = read_unsigned(body, 0)
    for _ in range(count):
        names = []
        for _ in range(2):
            size, at = read_unsigned(body, at)
            names.append(bytes(body[at : at + size]).decode())
            at += size
        kind = body[at]
        if kind in _KINDS and names != [INTERPRETER, _KINDS[kind]]:
            msg = f"the donor imports {'.'.join(names)}, and only {INTERPRETER}.{_KINDS[kind]} is there of its kind"
            raise ImageError(msg)
        if kind == 0:
            _, at = read_unsigned(body, at + 1)
        elif kind == 3:
            at += 3
        else:
            at += 1 + (kind == 1)
            limited = body[at] & 1
            _, at = read_unsigned(body, at + 1)
            if limited:
                _, at = read_unsigned(body, at)


def _exports(body: memoryview) -> dict[int, str]:
    count, at = read_unsigned(body, 0)
    found: dict[int, str] = {}
    for _ in range(count):
        size, at = read_unsigned(body, at)
        name = bytes(body[at : at + size]).decode()
        kind = body[at + size]
        number, at = read_unsigned(body, at + size + 1)
        if kind or number in found:
            msg = f"the donor exports {name}, which is no function or has a name already"
            raise ImageError(msg)
        found[number] = name
    return found


def _renumbered(module: Module, donor: Module, body: bytes, numbers: list[int]) -> bytes:
    """A body with the interpreter's numbers of functions and types."""
    groups, begin = after_locals(body)
    out = bytearray(body[:begin])
    del groups
    for one in instructions(body):
        values = one.immediates
        if one.kinds == "F":
            out += encode(one.name, (numbers[values[0]],))
        elif one.kinds == "T":
            out += encode(one.name, (module.type_number(donor.types[values[0]]), values[1]))
        elif one.kinds in ("B", "C") and values[0] >= 0:
            out += encode(one.name, (module.type_number(donor.types[values[0]]), *values[1:]))
        else:
            out += body[one.at : one.end]
    return bytes(out)


def sized(body: bytes) -> bytes:
    """A body as it lies in the code section, after its size."""
    return write_unsigned(len(body)) + body


__all__ = ["CODE", "Grafted", "graft", "sized"]
