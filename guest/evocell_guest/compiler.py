"""Compile operation: one parse, the security gate, byte code for every module.

It runs in a fork of its own that never runs a variant's code, with the guest's own grammar.
"""

from __future__ import annotations

import ast
import marshal
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter_ns
from types import CodeType
from typing import Any

from .answers import packed_answer, packed_time, packed_trees
from .gate import Finding, Gate, mark_blocked
from .marks import marks
from .packing import module_name, pack_files
from .tracebacks import clip, message, type_name
from .transform import CannotPrefix, prefix_module
from .words import SHORT_CHARS, defines_functions_only, text_of, words_of

_MAX_TEXT_BYTES = 400

TRUSTED: Mapping[str, Any] = {
    "profile": "none",
    "enforce": True,
    "blocked": (),
    "allowed": None,
    "names": (),
    "attributes": (),
    "builtins": (),
    "events": {},
}
"""The policy of trusted code."""


class Refused(Exception):
    """A file is rejected; `answer` is the answer for the host."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer)
        self.answer = answer


def compile_version(
    files: Iterable[Sequence[Any]],
    policy: Mapping[str, Any] | None = None,
    optimize: int = -1,
    root: str = "/app",
    *,
    own: Iterable[str] = (),
    prefix: str = "",
    units: bool = False,
) -> dict[str, Any]:
    """Compile a version's files.

    Args:
        files: Pairs of path, relative to `root`, and content; those that are not Python are ignored.
        policy: The policy of the security gate, see `Gate`; with ``enforce`` false it only reports. None
            for trusted code.
        optimize: As for `compile`.
        root: Directory at which the guest will see the files.
        own: Top-level names of the version's own modules.
        prefix: Prefix of the names of its modules, see `transform`; may be empty.
        units: Whether to answer with the files one by one, for the host to cache and to pack.

    Returns:
        The answer for the host: ``{"t": "compiled", "code", "imports"}``, or with ``units``
        ``{"t": "compiled", "units": [[path, code, imports, marks, findings], ...]}``, or
        ``{"t": "rejected", "kind", "message", "path", "line", "column", "text"}``.
    """
    sources = _Sources(policy, optimize, root, prefix)
    with _quiet():
        answer = _answer(sources, files, frozenset(own))
    if units or answer["t"] != "compiled":
        return answer
    done = answer["units"]
    code = pack_files(root, [(path, code, marks) for path, code, _, marks, _ in done])
    return {"t": "compiled", "code": code, "imports": sorted({name for unit in done for name in unit[2]})}


def compile_trees(
    trees: Iterable[Sequence[Any]],
    policy: Mapping[str, Any] | None,
    optimize: int,
    root: str,
    prefix: str,
) -> bytes:
    """Compile several versions in turn, without running any.

    Args:
        trees: Pairs of the files of a version and the top-level names of its modules.
        policy: As for `compile_version`.
        optimize: As for `compile_version`.
        root: As for `compile_version`.
        prefix: As for `compile_version`.

    Returns:
        The encoded ``{"t": "compiled", "trees": [[answer, nanoseconds], ...]}``, each answer as
        `compile_version` gives it with ``units``, or ``[path, code, ...]`` of files without imports, marks
        and findings; and the time it took by the virtual clock, which is its fuel divided by ten.
    """
    sources = _Sources(policy, optimize, root, prefix)
    answers: list[bytes] = []
    with _quiet():
        for files, own in trees:
            began_ns = perf_counter_ns()
            answers.append(packed_answer(_answer(sources, files, frozenset(own))))
            answers.append(packed_time(perf_counter_ns() - began_ns))
    return packed_trees(answers)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings, such as about a variant's invalid escapes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _answer(sources: _Sources, files: Iterable[Sequence[Any]], own: frozenset[str]) -> dict[str, Any]:
    """Compile a version's files; return the answer for the host, with the files one by one."""
    try:
        units = [
            [path, *sources.compile(path, content, own)] for path, content in files if path.endswith(".py")
        ]
    except Refused as refused:
        return refused.answer
    return {"t": "compiled", "units": units}


class _Sources:
    """Settings of a compilation, with its gate."""

    def __init__(self, policy: Mapping[str, Any] | None, optimize: int, root: str, prefix: str) -> None:
        rules = TRUSTED if policy is None else policy
        self._gate = Gate(rules)
        self._enforce = rules["enforce"]
        self._optimize = optimize
        self._root = root
        self._prefix = prefix

    def compile(
        self, path: str, content: bytes, own: frozenset[str]
    ) -> tuple[bytes, list[str], list[Any], list[str]]:
        """Return a file's marshalled code, imports, marks and findings; or raise `Refused`."""
        name = module_name(path)[0]
        prefix = self._prefix if name.partition(".")[0] in own else ""
        filename = f"{self._root}/{prefix}{path}"
        text = text_of(content)
        words = None if text is None else words_of(text)
        try:
            if text is not None and words is not None and self._is_plain(text, words):
                try:
                    return marshal.dumps(self._code(content, filename)), [], [], []
                except Exception:  # noqa: S110 - it is made into a tree, and refused as any other
                    pass
            tree = ast.parse(content, filename)
            imports, findings = self._pass(path, name, tree, content, own=own, words=words)
            marked = marks(tree, content)
            if self._prefix:
                tree = prefix_module(tree, name, self._prefix, own, self._root)
            code = self._code(tree, filename)
            del tree  # so that constants have no other references, of which `marshal` would take note
            return marshal.dumps(code), imports, marked, findings
        except CannotPrefix as error:
            at = (error.line, error.column, _line(content, error.line))
            raise _refused("compile", error.what, path, at) from None
        except SyntaxError as error:
            place = (error.lineno, error.offset, error.text if isinstance(error.text, str) else None)
            raise _refused("syntax", error.msg or type_name(error), path, place) from None
        except (RecursionError, MemoryError):
            what = "the source is nested too deeply, or is too large, for the compiler; split it up"
            raise _refused("compile", what, path) from None
        except ValueError as error:
            # "source code string cannot contain null bytes", before Python 3.12
            raise _refused("syntax", message(error), path) from None

    def _is_plain(self, text: str, words: frozenset[str]) -> bool:
        """Return whether a file needs no tree: it is short, and the gate and the marks find nothing in it."""
        return (
            len(text) <= SHORT_CHARS
            and not self._prefix
            and self._gate.passes(words)
            and defines_functions_only(text)
        )

    def _code(self, source: bytes | ast.Module, filename: str) -> CodeType:
        code: CodeType = compile(source, filename, "exec", dont_inherit=True, optimize=self._optimize)
        return code

    def _pass(
        self,
        path: str,
        name: str,
        tree: ast.AST,
        content: bytes,
        *,
        own: frozenset[str],
        words: frozenset[str] | None,
    ) -> tuple[list[str], list[str]]:
        """Check a file by the gate, and refuse it for the first finding.

        Returns:
            Its imports, and the findings that do not refuse it: because the gate only reports, or because an
            import is decided when it is reached.
        """
        imports, findings, left, blocked = self._gate.look(tree, name, own, words)
        if findings and self._enforce:
            what, line, column = findings[0]
            raise _refused("security", what, path, (line, column, _line(content, line)))
        if self._enforce:
            mark_blocked(blocked)
        return imports, [_sentence(path, finding) for finding in (*findings, *left)]


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


def _sentence(path: str, finding: Finding) -> str:
    what, line, column = finding
    return clip(f"{path}:{line}:{column}: {what}", _MAX_TEXT_BYTES)


def _line(content: bytes, line: int | None) -> str | None:
    lines = content.splitlines()
    return lines[line - 1].decode("utf-8", "replace") if line and line <= len(lines) else None
