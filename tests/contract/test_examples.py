"""Every script in ``examples/`` runs, each in a process of its own and in an empty directory.

The quick ones belong to the normal tests; `just examples` runs all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

# What to run, and what its output must hold.
QUICK = {
    "dask_cluster.py": "the same scores and fuel on one machine: True",
    "deap_regression.py --generations 5": "best: ",
    "funsearch_cap_set.py": "failed: case 0: stopped at the fuel limit",
    "futures_and_asyncio.py": "gave up on the endless loop",
    "openevolve_tours/run.py": "nearest(towns), len(towns), True",
    "pymoo_sine.py --generations 5": "run again: the same front",
    "shinka_circles/run.py": "Validation failed: circles 0 and 1 overlap",
}
SLOW = {
    "deap_regression.py": "best: mul(add(mul(x, mul(x, x)), x), add(1, x))",
    "openevolve_tours/run.py --evaluator sandboxed_evaluator.py": "nearest(towns), len(towns), True",
    "pymoo_sine.py": "run again: the same front",
}


def run(command: str, directory: Path) -> str:
    """Run one example and return what it wrote; it must end well."""
    script, *words = command.split()
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *words],
        cwd=directory,
        env={**os.environ, "MPLBACKEND": "agg", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow  # `just examples` runs them
@pytest.mark.parametrize(
    ("command", "says"),
    [*QUICK.items(), *(pytest.param(*pair, marks=pytest.mark.soak, id=pair[0]) for pair in SLOW.items())],
)
def test_an_example_runs(command, says, tmp_path):
    assert says in run(command, tmp_path)


def test_every_script_among_the_examples_is_run_here():
    scripts = {
        path.relative_to(EXAMPLES).as_posix()
        for path in EXAMPLES.rglob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    started_by_another = {"shinka_circles/evaluate.py"}
    assert scripts - started_by_another == {command.split()[0] for command in (*QUICK, *SLOW)}
