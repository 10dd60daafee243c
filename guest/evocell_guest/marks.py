"""Checksums of the statements that bind a module's names, including their dependencies.

A reload in place keeps the value of a name if the code that binds it is unchanged: see `swap`. Values and
functions that the code uses count, if defined in the module itself; classes do not, because an instance
survives a change of its class.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any
from zlib import crc32

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
_Import = (ast.Import, ast.ImportFrom)


def marks(tree: ast.Module, content: bytes) -> list[list[Any]]:
    """Return the names of values and classes that a module binds, each with the checksum of its binding.

    Args:
        tree: The module.
        content: Its source text.

    Returns:
        Pairs of name and checksum, sorted by name; several statements that bind one name count together.
    """
    bound = [(statement, set(_bound(statement))) for statement in tree.body]
    wanted: set[str] = set()
    for statement, names in bound:
        if not isinstance(statement, (*_Function, *_Import)):
            wanted |= names
    if not wanted:
        return []
    lines = content.splitlines(keepends=True)
    texts: dict[str, int] = {}
    used: dict[str, set[str]] = {}
    classes: set[str] = set()
    for statement, names in bound:
        if names:
            text = _text(statement, lines)
            loads = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            for name in names:
                texts[name] = crc32(text, texts.get(name, 0))
                used.setdefault(name, set()).update(loads)
            if isinstance(statement, ast.ClassDef):
                classes |= names
    values = texts.keys() - classes
    made_with = {name: used[name] & values for name in texts}
    sums = _checksums(texts, made_with)
    return [[name, sums[name]] for name in sorted(wanted)]


def _checksums(texts: dict[str, int], used: dict[str, set[str]]) -> dict[str, int]:
    """Return for each name a checksum of its binding statements, and of those of its dependencies.

    Mutually dependent names share a checksum. The strongly connected components are found in one pass, each
    after its dependencies (Tarjan 1972), in time linear in names and uses.
    """
    sums: dict[str, int] = {}
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_names: list[str] = []
    for root in texts:
        walk = [] if root in order else [(root, iter(sorted(used[root])))]
        while walk:
            name, others = walk[-1]
            if name not in order:
                order[name] = lowest[name] = len(order)
                open_names.append(name)
            deeper = False
            for other in others:
                if other not in order:
                    walk.append((other, iter(sorted(used[other]))))
                    deeper = True
                    break
                if other not in sums:
                    lowest[name] = min(lowest[name], order[other])
            if deeper:
                continue
            walk.pop()
            if walk:
                above = walk[-1][0]
                lowest[above] = min(lowest[above], lowest[name])
            if lowest[name] == order[name]:
                at = len(open_names) - 1
                while open_names[at] != name:
                    at -= 1
                _sum_group(sorted(open_names[at:]), texts, used, sums)
                del open_names[at:]
    return sums


def _sum_group(
    group: list[str], texts: dict[str, int], used: dict[str, set[str]], sums: dict[str, int]
) -> None:
    """Set the checksums of a group of mutually dependent names, whose other dependencies are done."""
    beyond = {other: sums[other] for name in group for other in used[name] if other in sums}
    together = repr([[(name, texts[name]) for name in group], sorted(beyond.items())]).encode()
    total = crc32(together)
    for name in group:
        sums[name] = crc32(repr((texts[name], total)).encode())


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Return the names that a statement binds in the module's namespace."""
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
