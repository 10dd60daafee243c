"""Programs that try to work for long without being charged: what each was charged, and how late it was stopped.

    .venv/bin/python bench/adversaries.py [--page docs/adversaries.md]

Each runs twice in a sandbox: with a fuel limit that it reaches, and with fuel without end and a deadline.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from attrs import frozen

import evocell

FUEL = 2_000_000_000
DEADLINE_S = 0.5
MEMORY_BYTES = 1 << 30
HEAD = f"""# Work that tries not to be charged

Ways to run for long without being charged that were tried, each in a function that never ends by itself or takes minutes.
Made by `python bench/adversaries.py --page docs/adversaries.md`, two workers.

- *With a fuel limit* of {FUEL:,} units: how the call ended, after how many seconds, and the fuel in a second of running, in
  thousand millions. Were something not charged, that would be near zero, and the call would end by its time.
- *With a deadline* of {DEADLINE_S:g} s and fuel without end: how the call ended, and how long after the deadline. The promise is
  20 ms and 2 ms for each megabyte that one operation works on.

| program | with a fuel limit | s | G/s | with a deadline | late, ms |
|---|---|---:|---:|---|---:|
"""


@frozen
class Adversary:
    """A program and what it tries."""

    name: str
    body: str
    setup: str = ""

    @property
    def source(self) -> str:
        """Its text, with the function ``f``."""
        lines = "\n    ".join(self.body.splitlines())
        return f"{self.setup}\n\ndef f():\n    {lines}\n"


ADVERSARIES = (
    Adversary("an empty loop", "while True: pass"),
    Adversary("recursion in Python", "def g(n): return 0 if n == 0 else g(n - 1) + g(n - 1)\nreturn g(200)"),
    Adversary(
        "recursion through C (`functools.cache`, `max(key=)`)",
        "import functools\n@functools.lru_cache(maxsize=0)\ndef g(n): return 0 if n == 0 else max([n, n], key=lambda m: g(m - 1))\nreturn g(60)",
    ),
    Adversary(
        "a regular expression that backtracks", "import re\nreturn re.match(r'(a+)+$', 'a' * 64 + 'b')"
    ),
    Adversary("a power of big integers", "return pow(3, 10 ** 9)"),
    Adversary("a product of big integers", "a = (1 << 8_000_000) - 1\nwhile True: a * a"),
    Adversary(
        "digits of a big integer", "import sys\nsys.set_int_max_str_digits(0)\nreturn str(1 << 30_000_000)"
    ),
    Adversary("a sort with a key", "while True: sorted(range(10 ** 6), key=lambda n: -n)"),
    Adversary("a sort in C", "a = list(range(10 ** 6, 0, -1))\nwhile True: sorted(a + a)"),
    Adversary("memory fills", "while True: bytearray(64 << 20)"),
    Adversary("copies of memory", "a = bytearray(64 << 20)\nwhile True: bytes(a)"),
    Adversary("exceptions", "while True:\n    try: raise ValueError\n    except ValueError: pass"),
    Adversary("generators", "def g():\n    while True: yield\nfor _ in g(): pass"),
    Adversary("`sum(range(10**12))`", "return sum(range(10 ** 12))"),
    Adversary(
        "`itertools` consumed in C",
        "import itertools, collections\ncollections.deque(itertools.repeat(0, 10 ** 12), maxlen=0)",
    ),
    Adversary("a search in a long text", "a = 'a' * 10 ** 6\nwhile True: (a * 8).find(a + 'b')"),
    Adversary("`in` of an endless iterator", "import itertools\nreturn -1 in itertools.count()"),
    Adversary("a hash of long texts", "while True: hash('a' * (16 << 20))"),
    Adversary(
        "a digest: long code without loops",
        "import hashlib\na = bytes(1 << 20)\nwhile True: hashlib.sha256(a)",
    ),
    Adversary("compression", "import zlib\na = bytes(32 << 20)\nwhile True: zlib.compress(a, 9)"),
    Adversary("garbage collection", "import gc\na = [[n] for n in range(300_000)]\nwhile True: gc.collect()"),
    Adversary("compilation of long sources", "while True: compile('x = 1\\n' * 50_000, 'f', 'exec')"),
    Adversary(
        "numpy: sums of many megabytes", "a = np.ones(16 << 20)\nwhile True: a.sum()", "import numpy as np"
    ),
    Adversary(
        "numpy: one matrix product", "a = np.ones((4000, 4000))\nreturn (a @ a).sum()", "import numpy as np"
    ),
    Adversary("numpy: one sort", "return np.sort(np.arange(40_000_000.0)[::-1]).sum()", "import numpy as np"),
    Adversary(
        "numpy: a product of broadcasting",
        "a = np.ones(40_000)\nreturn (a[:, None] * a[None, :1]).sum() + sum((a * i).sum() for i in range(10 ** 6))",
        "import numpy as np",
    ),
    Adversary(
        "numpy: sums that wait for one another",
        "a = np.ones(1 << 20)\nwhile True: np.cumsum(a)",
        "import numpy as np",
    ),
    Adversary(
        "numpy: copies that wait for memory",
        "a = np.ones((2048, 2048))\nwhile True: a.T.copy()",
        "import numpy as np",
    ),
    Adversary(
        "numpy: random numbers",
        "g = np.random.default_rng(1)\nwhile True: g.standard_normal(1 << 22)",
        "import numpy as np",
    ),
    Adversary(
        "numpy: eigenvalues",
        "a = np.random.default_rng(1).random((900, 900))\nreturn np.linalg.eigvals(a).sum()",
        "import numpy as np",
    ),
    Adversary("calls of the host: clocks", "import time\nwhile True: time.time()"),
    Adversary("calls of the host: listings", "import os\nwhile True: os.listdir('/')"),
    Adversary("calls of the host: output", "while True: print('a' * 1000)"),
    Adversary("sleeping", "import time\nwhile True: time.sleep(1e-9)"),
    Adversary("finalisers", "class A:\n    def __del__(self): A()\nA()\nwhile True: pass"),
)


def main() -> None:
    """Run all, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="where to write the page")
    page = parser.parse_args().page
    rows = []
    with evocell.Engine(evocell.Config(workers=2)) as engine:
        for number, adversary in enumerate(ADVERSARIES, 1):
            print(f"{number}/{len(ADVERSARIES)} {adversary.name}", file=sys.stderr)
            rows.append(row(engine, adversary))
    text = HEAD + "".join(rows)
    if page is None:
        print(text)
    else:
        page.write_text(text, encoding="utf-8")


def row(engine: evocell.Engine, adversary: Adversary) -> str:
    """Run one both ways, and return its row of the table."""
    outcomes = []
    for fuel, timeout_s in ((FUEL, 300.0), (10**15, DEADLINE_S)):
        limits = evocell.Limits(fuel=fuel, memory_bytes=MEMORY_BYTES, timeout_s=timeout_s)
        with engine.create_sandbox(source=adversary.source, limits=limits) as sandbox:
            outcomes.append(sandbox.run("f"))
    by_fuel, by_time = outcomes
    late = f"{max(0.0, by_time.wall_s - DEADLINE_S) * 1000:.0f}" if by_time.kind == "timeout" else "–"
    speed = f"{by_fuel.fuel_used / by_fuel.wall_s / 1e9:.1f}"
    return (
        f"| {adversary.name} | {by_fuel.kind} | {by_fuel.wall_s:.2f} | {speed} | {by_time.kind} | {late} |\n"
    )


if __name__ == "__main__":
    main()
