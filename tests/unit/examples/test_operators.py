import random

import numpy as np
import pytest

from bin_packing.expressions import (
    BINS,
    ITEM,
    LEFT,
    const,
    is_condition,
    render,
    replace,
    size,
    uses_bins,
    walk,
)
from bin_packing.operators import (
    MAX_NODES,
    MUTATIONS,
    crossover,
    is_program,
    offspring,
    random_program,
    tournament,
)


def programs(count, seed=3):
    rng = random.Random(seed)
    return [random_program(rng) for _ in range(count)]


def test_random_programs_run_and_give_one_number_per_bin(priority_of, situations):
    for tree in programs(150):
        priority = priority_of(render(tree))
        for item, bins in situations[:3]:
            assert np.shape(priority(item, bins)) == bins.shape


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_gives_a_program_that_runs(name, priority_of, situations):
    rng = random.Random(name)
    item, bins = situations[0]
    for parent in programs(60):
        child = MUTATIONS[name](rng, parent)
        assert is_program(child)
        assert np.shape(priority_of(render(child))(item, bins)) == bins.shape


def test_crossover_gives_a_program_that_runs(priority_of, situations):
    rng = random.Random(0)
    item, bins = situations[0]
    parents = programs(80)
    for mother, father in zip(parents[::2], parents[1::2], strict=True):
        child = crossover(rng, mother, father)
        assert is_program(child)
        assert np.shape(priority_of(render(child))(item, bins)) == bins.shape


def test_the_seed_decides():
    def line(seed):
        rng = random.Random(seed)
        trees = [random_program(rng) for _ in range(10)]
        for _ in range(60):
            trees.append(offspring(rng, lambda: rng.choice(trees), lambda tree: tree)[0])
        return [render(tree) for tree in trees]

    assert line(4) == line(4)
    assert line(4) != line(5)


def test_offspring_names_its_operator_and_parents():
    rng = random.Random(1)
    pool = programs(8)
    seen = set()
    for _ in range(80):
        tree, operator, parents = offspring(rng, lambda: rng.choice(pool), lambda one: one)
        assert size(tree) <= MAX_NODES
        assert uses_bins(tree)
        assert len(parents) == (2 if operator == "crossover" else 1)
        seen.add(operator)
    assert seen == {"crossover", *MUTATIONS}


def test_tournament_prefers_the_front():
    rng = random.Random(0)
    wins = [tournament(rng, range(10), 3) for _ in range(500)]
    assert set(wins) <= set(range(10))
    assert wins.count(0) > 3 * wins.count(8)
    assert tournament(rng, ["only"], 3) == "only"


def test_replace_and_walk_agree():
    tree = ("where", ("lt", LEFT, const(3)), BINS, ("neg", ITEM))
    for path, node in walk(tree):
        assert replace(tree, path, node) == tree
    assert [is_condition(node) for _, node in walk(tree)].count(True) == 1
    assert replace(tree, (3, 1), LEFT) == ("where", ("lt", LEFT, const(3)), BINS, ("neg", LEFT))


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (("neg", LEFT), "-left"),
        (("sub", BINS, ("sub", ITEM, const(2))), "bins - (item - 2)"),
        (("mul", ("add", LEFT, const(1)), BINS), "(left + 1) * bins"),
        (("div", ITEM, LEFT), "item / (1 + left)"),
        (("div", ITEM, ("sub", LEFT, ITEM)), "item / (1 + np.abs(left - item))"),
        (("div", LEFT, const(-4)), "left / 5"),
        (("square", ("neg", LEFT)), "(-left) ** 2"),
        (("neg", ("square", LEFT)), "-left ** 2"),
        (("where", ("lt", const(24), LEFT), LEFT, const(0)), "np.where(left > 24, left, 0)"),
        (
            ("where", ("or", ("lt", LEFT, const(3)), ("lt", const(24), LEFT)), LEFT, const(-1)),
            "np.where((left < 3) | (left > 24), left, -1)",
        ),
        (("sqrt", ("sub", LEFT, ITEM)), "np.sqrt(np.abs(left - item))"),
        (("min", BINS, ("abs", ("neg", ITEM))), "np.minimum(bins, np.abs(-item))"),
    ],
)
def test_rendering(tree, text):
    assert render(tree).rstrip().splitlines()[-1] == f"    return {text}"


def test_shared_and_long_parts_get_names(priority_of, situations):
    shared = ("add", ("mul", LEFT, ITEM), const(5))
    source = render(("min", shared, ("sub", const(9), shared)))
    assert "    a = left * item + 5\n    return np.minimum(a, 9 - a)\n" in source
    deep = LEFT
    for step in range(15):
        deep = ("min", ("add", deep, const(step + 100)), ("mul", BINS, const(step + 20)))
    source = render(deep)
    assert max(len(line) for line in source.splitlines()) < 100
    item, bins = situations[0]
    assert priority_of(source)(item, bins).shape == bins.shape
