"""Genetic programming with DEAP, evaluated in sandboxes: symbolic regression of x^4 + x^3 + x^2 + x.

    python examples/deap_regression.py [--generations 20]

Division is not protected: a tree may divide by zero. That ends its evaluation, and it gets the ``failure`` of
the objective, which is minimised: a crash never wins. The two lines that make the difference are those that
register ``evaluate`` and ``map``.
"""

from __future__ import annotations

import argparse
import operator
import random
from functools import partial
from typing import Any

from deap import algorithms, base, creator, gp, tools

import evocell

POINTS = [i / 10 for i in range(-10, 11)]
HARNESS = """
from operator import add, mul, sub, truediv
import program

program.add, program.mul, program.sub, program.truediv = add, mul, sub, truediv

def drive(points):
    return [program.f(x) for x in points]
"""
SEED = 7


def primitives() -> gp.PrimitiveSet:
    """Return what trees are made of."""
    found = gp.PrimitiveSet("f", 1)
    for function in (operator.add, operator.sub, operator.mul, operator.truediv):
        found.addPrimitive(function, 2)
    found.addEphemeralConstant("digit", partial(random.randint, -1, 1))
    found.renameArguments(ARG0="x")
    return found


def program(tree: gp.PrimitiveTree) -> str:
    """Write a tree as a program."""
    return f"def f(x):\n    return {tree}\n"


def squared_error(_case: evocell.Case, values: Any) -> float:
    """Score a tree, on the host: its mean squared error."""
    wanted = [x**4 + x**3 + x**2 + x for x in POINTS]
    return sum((float(value) - want) ** 2 for value, want in zip(values, wanted, strict=True)) / len(wanted)


TASK = evocell.Evaluation(
    "drive:drive",
    [evocell.Case((POINTS,))],
    squared_error,
    harness={"drive.py": HARNESS},
    limits=evocell.Limits(fuel=10**9),
    directions=("minimize",),
    failure=1e12,
)


def toolbox(engine: evocell.Engine, task: evocell.Evaluation = TASK) -> base.Toolbox:
    """Put the operators together, as any program with DEAP does."""
    pset = primitives()
    if not hasattr(creator, "Tree"):
        creator.create("Error", base.Fitness, weights=(-1.0,))
        creator.create("Tree", gp.PrimitiveTree, fitness=creator.Error)
    box = base.Toolbox()
    box.register("expr", gp.genHalfAndHalf, pset=pset, min_=1, max_=3)
    box.register("individual", tools.initIterate, creator.Tree, box.expr)
    box.register("population", tools.initRepeat, list, box.individual)
    box.register("select", tools.selTournament, tournsize=3)
    box.register("mate", gp.cxOnePoint)
    box.register("expr_mut", gp.genFull, min_=0, max_=2)
    box.register("mutate", gp.mutUniform, expr=box.expr_mut, pset=pset)
    for operation in ("mate", "mutate"):
        box.decorate(operation, gp.staticLimit(key=operator.attrgetter("height"), max_value=10))
    evaluator = engine.evaluator(task, prepare=program)
    box.register("evaluate", evaluator)
    box.register("map", evaluator.map)
    return box


def main() -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generations", type=int, default=20, help="of 100 trees each")
    given = parser.parse_args()
    random.seed(SEED)
    with evocell.Engine() as engine:
        box = toolbox(engine)
        best = tools.HallOfFame(1)
        statistics = tools.Statistics(lambda tree: tree.fitness.values[0])
        statistics.register("crashed", lambda errors: sum(error == TASK.failure for error in errors))
        statistics.register("best error", min)
        algorithms.eaSimple(
            box.population(n=100),
            box,
            cxpb=0.6,
            mutpb=0.2,
            ngen=given.generations,
            stats=statistics,
            halloffame=best,
        )
    print(f"best: {best[0]}, error {best[0].fitness.values[0]:.2e}")
    return 0 if best[0].fitness.values[0] < 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
