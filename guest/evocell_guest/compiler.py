"""The compile operation: one parse, a scan for blocked imports, byte code for every module.

It runs in a fork of its own that never runs a variant's code, with the guest's own grammar.
"""

from __future__ import annotations

import ast
import marshal
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .loader import Table, pack
from .tracebacks import clip, message, type_name

_IMPORTERS = frozenset({"__import__", "import_module"})
_MAX_TEXT_BYTES = 400


class Refused(Exception):
    """A file cannot become part of a version; `answer` is what to tell the host."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer)
        self.answer = answer


def compile_version(
    files: Iterable[Sequence[Any]], blocked: Iterable[str], optimize: int = -1, root: str = "/app"
) -> dict[str, Any]:
    """Compile a version's files.

    Args:
        files: Pairs of path, relative to `root`, and content; those that are not Python are ignored.
        blocked: Modules that must not be imported, submodules included.
        optimize: As for `compile`.
        root: Directory at which the guest will see the files.

    Returns:
        The answer for the host: ``{"t": "compiled", "code", "imports"}`` or
        ``{"t": "rejected", "kind", "message", "path", "line", "column", "text"}``.
    """
    table: Table = {}
    source = _Sources(frozenset(blocked), optimize)
    try:
        for path, content in files:
            if not path.endswith(".py"):
                continue
            filename = f"{root}/{path}"
            code = source.compile(path, filename, content)
            name, package = module_name(path)
            if name and (package or name not in table):
                table[name] = (package, filename, code)
    except Refused as refused:
        return refused.answer
    _add_namespaces(table, root)
    return {"t": "compiled", "code": pack(root, table), "imports": sorted(source.imports)}


def module_name(path: str) -> tuple[str, bool]:
    """Return the module that a file holds, and whether it is a package.

    The name is empty if nothing can import the file (``a.b.py``, an ``__init__.py`` at the root).
    """
    parts = path[: -len(".py")].split("/")
    package = parts[-1] == "__init__"
    if package:
        parts.pop()
    return ("" if any("." in part or not part for part in parts) else ".".join(parts)), package


def _add_namespaces(table: Table, root: str) -> None:
    """Make directories without an ``__init__.py`` importable, unless a module has their name."""
    for name in list(table):
        parent = name.rpartition(".")[0]
        while parent and parent not in table:
            table[parent] = (True, f"{root}/{parent.replace('.', '/')}", None)
            parent = parent.rpartition(".")[0]


class _Sources:
    """The files of one version: what they import, and what they must not."""

    def __init__(self, blocked: frozenset[str], optimize: int) -> None:
        self.imports: set[str] = set()
        self._blocked = blocked
        self._optimize = optimize

    def compile(self, path: str, filename: str, content: bytes) -> bytes:
        """Return the marshalled code of one file, or raise `Refused`."""
        try:
            with warnings.catch_warnings():
                # A variant's questionable escapes are no business of the host's.
                warnings.simplefilter("ignore")
                tree = ast.parse(content, filename)
                self._scan(path, tree, content)
                code = compile(tree, filename, "exec", dont_inherit=True, optimize=self._optimize)
            return marshal.dumps(code)
        except SyntaxError as error:
            place = (error.lineno, error.offset, error.text if isinstance(error.text, str) else None)
            raise _refused("syntax", error.msg or type_name(error), path, place) from None
        except (RecursionError, MemoryError):
            what = "the source is nested too deeply, or is too large, for the compiler; split it up"
            raise _refused("compile", what, path) from None
        except ValueError as error:
            # "source code string cannot contain null bytes", before Python 3.12
            raise _refused("syntax", message(error), path) from None

    def _scan(self, path: str, tree: ast.AST, content: bytes) -> None:
        """Collect the top-level names of what is imported; refuse what must not be."""
        for node in ast.walk(tree):
            for name in _imported(node):
                self.imports.add(name.partition(".")[0])
                culprit = _blocked_prefix(name, self._blocked)
                if culprit:
                    line, column = getattr(node, "lineno", None), getattr(node, "col_offset", -1) + 1
                    what = f"import of {name!r} is blocked: {culprit!r} is among the blocked modules"
                    raise _refused("security", what, path, (line, column, _line(content, line)))


def _refused(
    kind: str, what: str, path: str, place: tuple[int | None, int | None, str | None] = (None, None, None)
) -> Refused:
    line, column, text = place
    answer = {
        "t": "rejected",
        "kind": kind,
        "message": clip(what, _MAX_TEXT_BYTES * 4),
        "path": path,
        "line": line,
        "column": column,
        "text": None if text is None else clip(text.rstrip("\r\n"), _MAX_TEXT_BYTES),
    }
    return Refused(answer)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        if node.level == 0 and node.module:
            yield node.module
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
    elif isinstance(node, ast.Call) and node.args:
        called = node.func
        name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", None)
        first = node.args[0]
        constant = first.value if isinstance(first, ast.Constant) else None
        # A relative name cannot be told from here.
        if name in _IMPORTERS and isinstance(constant, str) and constant and constant[0] != ".":
            yield constant


def _blocked_prefix(name: str, blocked: frozenset[str]) -> str:
    while name and name not in blocked:
        name = name.rpartition(".")[0]
    return name


def _line(content: bytes, line: int | None) -> str | None:
    lines = content.splitlines()
    return lines[line - 1].decode("utf-8", "replace") if line and line <= len(lines) else None
