"""Functions of a small module made into functions of the interpreter."""

from __future__ import annotations

import wasmtime
from evocell_runtime.errors import ImageError
from evocell_runtime.leb128 import read_unsigned, write_unsigned
from evocell_runtime.patches.assembler import encode
from evocell_runtime.patches.instructions import after_locals, instructions
from evocell_runtime.patches.module import IMPORT, Module, Signature, open_module

INTERPRETER, ORIGINAL = "interpreter", "original"
"""Whence a donor imports: the interpreter's functions as they become, and replaced ones as they were."""

HELPER = "evocell."
"""How the names of functions begin that a donor adds for others to call."""

_EXPORT = 7
_NOT_OWNED = {4: "a table", 5: "a memory", 6: "a global", 8: "a start function", 9: "elements", 11: "data", 13: "a tag"}
_KINDS = {1: "table", 2: "memory", 3: "stack_pointer"}


def graft(module: Module, wat: str) -> dict[int, bytes]:
    """Assemble a donor and fit it into the interpreter.

    Args:
        module: The interpreter; types and functions that it has not are added to it.
        wat: The donor.

    Returns:
        New bodies of functions of the interpreter, by their numbers.

    Raises:
        ImageError: The donor is not WAT, owns what a donor may not, or names or types a function wrongly.
    """
    donor = _assembled(wat)
    by_id = {sid: body for sid, body in donor.sections if sid}
    exported = _exports(by_id.get(_EXPORT, memoryview(b"\0")))
    numbers: list[int] = []
    for place, (name, type_number) in enumerate(donor.imports):
        origin, _, function = name.partition(".")
        target = module.number(function)
        _same_type(module.signature(target), donor.types[type_number], function)
        if origin == ORIGINAL:
            if function not in exported.values():
                msg = f"the donor imports the original of {function}, which it does not replace"
                raise ImageError(msg)
            target = module.add(module.signature(target), bytes(module.body(target)))
        elif origin != INTERPRETER:
            msg = f"import {place} of the donor is from {origin!r}; it must be {INTERPRETER} or {ORIGINAL}"
            raise ImageError(msg)
        numbers.append(target)
    own = range(len(donor.imports), len(donor.imports) + len(donor.bodies))
    first_added = len(module.imports) + len(module.bodies)
    for number in own:
        given = exported.get(number)
        if given is None or given.startswith(HELPER):
            numbers.append(module.add(donor.signature(number), b"", given))
        else:
            numbers.append(module.number(given))
            _same_type(module.signature(numbers[-1]), donor.signature(number), given)
    replaced: dict[int, bytes] = {}
    for number in own:
        body = _renumbered(module, donor, bytes(donor.body(number)), numbers)
        if numbers[number] >= first_added:
            module.added[numbers[number] - first_added] = body
        else:
            replaced[numbers[number]] = body
    return replaced


def _assembled(wat: str) -> Module:
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
    _check_imports(by_id.get(IMPORT, memoryview(b"\0")))
    return donor


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
    _, begin = after_locals(body)
    out = bytearray(body[:begin])
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

