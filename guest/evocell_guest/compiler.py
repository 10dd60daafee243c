"""The compile operation: one parse, a scan for blocked imports, byte code for every module.

It runs in a fork of its own that never runs a variant's code, with the guest's own grammar.
"""

from __future__ import annotations

import ast
import marshal
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .marks import marks
from .packing import pack_files
from .tracebacks import clip, message, type_name

_IMPORTERS = frozenset({"__import__", "import_module"})
_MAX_TEXT_BYTES = 400


class Refused(Exception):
    """A file cannot become part of a version; `answer` is what to tell the host."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer)
        self.answer = answer


def compile_version(
    files: Iterable[Sequence[Any]],
    blocked: Iterable[str],
    optimize: int = -1,
    root: str = "/app",
    *,
    units: bool = False,
) -> dict[str, Any]:
    """Compile a version's files.

    Args:
        files: Pairs of path, relative to `root`, and content; those that are not Python are ignored.
        blocked: Modules that must not be imported, submodules included.
        optimize: As for `compile`.
        root: Directory at which the guest will see the files.
        units: Whether to answer with the files one by one, for the host to keep and to pack.

    Returns:
        The answer for the host: ``{"t": "compiled", "code", "imports"}``, or with ``units``
        ``{"t": "compiled", "units": [[path, code, imports, marks], ...]}``, or
        ``{"t": "rejected", "kind", "message", "path", "line", "column", "text"}``.
    """
    source = _Sources(frozenset(blocked), optimize)
    done: list[tuple[str, bytes, list[str], list[Any]]] = []
    try:
        for path, content in files:
            if path.endswith(".py"):
                done.append((path, *source.compile(path, f"{root}/{path}", content)))
    except Refused as refused:
        return refused.answer
    if units:
        return {"t": "compiled", "units": [list(unit) for unit in done]}
    code = pack_files(root, [(path, code, marks) for path, code, _, marks in done])
    return {"t": "compiled", "code": code, "imports": sorted({name for unit in done for name in unit[2]})}


class _Sources:
    """How the files of one version are compiled, and what they must not import."""

    def __init__(self, blocked: frozenset[str], optimize: int) -> None:
        self._blocked = blocked
        self._optimize = optimize

    def compile(self, path: str, filename: str, content: bytes) -> tuple[bytes, list[str], list[Any]]:
        """Return the marshalled code of one file, what it imports, and its marks; or raise `Refused`."""
        try:
            with warnings.catch_warnings():
                # A variant's questionable escapes are no business of the host's.
                warnings.simplefilter("ignore")
                tree = ast.parse(content, filename)
                imports = self._scan(path, tree, content)
                code = compile(tree, filename, "exec", dont_inherit=True, optimize=self._optimize)
            return marshal.dumps(code), imports, marks(tree, content)
        except SyntaxError as error:
            place = (error.lineno, error.offset, error.text if isinstance(error.text, str) else None)
            raise _refused("syntax", error.msg or type_name(error), path, place) from None
        except (RecursionError, MemoryError):
            what = "the source is nested too deeply, or is too large, for the compiler; split it up"
            raise _refused("compile", what, path) from None
        except ValueError as error:
            # "source code string cannot contain null bytes", before Python 3.12
            raise _refused("syntax", message(error), path) from None

    def _scan(self, path: str, tree: ast.AST, content: bytes) -> list[str]:
        """Return the top-level names of what is imported, sorted; refuse what must not be."""
        imports: set[str] = set()
        for node in ast.walk(tree):
            for name in _imported(node):
                imports.add(name.partition(".")[0])
                culprit = _blocked_prefix(name, self._blocked)
                if culprit:
                    line, column = getattr(node, "lineno", None), getattr(node, "col_offset", -1) + 1
                    what = f"import of {name!r} is blocked: {culprit!r} is among the blocked modules"
                    raise _refused("security", what, path, (line, column, _line(content, line)))
        return sorted(imports)


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
