"""Try the integrations of FunSearch and ShinkaEvolve with their own code, from checkouts.

    python bench/frameworks_from_source.py --funsearch PATH --specification FILE
    python bench/frameworks_from_source.py --shinka PATH

FunSearch's code needs absl-py; PATH holds its package ``funsearch`` (DeepMind's repository has it without that
directory, so put its ``implementation`` into one). ShinkaEvolve must be installed where this runs; PATH is its
repository, for the examples.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from evocell.integrations.funsearch import Sandbox

BODIES = {
    "ends": "  return 0.0",
    "endless loop": "  while True: pass",
    "os._exit": "  import os; os._exit(1)",
    "reads a file": "  return float(len(open('/etc/passwd').read()))",
}


def try_funsearch(path: Path, specification: Path) -> bool:
    """Have FunSearch's own evaluator analyse bodies; return whether those, and only those, that end are kept."""
    sys.path.insert(0, str(path))
    package = "funsearch.implementation" if (path / "funsearch" / "implementation").is_dir() else "funsearch"
    names = ("code_manipulation", "config", "evaluator", "programs_database")
    found: dict[str, Any] = {name: importlib.import_module(f"{package}.{name}") for name in names}
    evaluator, base = found["evaluator"], found["programs_database"].ProgramsDatabase
    template = found["code_manipulation"].text_to_program(specification.read_text())
    kept: list[dict[Any, float]] = []
    database = type("Database", (base,), {"register_program": lambda _, *program: kept.append(program[-1])})
    options = {"identifier": "it"} if package == "funsearch" else {}
    programs = database(found["config"].Config().programs_database, template, "priority", **options)
    rest = (template, "priority", "evaluate", [3, 4], 5)
    if package == "funsearch":
        made = evaluator.Evaluator(programs, Sandbox(base_path="ignored"), *rest)
    else:
        evaluator.Sandbox = Sandbox
        made = evaluator.Evaluator(programs, *rest)
    for name, body in BODIES.items():
        before = len(kept)
        made.analyse(body, 0, None)
        print(f"{package}: {name:14} {kept[-1] if len(kept) > before else 'dropped'}")
    return len(kept) == 1


def try_shinka(path: Path) -> bool:
    """Run an example through ShinkaEvolve's own launcher, with its evaluation and with ours; compare the scores."""
    launch = importlib.import_module("shinka.launch.local")
    scores: list[float] = []
    with tempfile.TemporaryDirectory(prefix="shinka-") as name:
        work = Path(name) / "circle_packing"
        shutil.copytree(path / "examples" / "circle_packing", work)
        for module in ("shinka.core", "evocell.integrations.shinka"):
            script, results = work / "evaluate.py", work / module
            text = (path / "examples" / "circle_packing" / "evaluate.py").read_text()
            script.write_text(text.replace("from shinka.core import", f"from {module} import"))
            words = ["--program_path", str(work / "initial.py"), "--results_dir", str(results)]
            job = launch.submit(str(results), [sys.executable, str(script), *words])
            found = launch.monitor(job, str(results), timeout="00:02:00")
            scores.append(found["metrics"]["combined_score"])
            print(f"{module}: {scores[-1]} {found['correct']}")
    return scores[0] == scores[1]


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--funsearch", type=Path, help="where FunSearch's package is, or a fork's")
    parser.add_argument("--specification", type=Path, help="a specification with priority and evaluate")
    parser.add_argument("--shinka", type=Path, help="a checkout of ShinkaEvolve")
    given = parser.parse_args()
    if bool(given.funsearch) != bool(given.specification) or not (given.funsearch or given.shinka):
        parser.error("give --funsearch with --specification, or --shinka, or both")
    well = [try_funsearch(given.funsearch, given.specification)] if given.funsearch else []
    well += [try_shinka(given.shinka)] if given.shinka else []
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
