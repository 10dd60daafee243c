"""Collection of an evaluator's files into a harness."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from attrs import field, frozen

from evocell.errors import ConfigurationError
from evocell.models.limits import Limits
from evocell_runtime.membrane import charged_bytes

__all__ = [
    "PROCESSES",
    "STAND_INS",
    "EvaluatorFiles",
    "defined_names",
    "gather",
    "guest_module",
    "modules_beside",
]

STAND_INS = (
    "evocell_stand_ins",
    "evocell_barriers",
    "evocell_channels",
    "evocell_child",
    "evocell_executors",
    "evocell_multiprocessing",
    "evocell_pools",
    "evocell_processes",
    "evocell_refusals",
    "evocell_subprocess",
    "evocell_threads",
)
"""Modules that replace missing features in the guest."""

PROCESSES = 8
"""Most concurrent processes of an evaluator."""

_NOT_LOCAL = frozenset({"evocell", "openevolve"})
_SKIPPED = frozenset({"__pycache__", "openevolve_output"})


@frozen
class EvaluatorFiles:
    """An evaluator with its files, by their paths in the sandbox.

    Attributes:
        evaluator: The evaluator's own path, relative to the harness.
        files: Content by path, the evaluator's included.
    """

    evaluator: str
    files: dict[str, bytes] = field(repr=False)

    def may_be_copied(self, limits: Limits) -> bool:
        """Whether a copy of these files takes no more than a quarter of the room in ``/tmp``."""
        room = sum(charged_bytes(len(content)) for content in self.files.values())
        return 4 * room <= limits.scratch_bytes and 4 * len(self.files) <= limits.scratch_files


def guest_module(name: str) -> bytes:
    """Return the text of an in-guest module."""
    return resources.files("evocell.integrations.in_guest").joinpath(f"{name}.py").read_bytes()


def defined_names(evaluator: Path) -> set[str]:
    """Return the names that an evaluator's module defines at its top level.

    It is parsed on the host: an evaluator is trusted, unlike a candidate.

    Raises:
        ConfigurationError: The file cannot be read or parsed.
    """
    found: set[str] = set()
    for node in _parse(evaluator).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                found.update(part.id for part in ast.walk(target) if isinstance(part, ast.Name))
    return found


def gather(evaluator: Path, *, files: Sequence[str] = (), root: Path | None = None) -> EvaluatorFiles:
    """Collect an evaluator, the adjacent modules that it imports, and the given files.

    Args:
        evaluator: The evaluator's file.
        files: More files, as patterns relative to ``root``, such as ``"data/*.json"``; a directory stands for
            all its contents.
        root: The directory that the sandbox will see; None for the evaluator's own.

    Raises:
        ConfigurationError: A file is missing, or a pattern matches nothing.
    """
    top = (evaluator.parent if root is None else root).resolve()
    own = evaluator.resolve()
    if not own.is_relative_to(top):
        raise ConfigurationError(f"the evaluator {own} is not below root, which is {top}", "root")
    wanted = {own, *_local_modules(own)}
    for pattern in files:
        matched = [path for found in sorted(top.glob(pattern)) for path in _files_in(found)]
        if not matched:
            raise ConfigurationError(f"no file matches {pattern!r} below {top}", "files")
        wanted.update(matched)
    return EvaluatorFiles(
        own.relative_to(top).as_posix(),
        {
            path.relative_to(top).as_posix(): _read(path)
            for path in sorted(wanted)
            if path.is_relative_to(top)
        },
    )


def modules_beside(script: Path) -> dict[str, bytes]:
    """Collect the adjacent modules that a script imports, transitively; not the script itself.

    Raises:
        ConfigurationError: One of them cannot be read or parsed.
    """
    own = script.resolve()
    return {path.relative_to(own.parent).as_posix(): _read(path) for path in sorted(_local_modules(own))}


def _files_in(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path.resolve()
    elif path.is_dir() and path.name not in _SKIPPED:
        for inside in sorted(path.iterdir()):
            if not inside.name.startswith("."):
                yield from _files_in(inside)


def _local_modules(evaluator: Path) -> set[Path]:
    """Find the adjacent modules that the evaluator imports, transitively."""
    found: set[Path] = set()
    waiting = [evaluator]
    while waiting:
        module = waiting.pop()
        if module.suffix != ".py":
            continue
        for name in _imported(_parse(module)):
            for path in _module_files(evaluator.parent, name):
                if path not in found and path != evaluator:
                    found.add(path)
                    waiting.append(path)
    return found


def _imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names - _NOT_LOCAL


def _module_files(directory: Path, name: str) -> Iterable[Path]:
    if (directory / name).is_dir():
        return [path for path in _files_in(directory / name) if path.suffix == ".py"]
    file = directory / f"{name}.py"
    return [file.resolve()] if file.is_file() else []


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(_read(path), str(path))
    except SyntaxError as error:
        raise ConfigurationError(f"{path} is no Python: {error}", str(path)) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}", str(path)) from error
