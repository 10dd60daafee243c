"""Difference of two versions: a unified diff, and the changed functions and classes.

It runs in a fork of its own, because comparing untrusted texts may take arbitrarily long.
"""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from .packing import module_name
from .tracebacks import clip

MAX_DIFF_BYTES = 1 << 20
_MAX_NAMES = 10_000
_Definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

# A definition's kind, and its tree as text without positions.
Definition = tuple[str, str]


def diff(
    old: Iterable[tuple[str, bytes]], new: Iterable[tuple[str, bytes]], context: int = 3
) -> dict[str, Any]:
    """Compare two versions' files.

    Args:
        old: Pairs of path and content.
        new: The same of the later version.
        context: Lines around each change.

    Returns:
        The answer for the host: ``{"t": "diff", "unified", "added", "removed", "changed"}``, the last three
        with names such as ``"module:Class.method"``; ``"module"`` alone stands for top-level statements.
    """
    before, after = dict(old), dict(new)
    unified: list[str] = []
    size = 0
    for path in sorted(before.keys() | after.keys()):
        for line in _unified(path, before.get(path), after.get(path), context):
            size += len(line)
            if size > MAX_DIFF_BYTES:
                break
            unified.append(line)
    if size > MAX_DIFF_BYTES:
        unified.append(f"... the rest of the diff, beyond {MAX_DIFF_BYTES} characters, is left out\n")
    was, now = _definitions(before), _definitions(after)
    return {
        "t": "diff",
        "unified": "".join(unified),
        "added": _named(now.keys() - was.keys()),
        "removed": _named(was.keys() - now.keys()),
        "changed": _named({name for name in was.keys() & now.keys() if was[name] != now[name]}),
    }


def _named(names: Iterable[str]) -> list[str]:
    return [clip(name, 500) for name in sorted(names)[:_MAX_NAMES]]


def _unified(path: str, old: bytes | None, new: bytes | None, context: int) -> Iterator[str]:
    if old == new:
        return
    before, after = (
        f"a/{path}" if old is not None else "/dev/null",
        f"b/{path}" if new is not None else "/dev/null",
    )
    if b"\0" in (old or b"") or b"\0" in (new or b""):
        yield f"Binary files {before} and {after} differ\n"
        return
    for line in difflib.unified_diff(_lines(old), _lines(new), before, after, n=context):
        yield line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"


def _lines(content: bytes | None) -> list[str]:
    return [] if content is None else content.decode("utf-8", "replace").splitlines(keepends=True)


def _definitions(files: dict[str, bytes]) -> dict[str, Definition]:
    found: dict[str, Definition] = {}
    for path, content in files.items():
        if not path.endswith(".py"):
            continue
        module = module_name(path)[0] or path
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(content)
            _collect(tree, f"{module}:", module, found)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            found[module] = ("text", repr(content))
    return found


def _collect(node: ast.Module | ast.ClassDef, prefix: str, own: str, found: dict[str, Definition]) -> None:
    """Record a module or class without its definitions, and each definition."""
    rest: list[ast.stmt] = []
    for statement in node.body:
        if not isinstance(statement, _Definition):
            rest.append(statement)
            continue
        name = prefix + statement.name
        while name in found:  # redefined, for example by overloads
            name += "'"
        if isinstance(statement, ast.ClassDef):
            _collect(statement, f"{name}.", name, found)
        else:
            found[name] = ("function", ast.dump(statement))
    head = [] if isinstance(node, ast.Module) else [*node.bases, *node.keywords, *node.decorator_list]
    text = "\n".join(ast.dump(part) for part in [*head, *rest])
    if text or isinstance(node, ast.ClassDef):
        found[own] = (type(node).__name__, text)
