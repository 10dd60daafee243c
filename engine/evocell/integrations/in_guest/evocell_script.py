"""Runs a whole evaluation script of ShinkaEvolve's on the candidate, and gives back what it wrote."""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from typing import Any

import evocell_driver
import evocell_stand_ins

RESULTS = "/tmp/results"  # noqa: S108 - a guest path

_KEPT = (".csv", ".gif", ".json", ".log", ".md", ".npy", ".npz", ".pdf", ".png", ".txt")
_OURS = ("metrics.json", "correct.json")


def run(script: str, environ: dict[str, str], arguments: list[str], writable: bool) -> dict[str, Any]:
    """Run a script as ShinkaEvolve starts it, ``--program_path P --results_dir D``, and further arguments.

    Args:
        script: Its file, relative to the harness.
        environ: Environment variables to add before.
        arguments: What else is on its command line.
        writable: Whether it is to have a copy of its files that it may write beside.

    Returns:
        ``metrics`` and ``correct``, what it wrote as JSON under these names, or None; ``files``, what else it
        wrote, by path; ``left``, the paths of files that are not brought back; ``error``, a traceback or why
        it ended.
    """
    os.environ.update(environ)
    top = evocell_driver.own_directory() if writable else evocell_driver.HARNESS
    path = f"{top}/{script}"
    os.makedirs(RESULTS, exist_ok=True)
    os.chdir(os.path.dirname(path))
    sys.path.insert(0, os.path.dirname(path))
    sys.argv[:] = [path, "--program_path", evocell_driver.PROGRAM, "--results_dir", RESULTS, *arguments]
    error = ""
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        error = "" if end.code in (None, 0) else f"the script exited with {end.code!r}"
    except Exception:
        error = traceback.format_exc()
    evocell_stand_ins.run_threads()
    files, left = _written()
    metrics, correct = (_plain(f"{RESULTS}/{name}") for name in _OURS)
    return {"metrics": metrics, "correct": correct, "files": files, "left": left, "error": error}


def _written() -> tuple[dict[str, bytes], list[str]]:
    files, left = {}, []
    for directory, _, names in os.walk(RESULTS):
        for name in sorted(names):
            path = os.path.join(directory, name)
            short = os.path.relpath(path, RESULTS)
            if short in _OURS:
                continue
            if not name.endswith(_KEPT):
                left.append(short)
                continue
            with open(path, "rb") as file:
                files[short] = file.read()
    return files, left


def _plain(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None
