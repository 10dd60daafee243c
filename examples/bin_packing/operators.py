"""Genetic operators on expression trees: random programs, mutation, crossover and tournament selection.

Every function takes the random generator it draws from, so one seed decides a whole run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from .expressions import BINS, ITEM, LEFT, Tree, const, is_condition, replace, size, uses_bins, walk
from .simplify import LARGEST_CAPACITY, ranking

MAX_NODES = 40
"""Larger offspring are not kept: every node costs fuel for every item, and nobody reads longer programs."""

_ATTEMPTS = 40
_LEAVES = (ITEM, BINS, LEFT, LEFT)
_UNARY = ("neg", "abs", "sqrt", "square")
_BINARY = ("add", "sub", "mul", "div", "min", "max")

T = TypeVar("T")


def chance(rng: random.Random, share: float) -> bool:
    """Return True in this share of all calls."""
    return rng.random() < share


def random_constant(rng: random.Random) -> Tree:
    """Return a whole number; small ones, such as tight gaps, and shares of a bin are equally likely."""
    return const(rng.randint(1, 9) if chance(rng, 0.5) else rng.randint(1, LARGEST_CAPACITY // 2))


def random_number(rng: random.Random, depth: int) -> Tree:
    """Return a random tree that gives numbers, at most ``depth`` operations deep."""
    if depth <= 0 or chance(rng, 0.15):
        return random_constant(rng) if chance(rng, 0.3) else rng.choice(_LEAVES)
    if chance(rng, 0.35):
        return (
            "where",
            random_condition(rng, depth - 1),
            random_number(rng, depth - 1),
            random_number(rng, depth - 1),
        )
    if chance(rng, 0.25):
        return (rng.choice(_UNARY), random_number(rng, depth - 1))
    return (rng.choice(_BINARY), random_number(rng, depth - 1), random_number(rng, depth - 1))


def random_condition(rng: random.Random, depth: int) -> Tree:
    """Return a random tree that gives truth values: mostly one quantity against a constant."""
    if depth > 0 and chance(rng, 0.2):
        connective = rng.choice(("and", "or"))
        return (connective, random_condition(rng, depth - 1), random_condition(rng, depth - 1))
    if chance(rng, 0.75):
        sides = [rng.choice(_LEAVES), random_constant(rng)]
    else:
        sides = [random_number(rng, depth - 1), random_number(rng, depth - 1)]
    rng.shuffle(sides)
    return ("lt", *sides)


def random_program(rng: random.Random) -> Tree:
    """Return a random program of up to four operations in depth that looks at the bins."""
    return _first_valid(lambda: random_number(rng, rng.randint(1, 4)), otherwise=("neg", LEFT))


def is_program(tree: Tree) -> bool:
    """Tell whether the tree is a usable program: numbers that depend on the bins, and not too many nodes."""
    return not is_condition(tree) and uses_bins(tree) and size(tree) <= MAX_NODES


def _first_valid(make: Callable[[], Tree], *, otherwise: Tree) -> Tree:
    for _ in range(_ATTEMPTS):
        tree = ranking(make())
        if is_program(tree):
            return tree
    return otherwise


def crossover(rng: random.Random, mother: Tree, father: Tree) -> Tree:
    """Exchange a random part of the mother for a part of the same kind taken from the father."""

    def exchange() -> Tree:
        path, old = rng.choice(list(walk(mother)))
        donors = [part for _, part in walk(father) if is_condition(part) == is_condition(old)]
        return replace(mother, path, rng.choice(donors)) if donors else mother

    return _first_valid(exchange, otherwise=mother)


def mutate_part(rng: random.Random, parent: Tree) -> Tree:
    """Exchange a random part for a new random one."""

    def exchange() -> Tree:
        path, old = rng.choice(list(walk(parent)))
        grow = random_condition if is_condition(old) else random_number
        return replace(parent, path, grow(rng, rng.randint(0, 2)))

    return _first_valid(exchange, otherwise=parent)


def mutate_constant(rng: random.Random, parent: Tree) -> Tree:
    """Move one constant, a little or by up to half; without constants, mutate a part."""
    places = [(path, leaf) for path, leaf in walk(parent) if leaf[0] == "const"]
    if not places:
        return mutate_part(rng, parent)

    def move() -> Tree:
        path, leaf = rng.choice(places)
        reach = 1 if chance(rng, 0.4) else max(2, int(abs(leaf[1]) // 2))
        return replace(parent, path, const(leaf[1] + rng.choice((-1, 1)) * rng.randint(1, reach)))

    return _first_valid(move, otherwise=parent)


def mutate_wrap(rng: random.Random, parent: Tree) -> Tree:
    """Put a part under a new operation: one branch of a case distinction, or arithmetic with a new part."""

    def wrap() -> Tree:
        path, old = rng.choice(list(walk(parent)))
        if is_condition(old):
            return replace(parent, path, (rng.choice(("and", "or")), old, random_condition(rng, 0)))
        new = random_number(rng, 1)
        if chance(rng, 0.5):
            pair = (old, new) if chance(rng, 0.5) else (new, old)
            return replace(parent, path, ("where", random_condition(rng, 1), *pair))
        return replace(parent, path, (rng.choice(_BINARY), old, new))

    return _first_valid(wrap, otherwise=parent)


def mutate_shrink(rng: random.Random, parent: Tree) -> Tree:
    """Put one of its own parts in the place of a part, which makes the program shorter."""

    def shrink() -> Tree:
        path, old = rng.choice(list(walk(parent)))
        inner = [part for _, part in walk(old) if part != old and is_condition(part) == is_condition(old)]
        return replace(parent, path, rng.choice(inner)) if inner else parent

    return _first_valid(shrink, otherwise=parent)


MUTATIONS: dict[str, Callable[[random.Random, Tree], Tree]] = {
    "part": mutate_part,
    "constant": mutate_constant,
    "wrap": mutate_wrap,
    "shrink": mutate_shrink,
}
"""The mutation operators by the name that lineage records show."""

_MUTATION_WEIGHTS = (3, 4, 3, 1)
_CROSSOVER_SHARE = 0.3


def offspring(
    rng: random.Random, pick: Callable[[], T], tree_of: Callable[[T], Tree]
) -> tuple[Tree, str, tuple[T, ...]]:
    """Make one new program.

    Args:
        rng: Source of all choices.
        pick: Returns a parent, for example by tournament.
        tree_of: Returns the tree of a parent.

    Returns:
        The tree, the name of the operator that made it, and the parents, the one it resembles most
        first.
    """
    mother = pick()
    if chance(rng, _CROSSOVER_SHARE):
        father = pick()
        return crossover(rng, tree_of(mother), tree_of(father)), "crossover", (mother, father)
    name = rng.choices(list(MUTATIONS), weights=_MUTATION_WEIGHTS)[0]
    return MUTATIONS[name](rng, tree_of(mother)), name, (mother,)


def tournament(rng: random.Random, ranked: Sequence[T], entrants: int) -> T:
    """Return the best of ``entrants`` drawn at random from a sequence ordered best first."""
    return ranked[min(rng.randrange(len(ranked)) for _ in range(entrants))]
