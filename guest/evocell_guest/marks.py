"""What the statements that bind a module's names look like.

A reload in place keeps the value of a name that both versions bind in the same way: see `swap`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from zlib import crc32

_BINDING = (
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.NamedExpr,
    ast.For,
    ast.With,
    ast.If,
    ast.Try,
    ast.While,
)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def marks(tree: ast.Module, content: bytes) -> list[list[object]]:
    """Return the names that a module's own statements bind, each with a checksum of those statements.

    Args:
        tree: The module.
        content: Its text, from which the statements are taken.

    Returns:
        Pairs of name and checksum, sorted by name; several statements that bind one name count together.
    """
    lines = content.splitlines(keepends=True)
    found: dict[str, int] = {}
    for statement in tree.body:
        names = {statement.name} if isinstance(statement, ast.ClassDef) else set(_bound(statement))
        if names:
            text = _text(statement, lines)
            for name in names:
                found[name] = crc32(text, found.get(name, 0))
    return [[name, found[name]] for name in sorted(found)]


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement binds to values, not those of functions and imports."""
    if not isinstance(statement, _BINDING):
        return
    pending: list[ast.AST] = [statement]
    while pending:
        node = pending.pop()
        if isinstance(node, _DEFINITIONS):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        pending.extend(ast.iter_child_nodes(node))


def _text(statement: ast.stmt, lines: list[bytes]) -> bytes:
    decorated = getattr(statement, "decorator_list", None)
    first = min([statement.lineno, *(one.lineno for one in decorated or ())])
    text = b"".join(lines[first - 1 : statement.end_lineno])
    return text.strip()
