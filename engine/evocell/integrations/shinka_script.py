"""ShinkaEvolve: a whole evaluation script in a sandbox, with the program that it evaluates.

For scripts that do not call ``run_shinka_eval``, or whose programs return objects of their own classes. The
script's file stays untouched; a second one takes its place in ShinkaEvolve's configuration, which ``python -m
evocell.integrations.shinka_script evaluate.py`` writes. As without evocell, the program shares the
interpreter of a script that imports it, and may forge its score; `evocell.integrations.shinka` parts them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from evocell.api.default import GetEngine, default_engine
from evocell.integrations.descent import evaluated_for_shinka
from evocell.integrations.evaluator_files import PROCESSES, STAND_INS, gather, guest_module
from evocell.integrations.shinka import METRICS_ON_ERROR
from evocell.models.evaluation import Case, Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.foreign import clean_line
from evocell.models.limits import Limits

__all__ = ["main", "run_script"]

SCRATCH_BYTES = 64 << 20
"""Room in ``/tmp`` for what a script writes."""

_KEPT = frozenset((".csv", ".gif", ".json", ".log", ".md", ".npy", ".npz", ".pdf", ".png", ".txt"))
_OF_SHINKA = ("core/wrap_eval.py", "utils/eval_stop.py")
_WRAPPER = '''"""The script {name}, run by evocell in a sandbox together with the program it evaluates."""

from pathlib import Path

from evocell.integrations.shinka_script import run_script

raise SystemExit(run_script(Path(__file__).with_name("{name}")))
'''


def run_script(
    script: str | Path,
    argv: Sequence[str] | None = None,
    *,
    files: Sequence[str] = (),
    root: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    engine: GetEngine = default_engine,
) -> int:
    """Run a script in a sandbox as ShinkaEvolve does, and write what it wrote into the results' directory.

    Modules beside the script that it imports come along, and of ShinkaEvolve, as it is installed here,
    ``run_shinka_eval`` and its ways to stop early. What the script writes beside ``metrics.json`` and
    ``correct.json`` is brought back if its name ends as data, text and pictures do; pickles are not, because
    whoever reads them runs them.

    Args:
        script: The script's file.
        argv: The command line: ``--program_path``, ``--results_dir`` and arguments of the script's own; None
            for that of the process.
        files: More files that it reads, as patterns relative to ``root``.
        root: The directory that the sandbox sees; None for the script's own.
        environ: Environment variables that it reads.
        limits: Limits of the whole script; None for the engine's, with 64 MiB of ``/tmp``.
        engine: Gives the engine.

    Returns:
        0, also for a program that fails: that is a result.

    Raises:
        ConfigurationError: The script or another file is not there.
    """
    parser = argparse.ArgumentParser(description=f"Run {Path(script).name} in a sandbox.")
    parser.add_argument("--program_path", default="initial.py", help="the program")
    parser.add_argument("--results_dir", default="results", help="where to write what it finds")
    given, rest = parser.parse_known_args(argv)
    gathered = gather(Path(script), files=files, root=None if root is None else Path(root))
    bounds = limits or engine().config.limits().evolve(scratch_bytes=SCRATCH_BYTES)
    if not bounds.processes:
        bounds = bounds.evolve(processes=PROCESSES)
    task = Evaluation(
        "evocell_script:run",
        [Case((gathered.evaluator, dict(environ or {}), rest, gathered.may_be_copied(bounds)))],
        _headline,
        harness={**_of_shinka(), **gathered.files, **_ours()},
        limits=bounds,
    )
    with evaluated_for_shinka(engine(), Path(given.program_path), task) as result:
        _write(Path(given.results_dir), result)
    return 0


def _ours() -> dict[str, bytes]:
    return {f"{name}.py": guest_module(name) for name in ("evocell_script", "evocell_driver", *STAND_INS)}


def _of_shinka() -> dict[str, bytes]:
    """Return as much of ShinkaEvolve as scripts call, as it is installed; nothing if it is not."""
    found = importlib.util.find_spec("shinka")
    places = [Path(place) for place in (found.submodule_search_locations or ())] if found else []
    top = next((place for place in places if all((place / name).is_file() for name in _OF_SHINKA)), None)
    if top is None:
        return {}
    return {
        "shinka/__init__.py": b"",
        "shinka/utils/__init__.py": b"",
        "shinka/core/__init__.py": b"from shinka.core.wrap_eval import run_shinka_eval\n",
        **{f"shinka/{name}": (top / name).read_bytes() for name in _OF_SHINKA},
    }


def _headline(_: Case, value: Any) -> float:
    """Return the number that ShinkaEvolve selects by, for the engine's own records."""
    metrics = value["metrics"] if isinstance(value["metrics"], dict) else {}
    score = metrics.get("combined_score", 0.0)
    return float(score) if isinstance(score, int | float) and math.isfinite(score) else 0.0


def _write(directory: Path, result: FitnessResult) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    outcome = result.test_results[0].outcome if result.test_results else None
    told: dict[str, Any] = outcome.unwrap() if outcome is not None and outcome.ok else {}
    metrics, correct = told.get("metrics"), told.get("correct")
    if not isinstance(metrics, dict) or not isinstance(correct, dict):
        error = str(told.get("error") or result.error or "the script wrote no metrics.json and correct.json")
        metrics = {**METRICS_ON_ERROR, "text_feedback": error if told else result.feedback()}
        correct = {"correct": False, "error": clean_line(error.splitlines()[-1] if error else "")}
    for path, content in told.get("files", {}).items():
        if _is_harmless(path) and isinstance(content, bytes):
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)
    for name, content in (("metrics.json", metrics), ("correct.json", correct)):
        temporary = directory / f".{name}.new"
        temporary.write_text(json.dumps(content, indent=4), encoding="utf-8")
        temporary.replace(directory / name)
    for path in told.get("left", []):
        print(clean_line(f"evocell: {path} was not brought back"))  # noqa: T201 - what the job's log shows


def _is_harmless(path: object) -> bool:
    """Whether a path of the guest's names a file of data below the directory that it is joined to."""
    if not isinstance(path, str) or not path.isprintable() or len(path) > 200 or "\\" in path:  # noqa: PLR2004
        return False
    parts = PurePosixPath(path).parts
    return (
        bool(parts) and not any(part.startswith((".", "/")) for part in parts) and Path(path).suffix in _KEPT
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write a script that runs another one in a sandbox.

    Args:
        argv: The command's arguments; None for those of the process.

    Returns:
        0.

    Raises:
        SystemExit: It cannot be done; the reason is on standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m evocell.integrations.shinka_script",
        description="Write an evaluation script that runs another one, untouched, in a sandbox.",
    )
    parser.add_argument("script", type=Path, help="the script as it is")
    given = parser.parse_args(argv)
    output = given.script.with_name(f"sandboxed_{given.script.name}")
    if not given.script.is_file():
        parser.error(clean_line(f"{given.script} is not there"))
    if output.exists():
        parser.error(clean_line(f"{output} exists already"))
    output.write_text(_WRAPPER.format(name=given.script.name), encoding="utf-8")
    said = f"Wrote {output}. Give it to ShinkaEvolve in place of {given.script}."
    print(clean_line(said))  # noqa: T201 - a command
    return 0


if __name__ == "__main__":
    sys.exit(main())
