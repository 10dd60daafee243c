"""The interpreter's module, opened so that functions and types are found by name and number."""

from __future__ import annotations

from attrs import define, field

from evocell_runtime.errors import ImageError
from evocell_runtime.leb128 import read_unsigned, write_unsigned
from evocell_runtime.rewrite import sections

TYPE, IMPORT, FUNCTION, CODE, DATA = 1, 2, 3, 10, 11
VALUE_TYPES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref", 0x69: "exnref"}
TYPE_CODES = {name: code for code, name in VALUE_TYPES.items()}

Signature = tuple[tuple[str, ...], tuple[str, ...]]
"""The types of a function's parameters and results."""


@define
class Module:
    """A module's parts, of which the small ones are read and the large ones are found.

    Attributes:
        sections: Ids and contents in order.
        types: Signatures by type number; types may be added at the end.
        imports: Names of the imported functions, `module.field`.
        function_types: Type numbers of the module's own functions, with those that were added.
        bodies: Where each of the module's own functions lies in the code section: offset and end.
        code: The code section.
        added: Bodies of functions that were added, in order.
        replaced: New bodies of the module's own functions, by their numbers among all functions.
    """

    sections: list[tuple[int, memoryview]]
    types: list[Signature]
    imports: list[tuple[str, int]]
    function_types: list[int]
    bodies: list[tuple[int, int]]
    code: memoryview
    added: list[bytes] = field(factory=list)
    replaced: dict[int, bytes] = field(factory=dict)
    _numbers: dict[str, list[int]] = field(factory=dict)
    _names: dict[int, str] = field(factory=dict)

    def body(self, number: int) -> bytes | memoryview:
        """The locals and instructions of a function as they are now, by its number among all functions."""
        own = number - len(self.imports)
        if own >= len(self.bodies):
            return self.added[own - len(self.bodies)]
        return self.replaced[number] if number in self.replaced else self.pinned_body(number)

    def pinned_body(self, number: int) -> memoryview:
        """The same as it was before any change."""
        own = number - len(self.imports)
        begin, end = self.bodies[own]
        return self.code[begin:end]

    def add(self, signature: Signature, body: bytes, name: str | None = None) -> int:
        """Add a function at the end, whose body may be set later; its number."""
        number = len(self.imports) + len(self.function_types)
        self.function_types.append(self.type_number(signature))
        self.added.append(body)
        if name is not None:
            self._read_names()
            self._names[number] = name
            self._numbers.setdefault(name, []).append(number)
        return number

    def signature(self, number: int) -> Signature:
        """The types of a function's parameters and results, by its number among all functions."""
        own = number - len(self.imports)
        return self.types[self.function_types[own] if own >= 0 else self.imports[number][1]]

    def type_number(self, signature: Signature) -> int:
        """The number of a function type, which is added if there is none."""
        if signature not in self.types:
            self.types.append(signature)
        return self.types.index(signature)

    def number(self, name: str) -> int:
        """The number of a function by its name; `name#2` is the second of that name.

        Raises:
            ImageError: There is none, or there are several and it was not said which.
        """
        self._read_names()
        plain, _, which = name.rpartition("#") if name.rpartition("#")[2].isdecimal() else (name, "", "")
        found = self._numbers.get(plain, [])
        if not which and len(found) == 1:
            return found[0]
        if which and 1 <= int(which) <= len(found):
            return found[int(which) - 1]
        if not found:
            msg = f"the interpreter has no function {plain}"
        elif which:
            msg = f"the interpreter has {len(found)} functions {plain}, and no {name}"
        else:
            msg = f"the interpreter has {len(found)} functions {plain}; say which, as in {plain}#1"
        raise ImageError(msg)

    def name(self, number: int) -> str:
        """The name by which `number` finds a function."""
        self._read_names()
        plain = self._names.get(number)
        if plain is None:
            return f"{number}"
        same = self._numbers[plain]
        return plain if len(same) == 1 else f"{plain}#{same.index(number) + 1}"

    def names(self) -> dict[str, list[int]]:
        """The numbers of functions by name."""
        self._read_names()
        return self._numbers

    def _read_names(self) -> None:
        if self._numbers:
            return
        for sid, section in self.sections:
            if sid or bytes(section[:5]) != b"\x04name":
                continue
            at = 5
            while at < len(section):
                kind = section[at]
                size, at = read_unsigned(section, at + 1)
                if kind == 1:
                    self._take_names(bytes(section[at : at + size]))
                at += size

    def _take_names(self, listed: bytes) -> None:
        count, at = read_unsigned(listed, 0)
        names = self._names
        for _ in range(count):
            number, at = read_unsigned(listed, at)
            size, at = read_unsigned(listed, at)
            names[number] = listed[at : at + size].decode(errors="replace")
            at += size
        for number, name in names.items():
            self._numbers.setdefault(name, []).append(number)


def open_module(wasm: bytes) -> Module:
    """Find the parts of a module.

    Raises:
        ImageError: It is not well formed.
    """
    try:
        found = sections(memoryview(wasm))
        by_id = {sid: body for sid, body in found if sid}
        nothing = memoryview(b"\0")
        code = by_id.get(CODE, nothing)
        return Module(
            sections=found,
            types=_types(by_id.get(TYPE, nothing)),
            imports=_imports(by_id.get(IMPORT, nothing)),
            function_types=_numbers(by_id.get(FUNCTION, nothing)),
            bodies=_bodies(code),
            code=code,
        )
    except (ValueError, IndexError, KeyError) as e:
        msg = f"the interpreter is not a well-formed WebAssembly module: {e}"
        raise ImageError(msg) from e


def write_types(types: list[Signature]) -> bytes:
    """The contents of a section of types."""
    out = bytearray(write_unsigned(len(types)))
    for signature in types:
        out.append(0x60)
        for side in signature:
            out += write_unsigned(len(side)) + bytes(TYPE_CODES[name] for name in side)
    return bytes(out)


def _types(body: memoryview) -> list[Signature]:
    count, at = read_unsigned(body, 0)
    found: list[Signature] = []
    for _ in range(count):
        if body[at] != 0x60:
            msg = f"type {len(found)} is not a function type"
            raise ValueError(msg)
        params, at = _value_types(body, at + 1)
        results, at = _value_types(body, at)
        found.append((params, results))
    return found


def _value_types(body: memoryview, at: int) -> tuple[tuple[str, ...], int]:
    count, at = read_unsigned(body, at)
    return tuple(VALUE_TYPES[code] for code in body[at : at + count]), at + count


def _imports(body: memoryview) -> list[tuple[str, int]]:
    """The imported functions; other imports are passed over."""
    count, at = read_unsigned(body, 0)
    found: list[tuple[str, int]] = []
    for _ in range(count):
        names = []
        for _ in range(2):
            size, at = read_unsigned(body, at)
            names.append(bytes(body[at : at + size]).decode())
            at += size
        kind = body[at]
        if kind == 0:
            number, at = read_unsigned(body, at + 1)
            found.append((".".join(names), number))
        elif kind == 3:
            at += 3
        else:  # a table has its type first, and both have limits
            at += 1 + (kind == 1)
            limited = body[at] & 1
            _, at = read_unsigned(body, at + 1)
            if limited:
                _, at = read_unsigned(body, at)
    return found


def _numbers(body: memoryview) -> list[int]:
    count, at = read_unsigned(body, 0)
    found = []
    for _ in range(count):
        number, at = read_unsigned(body, at)
        found.append(number)
    return found


def _bodies(code: memoryview) -> list[tuple[int, int]]:
    count, at = read_unsigned(code, 0)
    found = []
    for _ in range(count):
        size, at = read_unsigned(code, at)
        found.append((at, at + size))
        at += size
    return found
