"""What the statements that bind a module's names look like, together with what they depend on.

A reload in place keeps the value of a name if nothing has changed about how the module makes it: see
`swap`. Values and functions that it is made with count, as far as they are in the module itself; classes do
not, because an instance outlives a change of its class.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any
from zlib import crc32

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
_Import = (ast.Import, ast.ImportFrom)


def marks(tree: ast.Module, content: bytes) -> list[list[Any]]:
    """Return the names of values and classes that a module binds, each with a checksum of how.

    Args:
        tree: The module.
        content: Its text, from which the statements are taken.

    Returns:
        Pairs of name and checksum, sorted by name; several statements that bind one name count together.
    """
    lines = content.splitlines(keepends=True)
    texts: dict[str, int] = {}
    used: dict[str, set[str]] = {}
    wanted: set[str] = set()
    classes: set[str] = set()
    for statement in tree.body:
        names = set(_bound(statement))
        if names:
            text = _text(statement, lines)
            loads = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            for name in names:
                texts[name] = crc32(text, texts.get(name, 0))
                used.setdefault(name, set()).update(loads)
            if isinstance(statement, ast.ClassDef):
                classes |= names
            if not isinstance(statement, (*_Function, *_Import)):
                wanted |= names
    made_with = {name: used[name] & texts.keys() - classes for name in texts}
    return [[name, _checksum(name, texts, made_with)] for name in sorted(wanted)]


def _checksum(name: str, texts: dict[str, int], used: dict[str, set[str]]) -> int:
    """Checksum of the statements that bind a name, and of those that bind what it is made with."""
    seen = {name}
    pending = [name]
    while pending:
        for other in used[pending.pop()]:
            if other not in seen:
                seen.add(other)
                pending.append(other)
    seen.discard(name)
    return crc32(repr([texts[name], *((other, texts[other]) for other in sorted(seen))]).encode())


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement binds in the module's namespace."""
    pending: list[ast.AST] = [statement]
    while pending:
        node = pending.pop()
        if isinstance(node, (*_Function, ast.ClassDef)):
            yield node.name
        elif isinstance(node, _Import):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                yield node.id
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            if node.name:
                yield node.name
            pending.extend(ast.iter_child_nodes(node))
        elif not isinstance(node, ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))


def _text(statement: ast.stmt, lines: list[bytes]) -> bytes:
    decorators = getattr(statement, "decorator_list", ())
    first = min([statement.lineno, *(one.lineno for one in decorators)])
    return b"".join(lines[first - 1 : statement.end_lineno]).strip()
