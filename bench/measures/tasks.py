"""The programs that everybody is timed with: the same text, argument and answer for evocell and its peers."""

from __future__ import annotations

from attrs import frozen


@frozen
class Task:
    """A program that defines ``solve``, and one call of it.

    Attributes:
        name: What to call it in a row.
        source: Its text.
        argument: What ``solve`` is called with.
        expected: What it returns.
        modules: What it imports that is not in the standard library.
    """

    name: str
    source: str
    argument: int
    expected: float
    modules: tuple[str, ...] = ()

    def program(self) -> str:
        """The text that also calls ``solve`` and leaves its answer in ``answer``."""
        return f"{self.source}\nanswer = solve({self.argument})\n"


TRIVIAL = Task("trivial", "def solve(n):\n    return n * n\n", 3, 9)

NUMPY = Task(
    "numpy",
    "import numpy as np\n\ndef solve(n):\n    a = np.arange(n, dtype=float)\n    return float((a * a).sum())\n",
    1_000,
    332_833_500.0,
    ("numpy",),
)

WORK = Task(
    "50 ms of Python",
    "def solve(n):\n    total = 0\n    for i in range(n):\n        total += i * i % 7\n    return total\n",
    600_000,
    1_199_997,
)
"""About 50 ms for CPython; the answer tells whether all of it was done."""

TASKS = (TRIVIAL, NUMPY, WORK)
