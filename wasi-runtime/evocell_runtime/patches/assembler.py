"""Lines of text made into instructions, in the form in which `instructions.text_of` writes them."""

from __future__ import annotations

import re
import struct

from evocell_runtime.errors import ImageError
from evocell_runtime.leb128 import write_signed, write_unsigned
from evocell_runtime.patches.module import TYPE_CODES, Module, Signature
from evocell_runtime.patches.opcodes import BY_NAME, PREFIXED, natural_bytes

_SIDE = re.compile(r"\((param|result)((?: \w+)*)\)")
_NEW_LOCAL = re.compile(r"new(\d+)\Z")


def assemble(module: Module, text: str, *, first_new_local: int = 0) -> bytes:
    """Make instructions of lines.

    Args:
        module: The module that they are for; types that it has not are added to it.
        text: One instruction a line.
        first_new_local: The number of the local that the text calls `new0`.

    Raises:
        ImageError: A line is no instruction, or names a function that there is not.
    """
    out = bytearray()
    for line in text.splitlines():
        try:
            out += _encode(module, line.strip(), first_new_local)
        except (ValueError, KeyError, IndexError, OverflowError) as e:
            msg = f"{line.strip()!r} is not an instruction in the form that is understood here ({e!r})"
            raise ImageError(msg) from e
    return bytes(out)


def encode(name: str, values: tuple[int, ...]) -> bytes:
    """Write one instruction whose immediates are numbers, as `instructions.Instruction` holds them."""
    (opcode, number), kinds = BY_NAME[name]
    out = bytearray([opcode])
    if opcode in PREFIXED:
        out += write_unsigned(number)
    match kinds:
        case "B" | "s":
            out += write_signed(values[0])
        case "C":
            out += write_signed(values[0]) + write_unsigned(len(values) // 3)
            for kind, tag, label in zip(values[1::3], values[2::3], values[3::3], strict=True):
                out += bytes([kind]) + (write_unsigned(tag) if kind < 2 else b"") + write_unsigned(label)
        case "L":
            out += write_unsigned(len(values) - 1) + b"".join(map(write_unsigned, values))
        case "f":
            out += struct.pack("<I", values[0])
        case "d":
            out += struct.pack("<Q", values[0])
        case "W" | "l" | "0" | "00":
            out += bytes(values)
        case _:
            out += b"".join(map(write_unsigned, values))
    return bytes(out)


def _encode(module: Module, line: str, first_new_local: int) -> bytes:
    name, _, rest = line.partition(" ")
    _, kinds = BY_NAME[name]
    rest = rest.strip()
    match kinds:
        case "F":
            values = [module.number(rest)]
        case "T":
            values = [module.type_number(_signature(rest)), 0]
        case "B":
            values = [_block(module, rest)]
        case "V":
            new = _NEW_LOCAL.match(rest)
            values = [first_new_local + int(new[1]) if new else int(rest)]
        case "M" | "m":
            values = _access(name, rest.split())
        case "C":
            msg = "try_table cannot be written here; write a donor"
            raise ValueError(msg)
        case "0" | "00":
            values = [0] * len(kinds)
        case "s":
            bits = 32 if name.startswith("i32") else 64
            values = [_within(int(rest, 0), bits)]
        case _:
            values = [int(word, 0) for word in rest.split()]
    return encode(name, tuple(values))


def _within(value: int, bits: int) -> int:
    """A constant as the signed number that has its bits."""
    if not -(1 << bits - 1) <= value < 1 << bits:
        msg = f"{value} has more than {bits} bits"
        raise ValueError(msg)
    return value - (1 << bits) if value >= 1 << bits - 1 else value


def _signature(text: str) -> Signature:
    sides: dict[str, tuple[str, ...]] = {"param": (), "result": ()}
    if _SIDE.sub("", text).strip():
        msg = f"{text!r} is not a function type"
        raise ValueError(msg)
    for which, types in _SIDE.findall(text):
        sides[which] += tuple(types.split())
    return sides["param"], sides["result"]


def _block(module: Module, text: str) -> int:
    signature = _signature(text)
    if signature == ((), ()):
        return -64
    if not signature[0] and len(signature[1]) == 1:
        return TYPE_CODES[signature[1][0]] - 0x80
    return module.type_number(signature)


def _access(name: str, words: list[str]) -> list[int]:
    offset, align, lane = 0, natural_bytes(name), []
    for word in words:
        if word.startswith("offset="):
            offset = int(word[7:])
        elif word.startswith("align="):
            align = int(word[6:])
        else:
            lane.append(int(word))
    return [align.bit_length() - 1, offset, *lane]
