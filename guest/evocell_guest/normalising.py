"""The normal form of a program: the text that its syntax tree gives, without comments and layout.

It is made in a fork of its own, by the guest's grammar; nothing of the program runs.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterable
from typing import Any

ast.unparse(ast.Pass())  # has the module that writes imported, which then is in the image


def normalise(files: Iterable[tuple[str, bytes]]) -> dict[str, Any]:
    """Write files as their syntax trees have them.

    Args:
        files: Pairs of path and content, of Python files that compile.

    Returns:
        The answer for the host: ``{"t": "normalised", "files": [[path, text or None], ...]}``; None where the
        text would not have the same tree again.
    """
    with warnings.catch_warnings():
        # A variant's questionable escapes are no business of the host's.
        warnings.simplefilter("ignore")
        return {"t": "normalised", "files": [[path, _normal(content)] for path, content in files]}


def _same(one: ast.AST, other: ast.AST) -> bool:
    """Whether two trees are equal, places left out."""
    compare: Callable[[ast.AST, ast.AST], bool] | None = getattr(ast, "compare", None)  # from Python 3.14 on
    if compare is None:
        return ast.dump(one) == ast.dump(other)
    return compare(one, other)


def _normal(content: bytes) -> bytes | None:
    try:
        tree = ast.parse(content)
        text = ast.unparse(tree)
        if not _same(ast.parse(text), tree):
            return None
        return text.encode() + b"\n"
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
