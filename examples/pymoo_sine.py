"""Accuracy against cost, where cost is exact: approximations of the sine, evolved by pymoo's NSGA-II.

    python examples/pymoo_sine.py [--plot sine_front.png] [--generations 40]

An individual says which powers a polynomial has, and how its fit is weighted; it becomes a program with just
those terms. Its first objective is the largest error, the second the fuel that a point takes: its work,
counted in the sandbox. Fuel has no noise, so the same seed gives the same front every time, to
the last digit; with seconds in its place, no two runs would agree.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.optimize import minimize

import evocell
from evocell.integrations.pymoo import SandboxProblem

POINTS = np.linspace(-math.pi / 2, math.pi / 2, 400)
HARNESS = """
from program import sine

def drive(points):
    return [sine(float(x)) for x in points]
"""

# An individual: for each power from 1 whether it is used (above a half), and the weight of the ends.
N_POWERS = 11
USED = 0.5


def program(x: Sequence[float]) -> str:
    """Write an individual as a program, by Horner's rule."""
    powers = [i + 1 for i in range(N_POWERS) if x[i] > USED]
    if not powers:
        return "def sine(x):\n    return 0.0\n"
    terms = {power: f"{c:.12g}" for power, c in zip(powers, fitted(powers, x[N_POWERS]), strict=True)}
    text, steps = terms[powers[-1]], {powers[0]}
    for lower, higher in reversed(list(pairwise(powers))):
        steps.add(higher - lower)
        text = f"({terms[lower]} + p{higher - lower} * {text})"
    lines = [f"p{n} = p{n - 1} * p1" for n in range(2, max(steps) + 1)]
    return "\n    ".join(["def sine(p1):", *lines, f"return p{powers[0]} * {text}"]) + "\n"


def fitted(powers: list[int], weight: float) -> list[float]:
    """Fit the coefficients of some powers; the weight lowers the error at the ends, where it is largest."""
    nodes = np.cos(np.pi * (np.arange(200) + 0.5) / 200) * POINTS[-1]
    weights = (1.001 - (nodes / POINTS[-1]) ** 2) ** -weight
    columns = weights[:, None] * nodes[:, None] ** np.array(powers)
    return [float(c) for c in np.linalg.lstsq(columns, weights * np.sin(nodes), rcond=None)[0]]


def largest_error(_case: evocell.Case, values: Any) -> float:
    """Score one individual, on the host: how far its values are from the sine at most."""
    return float(np.max(np.abs(np.array(values) - np.sin(POINTS))))


def objectives(cases: list[evocell.CaseResult]) -> tuple[float, float]:
    """Return the error's logarithm and the fuel for a point."""
    error, fuel = cases[0].score, cases[0].outcome.fuel_used
    assert isinstance(error, float)
    return math.log10(max(error, 1e-16)), fuel / len(POINTS)


TASK = evocell.Evaluation(
    "drive:drive",
    [evocell.Case((POINTS,))],
    largest_error,
    aggregate=objectives,
    harness={"drive.py": HARNESS},
    limits=evocell.Limits(fuel=10**9),
    directions=("minimize", "minimize"),
    failure=(3.0, 1e9),
)


def evolve(engine: evocell.Engine, *, generations: int, seed: int = 1) -> Any:
    """Run NSGA-II and return pymoo's result."""
    problem = SandboxProblem(engine.evaluator(TASK, prepare=program), n_var=N_POWERS + 1, xl=0.0, xu=1.0)
    return minimize(problem, NSGA2(pop_size=40), ("n_gen", generations), seed=seed, save_history=True)


def front(result: Any) -> list[tuple[float, float, str]]:
    """Return what no other individual beats in both objectives: log error, fuel, program; cheapest first."""
    found = {tuple(map(float, f)): program(x) for f, x in zip(result.F, result.X, strict=True)}
    return [(error, fuel, found[error, fuel]) for error, fuel in sorted(found, key=lambda pair: pair[1])]


def digest(found: list[tuple[float, float, str]]) -> str:
    """Return a hash of a front."""
    return hashlib.sha256(repr(found).encode()).hexdigest()


def plot(result: Any, path: Path) -> None:
    """Draw the front, above all that was evaluated on the way."""
    mpl.use("agg")
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    seen = np.vstack([entry.pop.get("F") for entry in result.history])
    best = np.array([(fuel, 10**error) for error, fuel, _ in front(result)])
    axes.scatter(seen[:, 1], 10 ** seen[:, 0], s=8, color="0.75", label="evaluated on the way", linewidths=0)
    axes.step(best[:, 0], best[:, 1], where="post", color="tab:blue", linewidth=1)
    axes.scatter(best[:, 0], best[:, 1], s=28, color="tab:blue", label="Pareto front", zorder=3)
    axes.set_yscale("log")
    axes.set_xlabel("fuel for one point (units of work)")
    axes.set_ylabel("largest error")
    axes.set_title("Approximations of the sine: accuracy against exact cost")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plot", type=Path, default=Path("sine_front.png"), help="where to draw the front")
    parser.add_argument("--generations", type=int, default=40, help="of 40 individuals each")
    given = parser.parse_args()
    with evocell.Engine() as engine:
        result = evolve(engine, generations=given.generations)
        found = front(result)
        again = front(evolve(engine, generations=given.generations))
    for error, fuel, text in found:
        print(f"error {10**error:9.2e}  fuel {fuel:10,.1f}  {text.splitlines()[-1].strip()}")
    plot(result, given.plot)
    print(f"drawn in {given.plot}; digest {digest(found)[:16]}")
    print("run again: the same front" if again == found else "run again: ANOTHER FRONT")
    return 0 if again == found else 1


if __name__ == "__main__":
    raise SystemExit(main())
