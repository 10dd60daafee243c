"""Run the evaluation scripts of ShinkaEvolve's own examples, untouched, in sandboxes and natively.

They are not part of this project; give a checkout, and an interpreter that has ShinkaEvolve and what the examples need:

    git clone https://github.com/SakanaAI/ShinkaEvolve
    python bench/shinka_examples.py ShinkaEvolve --python INTERPRETER

Each is run on the program that it begins with: as it is, by `evocell.integrations.shinka_script`, which
puts the whole script into a sandbox, and by the drop-in `evocell.integrations.shinka.run_shinka_eval`, which
keeps the script on the host. All three run in that interpreter, in which evocell must be importable.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REASONS = {
    "fortran_heat_diffusion": "the program is Fortran, which the script compiles with gfortran and runs",
    "go_collatz_steps": "the program is Go, which the script builds and runs",
    "julia_prime_counting": "the program is Julia, which the script runs",
    "wolfram_gcd_sum": "the program is Wolfram's language, which the script runs with wolframscript",
    "rtllm": "the program is Verilog, which the script simulates with iverilog",
    "novelty_generator": "the script asks a language model on the network",
}
"""Why an example cannot run in a sandbox."""

SETTLED = """
import random
random.seed(7)
"""
"""Put before a program that draws on chance, so that there is one score to compare."""


def run(script: Path, program: Path, results: Path, python: str) -> tuple[dict[str, Any], float]:
    """Run a script as ShinkaEvolve's launcher does; return its metrics and correctness, and the seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [python, str(script), "--program_path", str(program), "--results_dir", str(results)],
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    found: dict[str, Any] = {}
    for name in ("metrics", "correct"):
        file = results / f"{name}.json"
        found[name] = json.loads(file.read_text()) if file.is_file() else {"error": done.stderr[-500:]}
    return found, seconds


def told(found: dict[str, Any]) -> str:
    """Return a cell: the score, or what went wrong."""
    score = found["metrics"].get("combined_score")
    if found["correct"].get("correct"):
        return repr(score)
    return str(found["correct"].get("error"))[:80].replace("\n", " ")


def compare(example: Path, python: str) -> list[str]:
    """Run an example in all three ways; return the cells of its row."""
    with tempfile.TemporaryDirectory(prefix="shinka-") as name:
        work = Path(name) / example.name
        shutil.copytree(example, work)
        program = work / "initial.py"
        text = program.read_text()
        if "import random" in text:
            program.write_text(SETTLED + text)
        script = work / "evaluate.py"
        subprocess.run(
            [python, "-m", "evocell.integrations.shinka_script", str(script)], check=True, capture_output=True
        )
        ways = {"as it is": script, "in a sandbox": work / "sandboxed_evaluate.py"}
        before = script.read_text()
        if "from shinka.core import run_shinka_eval" in before:
            ways["drop-in"] = work / "drop_in_evaluate.py"
            ways["drop-in"].write_text(
                before.replace("from shinka.core import", "from evocell.integrations.shinka import")
            )
        ran = {way: run(file, program, work / way, python) for way, file in ways.items()}
    native, seconds = ran["as it is"]
    cells = [told(native), f"{seconds:.1f}"]
    for way in ("in a sandbox", "drop-in"):
        if way in ran:
            cells += [told(ran[way][0]), f"{ran[way][1] / seconds:.1f}"]
        else:
            cells += ["–", "–"]
    return cells


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="a checkout of ShinkaEvolve's repository")
    parser.add_argument(
        "--python", default=sys.executable, help="an interpreter with ShinkaEvolve and evocell"
    )
    given = parser.parse_args()
    print("| example | native | seconds | whole script sandboxed | times | drop-in | times |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    well = True
    for script in sorted((given.checkout / "examples").glob("*/evaluate.py")):
        example = script.parent
        if example.name not in REASONS:
            cells = compare(example.resolve(), given.python)
            well &= cells[0] == cells[2]
            print(f"| `{example.name}` | {' | '.join(cells)} |", flush=True)
    print("\n| example | why not |\n|---|---|")
    for name, reason in REASONS.items():
        print(f"| `{name}` | {reason} |")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
