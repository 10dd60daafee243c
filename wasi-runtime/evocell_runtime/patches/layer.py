"""The table of patches put into the pinned interpreter, before it is split and compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from evocell_runtime.errors import ImageError
from evocell_runtime.leb128 import read_signed, read_unsigned, write_unsigned
from evocell_runtime.patches.assembler import assemble
from evocell_runtime.patches.donors import graft, sized
from evocell_runtime.patches.everywhere import rewrite_everywhere
from evocell_runtime.patches.instructions import after_locals, instructions, text_of, write_locals
from evocell_runtime.patches.model import CodePatch, Data, Donor, Edit, Everywhere
from evocell_runtime.patches.module import (
    CODE,
    DATA,
    FUNCTION,
    TYPE,
    TYPE_CODES,
    Module,
    open_module,
    write_types,
)
from evocell_runtime.rewrite import MAGIC


def apply_patches(wasm: bytes, patches: Iterable[CodePatch]) -> bytes:
    """Put changes into the interpreter's module.

    Args:
        wasm: The module, with its section of names.
        patches: What to change, in order.

    Returns:
        The changed module, with the names as they were.

    Raises:
        ImageError: What a patch changes is not what it expects; the message names patch and function.
    """
    module = open_module(wasm)
    donated: set[int] = set()
    data: list[Data] = []
    for patch in patches:
        try:
            match patch:
                case Edit():
                    number = module.number(patch.function)
                    module.replaced[number] = _edited(module, patch, number)
                case Everywhere():
                    rewrite_everywhere(module, patch.forms)
                case Donor():
                    _check_originals(module, patch, donated)
                    replaced = graft(module, patch.wat)
                    _check_replaced(module, patch, replaced.keys())
                    module.replaced |= replaced
                    donated |= replaced.keys()
                case Data():
                    data.append(patch)
        except ImageError as e:
            msg = f"the patch {patch.name!r} does not fit the interpreter: {e}"
            raise ImageError(msg) from e
    return _written(module, data)


def body_digest(body: bytes | memoryview) -> str:
    """The SHA-256 of a function's body, as donors state it."""
    return hashlib.sha256(body).hexdigest()


def _check_replaced(module: Module, patch: Donor, replaced: AbstractSet[int]) -> None:
    if replaced != {module.number(name) for name, _ in patch.expected}:
        msg = "it replaces other functions than those of which it says what they must be"
        raise ImageError(msg)


def _check_originals(module: Module, patch: Donor, donated: set[int]) -> None:
    for name, expected in patch.expected:
        number = module.number(name)
        if number in donated:
            msg = f"{name} has been replaced by another patch"
            raise ImageError(msg)
        if body_digest(module.pinned_body(number)) != expected:
            msg = f"the body of {name} is not the one that it was made for"
            raise ImageError(msg)


def _edited(module: Module, patch: Edit, number: int) -> bytes:
    body = module.body(number)
    found = list(instructions(body))
    texts = [text_of(module, one) for one in found]
    wanted = patch.expected.splitlines()
    if not wanted:
        msg = f"it does not say which instructions of {patch.function} it changes"
        raise ImageError(msg)
    places = [at for at in range(len(texts)) if texts[at : at + len(wanted)] == wanted]
    chosen = _chosen(patch, places)
    groups, begin = after_locals(body)
    first_new = len(module.signature(number)[0]) + sum(many for many, _ in groups)
    fresh = assemble(module, patch.replacement, first_new_local=first_new)
    groups += [(1, TYPE_CODES[name]) for name in patch.new_locals]
    parts: list[bytes | memoryview] = [write_locals(groups)]
    for place in chosen:
        parts += [body[begin : found[place].at], fresh]
        begin = found[place + len(wanted) - 1].end
    return b"".join([*parts, body[begin:]])


def _chosen(patch: Edit, places: list[int]) -> list[int]:
    """Those of the places where the expected instructions are that are meant.

    Raises:
        ImageError: They are not there as often as the patch says.
    """
    if patch.occurrence is not None and patch.occurrence < len(places):
        return [places[patch.occurrence]]
    if patch.occurrence is None and len(places) == (patch.places or 1):
        return places
    msg = f"the instructions that it expects in {patch.function} are there {len(places)} times"
    raise ImageError(msg)


def _written(module: Module, data: list[Data]) -> bytes:
    out: list[bytes | memoryview] = [MAGIC]
    for sid, section in module.sections:
        parts: list[bytes | memoryview] = [section]
        if sid == TYPE:
            parts = [write_types(module.types)]
        elif sid == FUNCTION:
            parts = [write_unsigned(len(module.function_types)), *map(write_unsigned, module.function_types)]
        elif sid == CODE:
            parts = _code(module)
        elif sid == DATA and data:
            parts = [_patched_data(section, data)]
        out += [bytes([sid]), write_unsigned(sum(map(len, parts))), *parts]
    return b"".join(out)


def _code(module: Module) -> list[bytes | memoryview]:
    code = module.code
    _, kept = read_unsigned(code, 0)
    parts: list[bytes | memoryview] = [write_unsigned(len(module.bodies) + len(module.added))]
    for number in sorted(module.replaced):
        own = number - len(module.imports)
        before = module.bodies[own - 1][1] if own else read_unsigned(code, 0)[1]
        parts += [code[kept:before], sized(module.replaced[number])]
        kept = module.bodies[own][1]
    return [*parts, code[kept:], *map(sized, module.added)]


def _patched_data(section: memoryview, patches: list[Data]) -> bytes:
    out = bytearray(section)
    segments = _segments(section)
    for patch in patches:
        size = len(patch.expected)
        at = next(
            (
                begin + patch.address - start
                for start, begin, many in segments
                if start <= patch.address <= start + many - size
            ),
            None,
        )
        if len(patch.replacement) != size or at is None or out[at : at + size] != patch.expected:
            msg = (
                f"the patch {patch.name!r} does not fit the interpreter: the {size} bytes at address {patch.address} "
                "are not what it expects"
            )
            raise ImageError(msg)
        out[at : at + size] = patch.replacement
    return bytes(out)


def _segments(section: memoryview) -> list[tuple[int, int, int]]:
    """Address, place in the section and size of each segment."""
    count, at = read_unsigned(section, 0)
    found = []
    for _ in range(count):
        address, at = read_signed(section, at + 2)
        size, at = read_unsigned(section, at + 1)
        found.append((address & 0xFFFFFFFF, at, size))
        at += size
    return found
