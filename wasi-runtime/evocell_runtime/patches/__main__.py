"""Look into the interpreter, for those who write patches.

python -m evocell_runtime.patches show NAME        a function as text
python -m evocell_runtime.patches find PATTERN     names of functions, by a regular expression
python -m evocell_runtime.patches callers NAME     functions that call one
python -m evocell_runtime.patches check            whether every patch fits
python -m evocell_runtime.patches page             the text of docs/patches.md
"""

from __future__ import annotations

import re
import sys
import time

from evocell_runtime import artifacts
from evocell_runtime.errors import ImageError
from evocell_runtime.patches import CODE_PATCHES, PATCHES
from evocell_runtime.patches.instructions import after_locals, instructions, signature_text, text_of
from evocell_runtime.patches.layer import apply_patches, body_digest
from evocell_runtime.patches.module import VALUE_TYPES, Module, open_module
from evocell_runtime.patches.page import render

_DEEPER = ("block", "loop", "if", "try_table")


def show(module: Module, name: str) -> str:
    """A function as text: what it is, and a line with the offset for each instruction."""
    number = module.number(name)
    body = module.body(number)
    groups, _ = after_locals(body)
    own = ", ".join(f"{many} {VALUE_TYPES[kind]}" for many, kind in groups)
    lines = [
        f"{module.name(number)} {signature_text(module.signature(number))}",
        f"number {number}, {len(body)} bytes, SHA-256 {body_digest(body)}",
        f"local variables after the parameters: {own or 'none'}",
    ]
    depth = 0
    for one in instructions(body):
        depth -= one.name in ("end", "else")
        lines.append(f"{one.at:7}  {'  ' * max(depth, 0)}{text_of(module, one)}")
        depth += one.name in _DEEPER or one.name == "else"
    return "\n".join(lines)


def callers(module: Module, name: str) -> str:
    """The functions that call one, with how often; by the bytes of the call, so a few may be there by chance."""
    number = module.number(name)
    padded = b"\x10" + bytes(
        [number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14 & 0x7F | 0x80, 0x80, 0]
    )
    short = b"\x10" + bytes([number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14 & 0x7F])
    found = []
    for own, (begin, end) in enumerate(module.bodies):
        body = bytes(module.code[begin:end])
        many = body.count(padded) + body.count(short)
        if many:
            found.append(f"{module.name(own + len(module.imports))} ({many})")
    return "\n".join(found)


def main(words: list[str]) -> int:
    """Serve one command."""
    match words:
        case ["page"]:
            sys.stdout.write(render(PATCHES))
            return 0
        case ["check"]:
            wasm = artifacts.read_checked(artifacts.locate().wasm)
            begun = time.perf_counter()
            apply_patches(wasm, CODE_PATCHES)
            sys.stdout.write(f"{len(CODE_PATCHES)} patches fit; {time.perf_counter() - begun:.2f} s\n")
            return 0
        case ["show", name]:
            text = show(_module(), name)
        case ["callers", name]:
            text = callers(_module(), name)
        case ["find", pattern]:
            module = _module()
            wanted = re.compile(pattern)
            text = "\n".join(
                module.name(number)
                for name, numbers in sorted(module.names().items())
                if wanted.search(name)
                for number in numbers
            )
        case _:
            sys.stderr.write(__doc__ or "")
            return 2
    sys.stdout.write(text + "\n")
    return 0


def _module() -> Module:
    return open_module(artifacts.read_checked(artifacts.locate().wasm))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ImageError as error:
        sys.exit(str(error))
