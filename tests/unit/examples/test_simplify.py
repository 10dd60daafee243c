import random

import numpy as np
import pytest

from bin_packing.expressions import BINS, ITEM, LEFT, const, render, size
from bin_packing.operators import random_number
from bin_packing.simplify import bounds, ranking, simplify

SHORT_GAP = ("lt", LEFT, const(3))


def random_trees(count, seed):
    rng = random.Random(seed)
    return [random_number(rng, 5) for _ in range(count)]


def values(tree, priority_of, situations):
    priority = priority_of(render(tree))
    return [np.broadcast_to(priority(item, bins), bins.shape) for item, bins in situations]


def test_simplified_programs_mean_the_same_and_are_no_longer(priority_of, situations):
    for tree in random_trees(300, seed=1):
        shorter = simplify(tree)
        assert size(shorter) <= size(tree)
        assert simplify(shorter) == shorter
        pairs = zip(
            values(tree, priority_of, situations), values(shorter, priority_of, situations), strict=True
        )
        for before, after in pairs:
            finite = np.isfinite(before)
            np.testing.assert_allclose(after[finite], before[finite], rtol=1e-6, atol=1e-6)


def test_ranking_keeps_the_favourite_bin(priority_of, situations):
    for tree in random_trees(300, seed=2):
        shorter = ranking(tree)
        pairs = zip(
            values(tree, priority_of, situations), values(shorter, priority_of, situations), strict=True
        )
        for before, after in pairs:
            if np.isfinite(before).all():
                assert before[after.argmax()] == pytest.approx(before.max(), rel=1e-6, abs=1e-6)


def test_bounds_hold_the_values(priority_of, situations):
    for tree in random_trees(300, seed=3):
        low, high = bounds(tree)
        for numbers in values(tree, priority_of, situations):
            finite = numbers[np.isfinite(numbers)]
            assert (finite >= low - 1e-6 * abs(low)).all()
            assert (finite <= high + 1e-6 * abs(high)).all()


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (("sub", BINS, ITEM), LEFT),
        (("sub", BINS, LEFT), ITEM),
        (("add", ITEM, LEFT), BINS),
        (("abs", LEFT), LEFT),
        (("max", LEFT, const(-3)), LEFT),
        (("add", const(2), const(3)), const(5)),
        (("mul", LEFT, const(0)), const(0)),
        (("neg", ("sub", LEFT, ITEM)), ("sub", ITEM, LEFT)),
        (("where", ("lt", LEFT, const(0)), ITEM, BINS), BINS),
        (
            ("where", SHORT_GAP, ("where", ("lt", LEFT, const(9)), ITEM, LEFT), BINS),
            ("where", SHORT_GAP, ITEM, BINS),
        ),
        (
            ("where", ("lt", ("add", LEFT, const(3)), const(10)), ITEM, BINS),
            ("where", ("lt", LEFT, const(7)), ITEM, BINS),
        ),
        (
            ("where", ("lt", ("neg", LEFT), const(-5)), ITEM, BINS),
            ("where", ("lt", const(5), LEFT), ITEM, BINS),
        ),
        (("where", ("lt", LEFT, const(1)), LEFT, BINS), ("where", ("lt", LEFT, const(1)), const(0), BINS)),
    ],
)
def test_rules(tree, expected):
    assert simplify(tree) == expected


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (("add", LEFT, ITEM), LEFT),
        (("mul", LEFT, ITEM), LEFT),
        (("mul", ("neg", LEFT), const(7)), ("neg", LEFT)),
        (("sub", ITEM, LEFT), ("neg", LEFT)),
        (("div", LEFT, ITEM), LEFT),
        (("sqrt", LEFT), LEFT),
        (
            ("where", ("lt", ITEM, const(30)), ("mul", LEFT, const(2)), ("neg", BINS)),
            ("where", ("lt", ITEM, const(30)), LEFT, ("neg", LEFT)),
        ),
    ],
)
def test_what_does_not_change_the_order_goes(tree, expected):
    assert ranking(tree) == expected
