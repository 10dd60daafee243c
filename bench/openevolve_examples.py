"""Run the evaluators of OpenEvolve's own examples, untouched, in sandboxes and natively.

They are not part of this project: give the path of a checkout of OpenEvolve's repository, and of those of two
more that some examples need (AlgoTune's tasks, and the ARC-AGI puzzles).

    git clone https://github.com/algorithmicsuperintelligence/openevolve
    git clone https://github.com/oripress/AlgoTune
    git clone https://github.com/fchollet/ARC-AGI
    python bench/openevolve_examples.py openevolve --algotune AlgoTune --arc ARC-AGI --python INTERPRETER

INTERPRETER evaluates natively; it needs OpenEvolve, scipy, scikit-learn, pandas, matplotlib and beautifulsoup4.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import evolve, field, frozen

import evocell
from evocell.integrations.openevolve import EvaluatorFunction, sandboxed

_ALGOTUNE = (
    "affine_transform_2d",
    "convolve2d_full_fill",
    "eigenvectors_complex",
    "fft_cmplx_scipy_fftpack",
    "fft_convolution",
    "lu_factorization",
    "polynomial_real",
    "psd_cone_projection",
)
_JAX = "the program imports jax and optax, which have no build for WebAssembly"

LIMITS = evocell.Limits(
    fuel=10**13, timeout_s=240.0, memory_bytes=1 << 30, scratch_bytes=64 << 20, payload_bytes=64 << 20
)
"""Large ones: some examples take half a minute outside of a sandbox, too."""

_NATIVE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("evaluation_module", sys.argv[1])
module = sys.modules["evaluation_module"] = importlib.util.module_from_spec(spec)
sys.path.insert(0, sys.argv[1].rpartition("/")[0])
spec.loader.exec_module(module)
result = module.evaluate(sys.argv[2])
metrics = getattr(result, "metrics", result)
print("\\n" + json.dumps(metrics.get("metrics", metrics), default=float))
"""

_PROCESSES = re.compile(r"\b(subprocess|multiprocessing|ProcessPoolExecutor)\b")

REASONS = {
    "alphaevolve_math_problems/erdos_min_overlap": _JAX,
    "alphaevolve_math_problems/first_autocorr_ineq": _JAX,
    "alphaevolve_math_problems/second_autocorr_ineq": _JAX,
    "alphaevolve_math_problems/third_autocorr_ineq": _JAX,
    "alphaevolve_math_problems/matmul": _JAX,
    "alphaevolve_math_problems/sums_diffs_finite_sets": _JAX,
    "alphaevolve_math_problems/uncertainty_ineq": _JAX,
    "mlx_metal_kernel_opt": "program and evaluator import mlx and time kernels on an Apple GPU",
    "attention_optimization": "the evaluator starts mlir-opt, a native program",
    "online_judge_programming": "the evaluator submits the program to a judge on the network",
    "llm_prompt_optimization": "the program is a prompt; the evaluator asks a language model on the network",
    "sldbench": "the evaluator loads its data from a hub on the network, with the package datasets",
    "tsp_tour_minimization": "the program is C++, which the evaluator compiles with g++ and runs",
    "rust_adaptive_sort": "the program is Rust, which the evaluator builds with cargo and runs",
    "r_robust_regression": "the program is R, which the evaluator runs with Rscript",
    "lm_eval": "the evaluator is a stub that evaluates nothing: the example tries the model",
}
"""Why an example cannot run in a sandbox, by its directory."""

# What the evaluators use of AlgoTune's own base module, which imports orjson, datasets and its whole harness.
_TASK_BASE = """
TASK_REGISTRY = {}


def register_task(name):
    def register(task):
        TASK_REGISTRY[name] = task
        return task

    return register


class Task:
    def __init__(self, **options):
        vars(self).update(options)
"""


@frozen
class Example:
    """One evaluator, ready to be put into a sandbox.

    Attributes:
        name: Its directory, relative to the examples.
        program: The program it begins with.
        evaluator: The evaluator.
        make: Puts the evaluator into a sandbox.
        environ: What it reads of the environment, outside of a sandbox.
        note: What had to be added to it.
    """

    name: str
    program: Path
    evaluator: Path
    make: Callable[[], tuple[EvaluatorFunction, ...]]
    environ: dict[str, str] = field(factory=dict)
    note: str = ""


@frozen
class Ran:
    """What came of one example.

    Attributes:
        name: Its directory.
        score: ``combined_score`` of the program it begins with, or another of its metrics if it has none.
        error: What its result says went wrong; empty if nothing did.
        seconds: Wall time of the evaluation.
        stages: How many functions of it were called.
        again: Whether a second evaluation gave the same metrics.
        isolated: Whether the evaluator starts processes, and so has a guest of its own for the program.
        native: ``combined_score`` without a sandbox; None if it was not asked for, or is none.
        native_seconds: Wall time of that, a start of the interpreter included.
    """

    name: str
    score: float | None
    error: str
    seconds: float
    stages: int
    again: bool = False
    isolated: bool = False
    native: float | None = None
    native_seconds: float = 0.0


def examples(checkout: Path, algotune: Path | None, arc: Path | None, work: Path) -> Iterator[Example]:
    """Find the examples of a checkout that can run in a sandbox, in order.

    Args:
        checkout: A checkout of OpenEvolve.
        algotune: One of AlgoTune; None leaves out the examples that need it.
        arc: One of the ARC puzzles; None leaves out the example that needs it.
        work: A directory for what has to be put together.
    """
    top = checkout / "examples"
    for path in sorted(top.rglob("evaluator*.py")):
        name = path.parent.relative_to(top).as_posix()
        if name in REASONS:
            continue
        program = path.parent / "initial_program.py"
        if name.startswith("algotune/"):
            if algotune is not None:
                yield _with_algotune(path, program, name, algotune, work)
        elif name == "arc_benchmark":
            if arc is not None:
                yield _with_puzzles(path, program, name, arc, work)
        else:
            yield Example(name, program, path, lambda path=path: sandboxed(path, limits=LIMITS))  # type: ignore[misc]


def _with_algotune(path: Path, program: Path, name: str, algotune: Path, work: Path) -> Example:
    """Lay evaluator and task out as the evaluator looks for them: AlgoTune four directories above."""
    task = path.parent.name
    root = work / task
    here = root / "examples" / "algotune" / task
    shutil.copytree(path.parent, here)
    tasks = root / "AlgoTune" / "AlgoTuneTasks"
    shutil.copytree(algotune / "AlgoTuneTasks" / task, tasks / task)
    (tasks / "base.py").write_text(_TASK_BASE)
    (tasks / "__init__.py").touch()
    files = ["AlgoTune/**/*.py", f"examples/algotune/{task}/config.yaml"]
    return Example(
        name,
        program,
        here / path.name,
        lambda: sandboxed(here / path.name, root=root, files=files, limits=LIMITS),
        note="AlgoTune's task, with a base module of 15 lines",
    )


def _with_puzzles(path: Path, program: Path, name: str, arc: Path, work: Path) -> Example:
    """Write the puzzles in the form that the evaluator reads."""
    here = work / "arc"
    here.mkdir()
    shutil.copy(path, here)
    puzzles = sorted((arc / "data" / "training").glob("*.json"))[:4]
    tasks = {puzzle.stem: json.loads(puzzle.read_text()) for puzzle in puzzles}
    (here / "arc-agi_training_challenges.json").write_text(json.dumps(tasks))
    environ = {"DATA_ROOT": "/harness", "TASK_NUM": "0"}
    return Example(
        name,
        program,
        here / path.name,
        lambda: sandboxed(here / path.name, files=["*.json"], environ=environ, limits=LIMITS),
        {**environ, "DATA_ROOT": str(here)},
        "puzzles of the public repository",
    )


def run(example: Example) -> Ran:
    """Evaluate the program that an example begins with, in every stage, and once more."""
    functions = example.make()
    started = time.perf_counter()
    metrics, error = _metrics(functions[0](str(example.program)))
    seconds = time.perf_counter() - started
    isolated = bool(_PROCESSES.search(example.evaluator.read_text()))
    found = Ran(example.name, _headline(metrics), error, seconds, len(functions), isolated=isolated)
    for stage in functions[1:]:
        _, problem = _metrics(stage(str(example.program)))
        if problem:
            found = evolve(found, error=f"{stage.__name__}: {problem}")
    return evolve(found, again=_metrics(functions[0](str(example.program)))[0] == metrics)


def natively(example: Example, python: str) -> tuple[float | None, float]:
    """Evaluate the same program with the same evaluator in a process of its own; return score and seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [python, "-c", _NATIVE, example.evaluator, example.program],
        env={**os.environ, **example.environ},
        cwd=example.evaluator.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    seconds = time.perf_counter() - started
    try:
        return _headline(json.loads(done.stdout.splitlines()[-1])), seconds
    except (ValueError, IndexError):
        return None, seconds


def _headline(metrics: dict[str, object]) -> float | None:
    """Return ``combined_score``, or the first metric there is of those that examples have in its place."""
    for name in ("combined_score", "overall_score", "composite_score", "score"):
        if isinstance(score := metrics.get(name), int | float):
            return float(score)
    return None


def _metrics(result: object) -> tuple[dict[str, object], str]:
    artifacts: dict[str, object] = getattr(result, "artifacts", {})
    metrics = dict(getattr(result, "metrics", result))  # type: ignore[call-overload]
    if "metrics" in metrics and isinstance(metrics["metrics"], dict):
        metrics = metrics["metrics"]
    error = metrics.get("error") or metrics.get("error_message") or ""
    if not error and "outcome" in artifacts:
        error = artifacts.get("error", artifacts["outcome"])
    return metrics, str(error)


def _shown(score: float | None) -> str:
    return "–" if score is None else f"{score:.6g}"


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="openevolve-examples-") as name:
        yield Path(name)


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="a checkout of OpenEvolve's repository")
    parser.add_argument("--algotune", type=Path, help="one of AlgoTune's, for eight of the examples")
    parser.add_argument("--arc", type=Path, help="one of the ARC-AGI puzzles, for one example")
    parser.add_argument(
        "--python", help="an interpreter to evaluate natively with; without it only sandboxed"
    )
    parser.add_argument("--only", default="", help="run the examples whose name contains this text")
    given = parser.parse_args()
    given.checkout = given.checkout.resolve()
    if not (given.checkout / "examples").is_dir():
        parser.error(f"{given.checkout} has no directory examples; give a checkout of OpenEvolve")
    print("| example | native | sandboxed | seconds natively | times | stages | own guest | same again | |")
    print("|---|---:|---:|---:|---:|---:|---|---|---|")
    good = bad = 0
    with _directory() as work, evocell.default_engine():
        for example in examples(given.checkout, given.algotune, given.arc, work):
            if given.only not in example.name:
                continue
            ran = run(example)
            if given.python:
                score, seconds = natively(example, given.python)
                ran = evolve(ran, native=score, native_seconds=seconds)
            good, bad = good + (not ran.error), bad + bool(ran.error)
            print(_row(ran, example.note), flush=True)
    print(
        f"\n{good} evaluators ran sandboxed, {bad} failed; {len(REASONS)} cannot:\n\n| example | why not |\n|---|---|"
    )
    for name, reason in REASONS.items():
        print(f"| `{name}` | {reason} |")
    return 1 if bad else 0


def _row(ran: Ran, note: str) -> str:
    times = f"{ran.seconds / ran.native_seconds:.1f}" if ran.native_seconds else "–"
    cells = (
        f"`{ran.name}`",
        _shown(ran.native),
        _shown(ran.score),
        f"{ran.native_seconds:.1f}" if ran.native_seconds else "–",
        times,
        str(ran.stages),
        "yes" if ran.isolated else "no",
        "yes" if ran.again else "no",
        f"failed: {ran.error[:200]}" if ran.error else note,
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
