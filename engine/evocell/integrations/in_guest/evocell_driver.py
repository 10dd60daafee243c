"""Runs an existing evaluator on the candidate, both inside the sandbox."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import evocell_stand_ins

PROGRAM = "/app/program.py"
HARNESS = "/harness"
OWN = "/tmp/evaluator"  # noqa: S108 - a guest path
"""Directory of an evaluator that may write beside its own files."""

_MAX_TEXT_CHARS = 20_000
_MAX_DEPTH = 8

evocell_stand_ins.install()


def evaluate(  # noqa: PLR0917 - the arguments of the case, by place
    function: str,
    path: str,
    environ: dict[str, str],
    writable: bool = False,
    kept: dict[str, bytes] | None = None,
    arguments: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Load an evaluator like OpenEvolve, call one of its functions, and return its result as plain data.

    Args:
        function: Its name, such as ``"evaluate"``.
        path: The evaluator's file, relative to the harness.
        environ: Environment variables to add before it is loaded.
        writable: Whether it gets a copy of its files in a writable directory.
        kept: What evaluations before have written there, by path; None if nothing is kept.
        arguments: What the function takes by name beside the program's path.

    Returns:
        ``{"metrics": ..., "artifacts": ...}``; ``artifacts`` is None if it returned a mapping alone. If files
        are kept, also ``"files"``: the content by path of what differs now, None for what is gone.
    """
    os.environ.update(environ)
    if kept is None:
        return _evaluate(function, path, arguments or {}, writable)
    own_directory()
    before = {**_files_below(OWN), **kept}
    for name, content in kept.items():
        os.makedirs(os.path.dirname(f"{OWN}/{name}"), exist_ok=True)
        with open(f"{OWN}/{name}", "wb") as file:
            file.write(content)
    answer = _evaluate(function, path, arguments or {}, writable=True)
    logging.shutdown()
    after = _files_below(OWN)
    changed: dict[str, bytes | None] = {name: after.get(name) for name in before if name not in after}
    changed.update({name: content for name, content in after.items() if before.get(name) != content})
    return {**answer, "files": changed}


def _evaluate(function: str, path: str, arguments: dict[str, Any], writable: bool) -> dict[str, Any]:
    evaluator = _load(path, own_directory() if writable else HARNESS)
    if not hasattr(evaluator, function):
        message = f"the evaluator {path} defines no {function}"
        raise AttributeError(message)
    result = getattr(evaluator, function)(PROGRAM, **arguments)
    evocell_stand_ins.run_threads()
    if isinstance(result, evocell_stand_ins.EvaluationResult):
        return {"metrics": _plain(result.metrics), "artifacts": _texts(result.artifacts)}
    if isinstance(result, Mapping):
        return {"metrics": _plain(result), "artifacts": None}
    message = f"{function} of the evaluator {path} returned a {type(result).__name__}, not metrics"
    raise TypeError(message)


def _files_below(directory: str) -> dict[str, bytes]:
    """Read the files of a directory, but for byte code."""
    found = {}
    for folder, names, files in os.walk(directory):
        names[:] = sorted(name for name in names if name != "__pycache__")
        for name in sorted(files):
            path = f"{folder}/{name}"
            with open(path, "rb") as file:
                found[path[len(directory) + 1 :]] = file.read()
    return found


def own_directory() -> str:
    """Copy the harness, without evocell's modules, to a writable directory."""
    if os.path.isdir(OWN):
        return OWN

    def ours(_directory: str, names: list[str]) -> list[str]:
        return [name for name in names if name.startswith("evocell_")]

    shutil.copytree(HARNESS, OWN, ignore=ours, copy_function=shutil.copyfile)
    return OWN


def _load(path: str, root: str) -> ModuleType:
    file = f"{root}/{path}"
    directory = os.path.dirname(file)
    sys.path.insert(0, directory)
    os.chdir(directory)
    parts = path.removesuffix(".py").split("/")
    if not any("." in part for part in parts):
        # Imported by its dotted name, it uses the byte code compiled beforehand.
        name = ".".join(parts)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            spec.origin = file
            sys.modules[name] = importlib.util.module_from_spec(spec)
    else:
        name = "evaluation_module"
        spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        message = f"the evaluator {path} is no Python file"
        raise ImportError(message)
    module = sys.modules.get(name) or importlib.util.module_from_spec(spec)
    sys.modules[name] = sys.modules["evaluation_module"] = module
    spec.loader.exec_module(module)
    return module


def _plain(value: Any, depth: int = 0) -> Any:
    """Convert an evaluator's result to plain data: numpy numbers become Python's, other values text."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {str(name): _plain(part, depth + 1) for name, part in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(part, depth + 1) for part in value]
        if hasattr(value, "tolist"):
            return _plain(value.tolist(), depth + 1)
    return str(value)[:_MAX_TEXT_CHARS]


def _texts(artifacts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(name): value if isinstance(value, str | bytes) else _plain(value)
        for name, value in artifacts.items()
    }
