"""What a patch is: a named, small, checked change to the pinned interpreter, and why it is made."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen


def _text(value: str) -> str:
    return "\n".join(line for line in (part.split(";")[0].strip() for part in value.splitlines()) if line)


@frozen(kw_only=True)
class Patch:
    """One change.

    Attributes:
        name: What it is called in the documentation, in errors and in an image's manifest. A change that is made at
            many places is several patches of one name, one after the other.
        why: One or two sentences for that page: what is wrong without it.
    """

    name: str
    why: str


@frozen(kw_only=True)
class Edit(Patch):
    """Some instructions of one function become others.

    Attributes:
        function: The function's name; `name#2` is the second function of that name.
        expected: The instructions as `python -m evocell_runtime.patches show` prints them, one a line.
        replacement: What they become, in the same form; may be longer, shorter or empty.
        occurrence: Which of several such runs is meant, from 0; None: there must be exactly one.
        places: How many such runs there are, if all of them are meant.
        new_locals: Types of local variables to add; the text calls them `new0`, `new1`, and so on.
    """

    function: str
    expected: str = field(converter=_text)
    replacement: str = field(converter=_text)
    occurrence: int | None = None
    places: int | None = None
    new_locals: tuple[str, ...] = ()


@frozen(kw_only=True)
class Form:
    """What one instruction becomes wherever it is.

    Attributes:
        instruction: Its name; one without immediates, of those that begin with the byte 0xfc.
        replacement: What it becomes, as in an edit; `new0` is a local variable of the type `local`.
        narrow: What it becomes where the next instructions keep the low 8 or 16 bits of its result only.
        local: The type of the variable; functions have one for each type that is needed.
        places: How often the instruction is in the module, and in how many of these places its result is narrowed.
    """

    instruction: str
    replacement: str = field(converter=_text)
    narrow: str = field(converter=_text)
    local: str
    places: tuple[int, int]


@frozen(kw_only=True)
class Everywhere(Patch):
    """Instructions become others in all functions.

    Attributes:
        forms: Which, and what they become.
    """

    forms: tuple[Form, ...]


@frozen(kw_only=True)
class Donor(Patch):
    """Whole functions are replaced by functions of a small module, written in WAT.

    The module exports each function under the name of the one it replaces; what it does not export is added, and
    so is what it exports under a name that begins with `evocell.`, which other patches can call.
    `(import "interpreter" "NAME" (func ...))` is a function of the interpreter, and
    `(import "original" "NAME" (func ...))` the replaced function as it was. It may import
    `(memory 0)` as "interpreter" "memory", the stack pointer `(global (mut i32))` as "interpreter" "stack_pointer"
    and the function table `(table 0 funcref)` as "interpreter" "table"; it has none of these of its own.

    Attributes:
        expected: For each replaced function, the SHA-256 of its body as `show` prints it.
        wat: The module.
    """

    expected: tuple[tuple[str, str], ...]
    wat: str


@frozen(kw_only=True)
class Data(Patch):
    """Bytes that the memory starts with become others.

    Attributes:
        address: Where they lie in memory.
        expected: The bytes as they are.
        replacement: As many others.
    """

    address: int
    expected: bytes
    replacement: bytes


@frozen(kw_only=True)
class Memory(Patch):
    """Bytes of a running interpreter become others before it is frozen.

    Attributes:
        moment: "started": Python has not run yet; "warmed": the agent and the warm modules are imported.
        address: Where to begin; a fixed address of the pinned interpreter.
        path: Offsets to follow: at each step a pointer is read and the offset added to it.
        expected: The bytes as they must be; None where they differ from image to image.
        replacement: What they become.
    """

    moment: Literal["started", "warmed"]
    address: int
    path: tuple[int, ...] = ()
    expected: bytes | None
    replacement: bytes


CodePatch = Edit | Everywhere | Donor | Data
AnyPatch = Edit | Everywhere | Donor | Data | Memory
