"""Do what ShinkaEvolve does with an evaluation script: start it for each program, and read what it wrote.

    python examples/shinka_circles/run.py

In a project of ShinkaEvolve, give ``evaluate.py`` to its ``LocalJobConfig(eval_program_path=...)``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

PROGRAMS = {
    "initial": (HERE / "initial.py").read_text(),
    "a grid": "def circles():\n    k = 1 / 6, 1 / 2, 5 / 6\n    return [(x, y, 1 / 6) for x in k for y in k]",
    "overlapping": "def circles():\n    return [(0.5, 0.5, 0.5)] * 9",
    "endless loop": "def circles():\n    while True: pass",
    "os._exit": "import os\n\ndef circles():\n    os._exit(0)",
    "reads the environment": "import os\n\ndef circles():\n    raise RuntimeError(dict(os.environ))",
}


def main() -> int:
    """Run the example."""
    # A process for each program starts an engine each; this bounds what each may burn, to keep it short.
    environ = {**os.environ, "EVOCELL_DEFAULT_MAX_FUEL": str(2 * 10**9), "EVOCELL_WORKERS": "1"}
    scores: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="shinka-") as directory:
        for name, program in PROGRAMS.items():
            path, results = Path(directory) / "main.py", Path(directory) / f"results of {name}"
            path.write_text(program)
            subprocess.run(  # noqa: S603 - our own script
                [sys.executable, HERE / "evaluate.py", "--program_path", path, "--results_dir", results],
                env=environ,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            metrics = json.loads((results / "metrics.json").read_text())
            correct = json.loads((results / "correct.json").read_text())
            scores[name] = metrics["combined_score"]
            print(f"{name:22} {scores[name]:6.3f}  {correct['error'] or 'correct'}")
    return 0 if scores["a grid"] > scores["initial"] > scores["endless loop"] == 0.0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
