"""Run the notebooks that AlphaEvolve's results were published with, cell by cell, sandboxed and natively.

They are not part of this project; give the paths of checkouts:

    git clone https://github.com/google-deepmind/alphaevolve_repository_of_problems
    git clone https://github.com/google-deepmind/alphaevolve_results
    python bench/alphaevolve_notebooks.py alphaevolve_repository_of_problems alphaevolve_results

Each notebook is a program that an evaluator starts by ``subprocess``, so in the sandbox it has a guest of its
own. A cell is equal if it printed the same, or raised the same, numbers to twelve digits. ``--python`` names the interpreter of
the native run, which needs numpy, scipy, sympy, matplotlib and numba. Numba has no build for WebAssembly: in
the sandbox a module of a few lines stands in for it, whose decorators return the function as it is. Both sides draw into stand-ins
of plotly and IPython.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

import evocell
from evocell.integrations.openevolve import sandboxed

EVALUATOR = """
import json, os, subprocess, sys

def evaluate(path, python=None, seconds=None):
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        done = subprocess.run(
            [python or sys.executable, "cells.py"], cwd=here, env={**os.environ, "MPLBACKEND": "Agg"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds,
        )
        out, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        out, code = late.stdout or b"", -9
    cells = [json.loads(line) for line in out.split(b"\\n") if line.endswith(b"]")]
    return {"combined_score": float(len(cells)), "cells": cells, "code": code}
"""
CELLS = r'''
import ast, contextlib, io, json, re, sys
from pathlib import Path

def run(text):
    """Run a cell, and say what its last line is worth, as a notebook does."""
    file = Path(f"cell_{len(made)}.py").resolve()  # numba wants to find it
    file.write_text(text)
    made.append(file)
    tree = ast.parse(text, str(file))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(file), "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), str(file), "eval"), names)
        if value is not None and " at 0x" not in repr(value):
            print(repr(value))

made = []
names = {"__name__": "__main__", "display": lambda *shown: None}
for text in json.loads(Path(__file__).with_name("cells.json").read_text()):
    out, error = io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            run(text)
    except BaseException as raised:
        error = re.sub(r" \(/[^)]*\)", "", f"{type(raised).__name__}: {raised}")[:300]  # a path of the interpreter's
    said = out.getvalue()
    print(json.dumps([said[:20_000], error]), flush=True)
'''
ANYTHING = '''
"""Stands in for a package that only draws: whatever is asked of it is there and does nothing."""
import sys

class Anything:
    def __init__(self, *args, **named): pass
    def __call__(self, *args, **named): return Anything()
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        return Anything()
    def __iter__(self): return iter(())

def __getattr__(name):
    if name.startswith("__"): raise AttributeError(name)
    return Anything()

__path__ = []
for inside in ("graph_objects", "express", "subplots", "io", "offline", "display"):
    sys.modules[f"{__name__}.{inside}"] = sys.modules[__name__]
'''
NUMBA = '''
"""Stands in for numba: the decorators return the function as it is, which the interpreter then runs."""
import sys

def jit(*given, **options):
    return given[0] if given and callable(given[0]) and not options else lambda function: function

class Type:
    def __getitem__(self, dimensions): return self
    def __call__(self, *given): return self

njit = vectorize = guvectorize = stencil = jit
prange = range
int32 = int64 = float32 = float64 = boolean = uint8 = uint64 = complex128 = Type()
typed = types = core = sys.modules[__name__]
__path__ = []
sys.modules.update({f"numba.{name}": typed for name in ("typed", "types", "core")})

Array = Type()

class List(list):
    empty_list = classmethod(lambda cls, *given: cls())

class Dict(dict):
    empty = classmethod(lambda cls, *given, **named: cls())
'''

_NUMBER = re.compile(r"[-+]?[0-9]+(?:[.][0-9]*)?(?:e[-+]?[0-9]+)?")


@frozen
class Compared:
    """What came of one notebook.

    Attributes:
        name: Its file's name.
        cells: How many cells it has that are Python.
        native: How many of them ended natively in time.
        sandboxed: How many ended in the sandbox.
        equal: How many ended on both sides and printed or raised the same, numbers to twelve digits.
        exact: How many of these did so byte for byte.
        raised: How many of the equal ones raised, for want of a package or of an import that the notebook forgot.
        numbers: How many numbers the equal ones printed.
        seconds: Wall time natively and in the sandbox.
        differs: The cells that do not agree, each with what was printed or raised.
    """

    name: str
    cells: int
    native: int
    sandboxed: int
    equal: int
    exact: int
    raised: int
    numbers: int
    seconds: tuple[float, float]
    differs: list[str]


def notebooks(checkouts: list[Path]) -> Iterator[tuple[str, list[str]]]:
    """Find notebooks and the cells of each that are Python; lines for the shell are left out."""
    for path in sorted(path for checkout in checkouts for path in checkout.rglob("*.ipynb")):
        texts = [
            re.sub(r"(?m)^([ \t]*)[!%].*$", r"\1pass", "".join(cell["source"]))
            for cell in json.loads(path.read_text())["cells"]
            if cell["cell_type"] == "code"
        ]
        yield path.stem, [text for text in texts if _is_python(text)]


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def compare(name: str, cells: list[str], python: str, seconds: float, fuel: int) -> Compared:
    """Run one notebook on both sides."""
    with tempfile.TemporaryDirectory(prefix="notebook-") as top:
        native, guest = Path(top) / "native", Path(top) / "guest"
        native.mkdir()
        (native / "cells.json").write_text(json.dumps(cells))
        (native / "cells.py").write_text(CELLS)
        (native / "evaluator.py").write_text(EVALUATOR)
        for module in ("plotly", "IPython"):
            (native / f"{module}.py").write_text(ANYTHING)
        shutil.copytree(native, guest)
        (guest / "numba.py").write_text(NUMBA)
        started = time.perf_counter()
        found = _natively(native, python, seconds)
        between = time.perf_counter()
        inside = _in_a_sandbox(guest, fuel)
        took = (between - started, time.perf_counter() - between)
    pairs = list(zip(found, inside, strict=False))
    equal = [agree(one, other) for one, other in pairs]
    differs = [
        f"cell {place}: natively {_brief(one)}, sandboxed {_brief(other)}"
        for place, ((one, other), same) in enumerate(zip(pairs, equal, strict=True), 1)
        if not same
    ]
    numbers = sum(len(_NUMBER.findall(one[0])) for (one, _), same in zip(pairs, equal, strict=True) if same)
    exact = sum(one == other for one, other in pairs)
    raised = sum(bool(one[1]) for (one, _), same in zip(pairs, equal, strict=True) if same)
    return Compared(
        name, len(cells), len(found), len(inside), sum(equal), exact, raised, numbers, took, differs
    )


def agree(one: list[str], other: list[str]) -> bool:
    """Whether two cells printed and raised the same, numbers to twelve digits."""
    texts = [_NUMBER.sub("#", part).split() for cell in (one, other) for part in cell]
    values = [[float(number) for number in _NUMBER.findall(cell[0])] for cell in (one, other)]
    return (
        texts[:2] == texts[2:]
        and len(values[0]) == len(values[1])
        and all(math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-15) for a, b in zip(*values, strict=True))
    )


def _brief(cell: list[str]) -> str:
    return repr(cell[1] or cell[0])[:150]


def _natively(directory: Path, python: str, seconds: float) -> list[list[str]]:
    code = (
        "import json, sys; from evaluator import evaluate; "
        "print(json.dumps(evaluate('', sys.argv[1], float(sys.argv[2]))['cells']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, python, str(seconds)],
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    )
    cells: list[list[str]] = json.loads(done.stdout)
    return cells


def _in_a_sandbox(directory: Path, fuel: int) -> list[list[str]]:
    limits = evocell.Limits(
        fuel=fuel,
        timeout_s=3600.0,
        memory_bytes=3 << 30,
        scratch_bytes=256 << 20,
        payload_bytes=64 << 20,
        output_bytes=1 << 20,
    )
    (evaluate, *_) = sandboxed(directory / "evaluator.py", files=["*.py", "*.json"], limits=limits)
    (directory / "program.py").write_text("")
    result = evaluate(str(directory / "program.py"))
    if not isinstance(result, dict):
        print(result.artifacts.get("error"))
        return []
    cells: list[list[str]] = result["cells"]
    return cells


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", type=Path, nargs="+", help="checkouts of AlphaEvolve's repositories")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the native run")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a notebook may run natively")
    parser.add_argument("--fuel", type=int, default=4 * 10**12, help="how much work it may do in the sandbox")
    parser.add_argument("--only", default="", help="run the notebooks whose name contains this text")
    given = parser.parse_args()
    print(
        "| notebook | cells | ended natively | ended sandboxed | equal | byte for byte | both raised | numbers in them | seconds | times |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    unequal = 0
    with evocell.default_engine():
        for name, cells in notebooks(given.checkouts):
            if given.only not in name:
                continue
            ran = compare(name, cells, given.python, given.seconds, given.fuel)
            unequal += bool(ran.differs)
            native, inside = ran.seconds
            print(
                f"| `{name}` | {ran.cells} | {ran.native} | {ran.sandboxed} | {ran.equal} | {ran.exact} | {ran.raised} | {ran.numbers} | "
                f"{native:.1f} | {inside / native:.1f} |",
                flush=True,
            )
            for line in ran.differs:
                print(f"    {line}", file=sys.stderr, flush=True)
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
