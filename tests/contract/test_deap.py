"""DEAP itself drives loops whose individuals run in sandboxes."""

from __future__ import annotations

import random

import pytest
from deap import algorithms, base, creator, gp, tools

import evocell

EXAMPLE = "deap_regression"


@pytest.fixture
def box(example, sandboxes):
    random.seed(3)
    return example.toolbox(sandboxes)


def tree(example, text: str):
    return creator.Tree(gp.PrimitiveTree.from_string(text, example.primitives()))


def test_trees_are_scored_in_order_and_a_crash_is_worst(example, box):
    trees = [
        tree(example, text)
        for text in (
            "x",
            "truediv(x, sub(x, x))",
            "add(x, mul(x, x))",
            "mul(add(mul(x, mul(x, x)), x), add(x, 1))",
        )
    ]
    fitnesses = box.map(box.evaluate, trees)
    assert fitnesses[1] == (1e12,)
    assert fitnesses[0][0] > fitnesses[2][0] > fitnesses[3][0] == pytest.approx(0.0, abs=1e-12)
    assert box.evaluate(trees[2]) == fitnesses[2]
    for individual, fitness in zip(trees, fitnesses, strict=True):
        individual.fitness.values = fitness
    assert tools.selBest(trees, 4)[-1] is trees[1]


def test_a_loop_of_deaps_improves_and_is_the_same_on_repetition(example, box):
    def run():
        random.seed(5)
        best = tools.HallOfFame(1)
        log = algorithms.eaSimple(box.population(n=30), box, 0.6, 0.2, 3, halloffame=best, verbose=False)[1]
        return str(best[0]), best[0].fitness.values, log.select("nevals")

    first = run()
    assert first == run()
    assert first[1][0] < 1.0


def test_other_loops_of_deaps_and_a_penalty(example, box):
    box.decorate("evaluate", tools.DeltaPenalty(lambda individual: len(individual) < 12, 7.0))
    population = box.population(n=12)
    algorithms.eaMuPlusLambda(population, box, 12, 12, 0.5, 0.3, 1, verbose=False)
    large = next(one for one in (box.individual() for _ in range(1000)) if len(one) >= 12)
    assert box.map(box.evaluate, [large, tree(example, "x")])[0] == (7.0,)


def test_individuals_of_several_arguments(sandboxes):
    task = evocell.Evaluation("f", [evocell.Case((2,))], lambda case, value: float(value))
    ev = sandboxes.evaluator(
        task, prepare=lambda k, offset, power=1: f"def f(x): return {k} * x ** {power} + {offset}"
    )
    box = base.Toolbox()
    box.register("evaluate", ev, power=3)
    box.register("map", ev.map)
    assert box.map(box.evaluate, [1, 2], [10, 20]) == [(18.0,), (36.0,)]


def test_a_function_that_is_no_evaluator_is_not_run_outside(sandboxes):
    box = base.Toolbox()
    box.register("map", sandboxes.evaluator(evocell.Evaluation("f", [evocell.Case(expected=1)])).map)
    box.register("evaluate", exec)
    with pytest.raises(evocell.ConfigurationError, match="register the evaluator itself"):
        box.map(box.evaluate, ["1/0"])
