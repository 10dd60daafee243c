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


@pytest.mark.parametrize("loop", ["eaSimple", "eaMuPlusLambda"])
def test_lineage_of_a_loop_of_deaps_is_known(example, loop):
    from evocell.integrations.deap import Family

    with evocell.Engine(evocell.Config.load(workers=1)) as engine:

        def run(family):
            random.seed(5)
            box = example.toolbox(engine)
            if family is not None:
                family.track(box)
                ev = engine.evaluator(example.TASK, prepare=family.prepare(example.program))
                box.register("evaluate", ev)
                box.register("map", ev.map)
            population = box.population(n=16)
            if loop == "eaSimple":
                population, _ = algorithms.eaSimple(population, box, 0.6, 0.3, 4, verbose=False)
            else:
                population, _ = algorithms.eaMuPlusLambda(population, box, 16, 16, 0.5, 0.4, 4, verbose=False)
            return population

        family = Family()
        population = run(family)
        assert [str(one) for one in population] == [str(one) for one in run(None)]  # the loop runs as it did
        best = min(population, key=lambda one: one.fitness.values)
        known = engine.lineage.get(family.id_of(best))
        everyone = [engine.lineage.get(family.id_of(one)) for one in population]
        assert max(one.generation for one in everyone) >= 2
        kinds = {
            kind
            for one in engine.lineage.family([one.id for one in everyone])
            for kind in one.mutation_type.split("+")
        }
        assert {"seed", "mate", "mutate"} <= kinds
        ancestors = engine.lineage.ancestors(known.id)
        assert ancestors or known.generation == 0
        assert engine.lineage.source(known.id)["program.py"] == example.program(best)
        for one in everyone:
            assert all(engine.lineage.get(parent).generation < one.generation for parent in one.parent_ids)
            assert bool(one.parent_ids) == (one.generation > 0)


def test_a_toolbox_without_an_operator_is_refused(example, sandboxes):
    from evocell.integrations.deap import Family

    with pytest.raises(evocell.ConfigurationError, match="no 'blend'"):
        Family().track(example.toolbox(sandboxes), operators=["blend"])
