"""What programs try against the evaluator that grades them, natively and sandboxed; makes docs/tricks.md.

    python bench/tricks.py [--page docs/tricks.md]

Each trick is a program that cannot square a number and wants the score all the same. It is graded by an evaluator that
imports it, by one that starts it as a process and reads what it prints, by one that runs it through
``multiprocessing``, and by `evocell.integrations.openevolve.evaluators`, which scores on the host. A good program is
graded after each by the same evaluator, to see what was left behind. The tricks harm nothing: natively they run
in a directory of their own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import evocell
from evocell.integrations.openevolve import evaluators, sandboxed
from tricks_tried import EVALUATORS, GOOD, TRICKS

NATIVE = """
import importlib.util, json, sys
sys.path.insert(0, sys.argv[1])
spec = importlib.util.spec_from_file_location("evaluation_module", sys.argv[1] + "/evaluator.py")
module = sys.modules["evaluation_module"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
found = []
for path in sys.argv[2:]:
    try:
        score = float(module.evaluate(path)["combined_score"])
    except BaseException as error:
        score = 0.0
    found.append(score)
    sys.__stdout__.write("\\nFOUND " + repr(found) + "\\n")
    sys.__stdout__.flush()
"""
LIMITS = evocell.Limits(fuel=30 * 10**9, timeout_s=60.0, scratch_bytes=16 << 20)
HOST = evocell.Evaluation(
    "square",
    [evocell.Case((7,), expected=49)],
    lambda case, value: float(type(value) is int and value == case.expected),
    limits=LIMITS,
)
HEAD = """# Tricks that were tried

Programs that want a score without doing the work, against four ways to evaluate them, natively (CPython {python}) and
sandboxed. Made by `python bench/tricks.py --page docs/tricks.md`; `tests/contract/test_tricks.py` holds the sandboxed half of it.

The work is to square a number; a right answer scores 1, and what a trick may want is any score above 0. Each cell is the score of
the trick. *Poisoned* means that a good program which the same evaluator graded afterwards no longer scored 1; *died* that the
evaluator's process ended, as natively a program in the evaluator's own process can make it.

- **imports**: the evaluator imports the program and calls it.
- **process**: it starts the program with `subprocess.run`, and reads JSON from what it prints.
- **multiprocessing**: it calls the program in a `multiprocessing.Process`, and takes the answer from a queue.
- **on the host**: `evaluators(Evaluation(...))`: the program has a sandbox, the score function runs outside of it.

"""
TAIL = """
What this shows:

- The least change (`sandboxed`) keeps an evaluator's own isolation and adds none: an evaluator that *imports* the program can be
  forged in the sandbox as natively. What it adds is that nothing is left behind, because each evaluation is a fork of
  its own, and that the host is out of reach.
- A process is an interpreter of its own on both sides. What a program prints or sends is what it says, and counts; so an
  evaluator must check the answer and not believe a score.
- An answer that is *unpickled* runs what its sender wants: `multiprocessing` queues and evaluators that `pickle.load` a file of the
  program's (OpenEvolve's circle packing does) are forged by an object with a `__reduce__`, natively and sandboxed alike.
  Have the program print JSON, or score on the host.
- Scored on the host, nothing of the evaluator is where the program runs: no trick scored.
"""


def natively(evaluator: str, programs: list[str]) -> list[float | None]:
    """Grade programs one after the other by one evaluator in a process; None where that died."""
    with tempfile.TemporaryDirectory(prefix="tricks-") as name:
        paths = _lay(Path(name), evaluator, programs)
        done = subprocess.run(
            [sys.executable, "-c", NATIVE, name, *map(str, paths)],
            cwd=name,
            env={"PATH": "/usr/bin:/bin", "TMPDIR": name, "HOME": name},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
        found: list[float | None] = json.loads(lines[-1].removeprefix("FOUND ")) if lines else []
        return found + [None] * (len(programs) - len(found))


def in_sandboxes(evaluator: str, programs: list[str], engine: evocell.Engine) -> list[float | None]:
    """Grade programs one after the other by one evaluator, sandboxed."""
    with tempfile.TemporaryDirectory(prefix="tricks-") as name:
        paths = _lay(Path(name), evaluator, programs)
        (function, *_) = sandboxed(Path(name) / "evaluator.py", limits=LIMITS, engine=lambda: engine)
        return [_score(function(str(path))) for path in paths]


def on_the_host(programs: list[str], engine: evocell.Engine) -> list[float | None]:
    """Grade programs by an evaluation that is scored on the host."""
    with tempfile.TemporaryDirectory(prefix="tricks-") as name:
        paths = _lay(Path(name), "", programs)
        (function,) = evaluators(HOST, engine=lambda: engine)
        return [_score(function(str(path))) for path in paths]


def _lay(directory: Path, evaluator: str, programs: list[str]) -> list[Path]:
    (directory / "evaluator.py").write_text(evaluator)
    paths = []
    for number, text in enumerate(programs):
        (directory / f"program_{number}").mkdir()
        paths.append(directory / f"program_{number}" / "program.py")
        paths[-1].write_text(text)
    return paths


def _score(result: Any) -> float:
    metrics = getattr(result, "metrics", result)
    return float(metrics["combined_score"])


def shown(scores: list[float | None]) -> str:
    """Return a cell: the trick's score, and what became of the good program after it."""
    trick, good = scores
    if trick is None:
        return "died"
    said = f"{trick:g}" if trick <= 0 else f"**{trick:g}**"
    if good is None:
        return f"{said}, died"
    return said if good == 1.0 else f"{said}, poisoned"


def rows(engine: evocell.Engine) -> dict[str, list[str]]:
    """Try every trick in every way; return the cells by its name."""
    found = {}
    for name, trick in TRICKS.items():
        cells = []
        for evaluator in EVALUATORS.values():
            cells.append(shown(natively(evaluator, [trick, GOOD])))
            cells.append(shown(in_sandboxes(evaluator, [trick, GOOD], engine)))
        cells.append(shown(on_the_host([trick, GOOD], engine)))
        found[name] = cells
    return found


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", type=Path, help="write the page here, and not the table to the terminal")
    given = parser.parse_args()
    ways = [f"{name}, {side}" for name in EVALUATORS for side in ("native", "sandboxed")]
    lines = [f"| trick | {' | '.join(ways)} | on the host |", f"|---|{'---|' * (len(ways) + 1)}"]
    config = evocell.Config.load(workers=1, security_profile="low", blocked_modules=())
    with evocell.Engine(config) as engine:
        lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows(engine).items()]
    table = "\n".join(lines)
    if given.page is None:
        print(table)
    else:
        head = HEAD.format(python=".".join(map(str, sys.version_info[:2])))
        given.page.write_text(head + table + "\n" + TAIL, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
