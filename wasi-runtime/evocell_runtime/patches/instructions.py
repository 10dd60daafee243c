"""Function bodies read into instructions, and instructions written as text.

The text is that of WAT, one instruction a line, without indentation: functions by their names in the interpreter,
locals, globals and labels by their numbers, floats by their bits (`f64.const 0x3ff0000000000000`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import frozen

from evocell_runtime.errors import ImageError
from evocell_runtime.leb128 import read_signed, read_unsigned, write_unsigned
from evocell_runtime.patches.module import VALUE_TYPES, Module, Signature
from evocell_runtime.patches.opcodes import BY_CODE, PREFIXED, natural_bytes

_EMPTY = 0x40
_CATCHES = ("catch", "catch_ref", "catch_all", "catch_all_ref")
_HEAP_TYPES = {0x70: "func", 0x6F: "extern", 0x69: "exn"}


@frozen
class Instruction:
    """One instruction of a function's body.

    Attributes:
        at: Its offset in the body, in bytes.
        end: The offset after it.
        name: Its name.
        kinds: The kinds of its immediates (see `opcodes.BY_CODE`).
        immediates: What follows the opcode, as numbers.
    """

    at: int
    end: int
    name: str
    kinds: str
    immediates: tuple[int, ...]


def after_locals(body: bytes | memoryview) -> tuple[list[tuple[int, int]], int]:
    """The groups of local variables (how many of which type), and where the instructions begin."""
    count, at = read_unsigned(body, 0)
    groups = []
    for _ in range(count):
        many, at = read_unsigned(body, at)
        groups.append((many, body[at]))
        at += 1
    return groups, at


def write_locals(groups: list[tuple[int, int]]) -> bytes:
    """The beginning of a body: its groups of local variables."""
    return write_unsigned(len(groups)) + b"".join(
        write_unsigned(many) + bytes([kind]) for many, kind in groups
    )


def instructions(body: bytes | memoryview) -> Iterator[Instruction]:
    """Read a body's instructions in order.

    Raises:
        ImageError: One is not known.
        ValueError: An integer is malformed.
    """
    _, at = after_locals(body)
    while at < len(body):
        begun, opcode, number = at, body[at], 0
        at += 1
        if opcode in PREFIXED:
            number, at = read_unsigned(body, at)
        if (opcode, number) not in BY_CODE:
            msg = f"there is no instruction that begins with {bytes(body[begun : begun + 4]).hex(' ')}"
            raise ImageError(msg)
        name, kinds = BY_CODE[opcode, number]
        values: list[int] = []
        for kind in kinds:
            at = _READERS[kind](body, at, values)
        yield Instruction(begun, at, name, kinds, tuple(values))


def text_of(module: Module, one: Instruction) -> str:
    """Write an instruction as a line."""
    return " ".join([one.name, *_words(module, one)])


def signature_text(signature: Signature) -> str:
    """Write a function type as WAT does."""
    params, results = signature
    parts = [f"({word} {' '.join(side)})" for word, side in (("param", params), ("result", results)) if side]
    return " ".join(parts)


def _words(module: Module, one: Instruction) -> list[str]:
    values = list(one.immediates)
    match one.kinds:
        case "F":
            return [module.name(values[0])]
        case "T":
            return [text for text in (signature_text(module.types[values[0]]),) if text]
        case "B":
            return _block(module, values[0])
        case "C":
            words = _block(module, values[0])
            for kind, tag, label in zip(values[1::3], values[2::3], values[3::3], strict=True):
                words.append(f"({_CATCHES[kind]}{f' {tag}' if kind < 2 else ''} {label})")
            return words
        case "M" | "m":
            align, offset, *lane = values
            words = [f"offset={offset}"] if offset else []
            words += [f"align={1 << align}"] if 1 << align != natural_bytes(one.name) else []
            return words + [str(number) for number in lane]
        case "f":
            return [f"0x{values[0]:08x}"]
        case "d":
            return [f"0x{values[0]:016x}"]
        case "W":
            return [f"0x{value:02x}" for value in values]
        case "H":
            return [_HEAP_TYPES.get(values[0], str(values[0]))]
        case "0" | "00":
            return []
        case _:
            return [str(value) for value in values]


def _block(module: Module, value: int) -> list[str]:
    if value >= 0:
        return [signature_text(module.types[value])]
    return [] if value & 0x7F == _EMPTY else [f"(result {VALUE_TYPES[value & 0x7F]})"]


Reader = Callable[[bytes | memoryview, int, list[int]], int]


def _unsigned(body: bytes | memoryview, at: int, values: list[int]) -> int:
    value, at = read_unsigned(body, at)
    values.append(value)
    return at


def _signed(body: bytes | memoryview, at: int, values: list[int]) -> int:
    value, at = read_signed(body, at)
    values.append(value)
    return at


def _typed(body: bytes | memoryview, at: int, values: list[int]) -> int:
    at = _unsigned(body, at, values)
    return _unsigned(body, at, values)


def _labels(body: bytes | memoryview, at: int, values: list[int]) -> int:
    count, at = read_unsigned(body, at)
    for _ in range(count + 1):
        at = _unsigned(body, at, values)
    return at


def _catching(body: bytes | memoryview, at: int, values: list[int]) -> int:
    at = _signed(body, at, values)
    count, at = read_unsigned(body, at)
    for _ in range(count):
        values.append(body[at])
        if body[at] < 2:
            at = _unsigned(body, at + 1, values)
        else:
            values.append(0)
            at += 1
        at = _unsigned(body, at, values)
    return at


def _fixed(size: int, *, single: bool) -> Reader:
    def read(body: bytes | memoryview, at: int, values: list[int]) -> int:
        raw = bytes(body[at : at + size])
        values.extend([int.from_bytes(raw, "little")] if single else raw)
        return at + size

    return read


def _accessed(body: bytes | memoryview, at: int, values: list[int]) -> int:
    return _typed(body, at, values)


def _accessed_lane(body: bytes | memoryview, at: int, values: list[int]) -> int:
    at = _typed(body, at, values)
    values.append(body[at])
    return at + 1


_BYTE = _fixed(1, single=True)
_READERS: dict[str, Reader] = {
    "B": _signed,
    "C": _catching,
    "F": _unsigned,
    "G": _unsigned,
    "H": _unsigned,
    "L": _labels,
    "M": _accessed,
    "T": _typed,
    "V": _unsigned,
    "W": _fixed(16, single=False),
    "0": _BYTE,
    "d": _fixed(8, single=True),
    "f": _fixed(4, single=True),
    "l": _BYTE,
    "m": _accessed_lane,
    "s": _signed,
    "u": _unsigned,
}
