"""Algebra on expression trees: shorter programs that rank the bins the same way.

Applied to every new program before it is run. It removes dead branches, so that less fuel is
burnt; it makes programs that say the same thing equal, so that none is run twice; and what evolves
stays readable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

from .expressions import BINS, FALSE, ITEM, LEFT, TRUE, Tree, const, is_condition, parts, size, uses_bins

LARGEST_CAPACITY = 150
"""Simplification may use that no bin is larger than this."""

Range: TypeAlias = tuple[float, float]
Ranges: TypeAlias = Mapping[Tree, Range]

_ANYTHING: Range = (-math.inf, math.inf)
_LEAVES: Ranges = {
    ITEM: (1.0, LARGEST_CAPACITY),
    BINS: (1.0, LARGEST_CAPACITY),
    LEFT: (0.0, LARGEST_CAPACITY - 1.0),
}
_COMMUTES = frozenset({"add", "mul", "min", "max", "and", "or"})
_LARGEST_CONSTANT = 10**6
_ROUNDS = 12


def simplify(tree: Tree) -> Tree:
    """Return a tree with the same value (up to floating-point rounding) and at most as many nodes."""
    for _ in range(_ROUNDS):
        shorter = _pass(tree, _LEAVES)
        if shorter == tree:
            break
        tree = shorter
    return tree


def ranking(tree: Tree) -> Tree:
    """Return a simplified tree that ranks the bins of each single item as the given one does.

    Only the order of the priorities matters, so what adds the same amount to all of them, or
    stretches all of them, goes.
    """
    for _ in range(_ROUNDS):
        shorter = _order(simplify(tree))
        if shorter == tree:
            break
        tree = shorter
    return tree


def _order(tree: Tree) -> Tree:
    kind = tree[0]
    if kind in ("add", "sub", "mul"):
        one, other = tree[1], tree[2]
        if uses_bins(one) and not uses_bins(other):
            if kind != "mul":
                return _order(one)
            low, high = bounds(other)
            if low > 0:
                return _order(one)
            if high < 0:
                return _order(("neg", one))
        if uses_bins(other) and not uses_bins(one):
            if kind == "add":
                return _order(other)
            if kind == "sub":
                return _order(("neg", other))
            low, high = bounds(one)
            if low > 0:
                return _order(other)
            if high < 0:
                return _order(("neg", other))
    if kind == "div" and not uses_bins(tree[2]):
        return _order(tree[1])
    if kind in ("sqrt", "square") and bounds(tree[1])[0] >= 0:
        return _order(tree[1])
    if kind == "where" and not uses_bins(tree[1]):
        return ("where", tree[1], _order(tree[2]), _order(tree[3]))
    if kind == "neg" and tree[1][0] in ("add", "sub", "mul", "div", "sqrt", "square", "where"):
        inner = _order(tree[1])
        return ("neg", inner) if inner != tree[1] else tree
    return LEFT if tree == BINS else ("neg", LEFT) if tree == ("neg", BINS) else tree


def bounds(tree: Tree, ranges: Ranges = _LEAVES) -> Range:
    """Return a range that holds the value for every item and bin.

    Args:
        tree: An expression that gives numbers.
        ranges: What is known already, by expression; at least the leaves.
    """
    if tree in ranges:
        return ranges[tree]
    kind = tree[0]
    if kind == "const":
        return (tree[1], tree[1])
    inner = [bounds(part, ranges) for part in parts(tree) if not is_condition(part)]
    (low, high), (low2, high2) = inner[0], inner[-1]
    if kind == "neg":
        return (-high, -low)
    if kind == "abs":
        return _magnitude(low, high)
    if kind == "square":
        small, large = _magnitude(low, high)
        return _hull(small * small, large * large)
    if kind == "sqrt":
        small, large = _magnitude(low, high)
        return (math.sqrt(small), math.sqrt(large))
    if kind == "add":
        return _hull(low + low2, high + high2)
    if kind == "sub":
        return _hull(low - high2, high - low2)
    if kind == "mul":
        return _hull(low * low2, low * high2, high * low2, high * high2)
    if kind == "div":
        small, large = _magnitude(low2, high2)
        return _hull(*(end / (1 + divisor) for end in (low, high) for divisor in (small, large)))
    if kind == "min":
        return (min(low, low2), min(high, high2))
    if kind == "max":
        return (max(low, low2), max(high, high2))
    return (min(low, low2), max(high, high2))


def _magnitude(low: float, high: float) -> Range:
    if low >= 0:
        return (low, high)
    return (-high, -low) if high <= 0 else (0.0, max(-low, high))


def _hull(*ends: float) -> Range:
    return _ANYTHING if any(math.isnan(end) for end in ends) else (min(ends), max(ends))


def _assume(ranges: Ranges, condition: Tree, *, holds: bool) -> Ranges:
    """Return what is known where the condition holds, or where it does not.

    The leaves are whole numbers, so below 3 means at most 2.
    """
    kind = condition[0]
    if (kind, holds) in (("and", True), ("or", False)):
        for part in parts(condition):
            ranges = _assume(ranges, part, holds=holds)
        return ranges
    if kind != "lt":
        return ranges
    one, other = parts(condition)
    if other[0] == "const":
        step = 1 if one in _LEAVES else 0
        return _narrow(ranges, one, *((-math.inf, other[1] - step) if holds else (other[1], math.inf)))
    if one[0] == "const":
        step = 1 if other in _LEAVES else 0
        return _narrow(ranges, other, *((one[1] + step, math.inf) if holds else (-math.inf, one[1])))
    return ranges


def _narrow(ranges: Ranges, tree: Tree, lowest: float, highest: float) -> Ranges:
    low, high = bounds(tree, ranges)
    low, high = max(low, lowest), min(high, highest)
    return {**ranges, tree: (low, high)} if low <= high else ranges


def _pass(tree: Tree, ranges: Ranges) -> Tree:
    """Simplify the parts, each under what the conditions above it say, then the node."""
    kind = tree[0]
    if not parts(tree):
        return _pinned(tree, ranges)
    if kind == "where":
        condition = _pass(tree[1], ranges)
        yes = _pass(tree[2], _assume(ranges, condition, holds=True))
        no = _pass(tree[3], _assume(ranges, condition, holds=False))
        return _where(condition, yes, no)
    if kind in ("and", "or"):
        one = _pass(tree[1], ranges)
        other = _pass(tree[2], _assume(ranges, one, holds=kind == "and"))
        return _connect(kind, *sorted((one, other), key=_sort_key))
    new = [_pass(part, ranges) for part in parts(tree)]
    if kind in _COMMUTES:
        new.sort(key=_sort_key)
    if kind == "lt":
        return _less(new[0], new[1], ranges)
    return _pinned(_number(kind, new, ranges), ranges)


def _pinned(tree: Tree, ranges: Ranges) -> Tree:
    """Return a constant where only one modest whole number is possible, else the tree."""
    if is_condition(tree) or tree[0] == "const":
        return tree
    low, high = bounds(tree, ranges)
    return const(int(low)) if low == high and abs(low) <= _LARGEST_CONSTANT and low == int(low) else tree


def _sort_key(tree: Tree) -> tuple[bool, int, str]:
    """Order the operands where order does not matter: constants last, short before long."""
    return (tree[0] == "const", size(tree), repr(tree))


def _where(condition: Tree, yes: Tree, no: Tree) -> Tree:
    if condition == TRUE or yes == no:
        return yes
    if condition == FALSE:
        return no
    if yes[0] == "where" and yes[3] == no:
        return ("where", _connect("and", *sorted((condition, yes[1]), key=_sort_key)), yes[2], no)
    if no[0] == "where" and no[2] == yes:
        return ("where", _connect("or", *sorted((condition, no[1]), key=_sort_key)), yes, no[3])
    return ("where", condition, yes, no)


def _connect(kind: str, one: Tree, other: Tree) -> Tree:
    if one == other:
        return one
    decisive, neutral = (FALSE, TRUE) if kind == "and" else (TRUE, FALSE)
    if decisive in (one, other):
        return decisive
    if one == neutral:
        return other
    return one if other == neutral else (kind, one, other)


def _less(one: Tree, other: Tree, ranges: Ranges) -> Tree:
    (low, high), (low2, high2) = bounds(one, ranges), bounds(other, ranges)
    if high < low2:
        return TRUE
    if low >= high2 or one == other:
        return FALSE
    if other[0] == "const":
        moved = _against_constant(one, other[1])
        if moved is not None:
            inner, limit, flipped = moved
            return ("lt", const(limit), inner) if flipped else ("lt", inner, const(limit))
    if one[0] == "const":
        moved = _against_constant(other, one[1])
        if moved is not None:
            inner, limit, flipped = moved
            return ("lt", inner, const(limit)) if flipped else ("lt", const(limit), inner)
    return ("lt", one, other)


def _against_constant(tree: Tree, limit: float) -> tuple[Tree, float, bool] | None:
    """Move a constant across a comparison: ``x + 3`` against 10 is ``x`` against 7.

    Returns:
        What remains, the new constant and whether the sides swap; None if there is nothing to move.
    """
    if tree[0] == "add" and tree[2][0] == "const":
        return (tree[1], limit - tree[2][1], False)
    if tree[0] == "sub" and tree[2][0] == "const":
        return (tree[1], limit + tree[2][1], False)
    if tree[0] == "sub" and tree[1][0] == "const":
        return (tree[2], tree[1][1] - limit, True)
    if tree[0] == "neg":
        return (tree[1], -limit, True)
    return None


def _number(kind: str, operands: list[Tree], ranges: Ranges) -> Tree:
    one, other = operands[0], operands[-1]
    if len(operands) == 1:
        return _unary(kind, one, bounds(one, ranges))
    if kind in ("min", "max"):
        return _extreme(kind, one, other, ranges)
    rule = {"add": _add, "sub": _subtract, "mul": _multiply, "div": _divide}[kind]
    return rule(one, other)


def _unary(kind: str, x: Tree, within: Range) -> Tree:
    if kind == "neg":
        if x[0] == "neg":
            return x[1]  # type: ignore[no-any-return]
        return ("sub", x[2], x[1]) if x[0] == "sub" else ("neg", x)
    if x[0] in ("neg", "abs"):
        return (kind, x[1])
    if kind == "abs":
        if within[0] >= 0:
            return x
        return _unary("neg", x, within) if within[1] <= 0 else ("abs", x)
    if kind == "square" and x[0] == "sqrt":
        return ("abs", x[1])
    if kind == "sqrt" and x[0] == "square":
        return ("abs", x[1])
    return (kind, x)


def _add(one: Tree, other: Tree) -> Tree:
    if other == const(0):
        return one
    if one == other:
        return ("mul", one, const(2))
    if {one, other} == {LEFT, ITEM}:
        return BINS
    if other[0] == "neg":
        return ("sub", one, other[1])
    if one[0] == "neg":
        return ("sub", other, one[1])
    if other[0] == "const" and other[1] < 0:
        return ("sub", one, const(-other[1]))
    if one[0] == "sub" and one[2] == other:
        return one[1]  # type: ignore[no-any-return]
    if other[0] == "sub" and other[2] == one:
        return other[1]  # type: ignore[no-any-return]
    if other[0] == "const" and one[0] in ("add", "sub") and one[2][0] == "const":
        return (one[0], one[1], const(one[2][1] + (other[1] if one[0] == "add" else -other[1])))
    return ("add", one, other)


def _subtract(one: Tree, other: Tree) -> Tree:
    if other == const(0):
        return one
    if one == other:
        return const(0)
    if one == const(0):
        return ("neg", other)
    known = {(BINS, ITEM): LEFT, (BINS, LEFT): ITEM, (ITEM, BINS): ("neg", LEFT), (LEFT, BINS): ("neg", ITEM)}
    if (one, other) in known:
        return known[one, other]
    if other[0] == "neg":
        return ("add", one, other[1])
    if other[0] == "const" and other[1] < 0:
        return ("add", one, const(-other[1]))
    if other[0] == "const" and one[0] in ("add", "sub") and one[2][0] == "const":
        return (one[0], one[1], const(one[2][1] + (-other[1] if one[0] == "add" else other[1])))
    if one[0] == "add" and other in one[1:]:
        return one[2] if one[1] == other else one[1]  # type: ignore[no-any-return]
    return ("sub", one, other)


def _multiply(one: Tree, other: Tree) -> Tree:
    if other in (const(0), const(1), const(-1)):
        return (const(0), one, ("neg", one))[(0, 1, -1).index(other[1])]
    if one == other:
        return ("square", one)
    if one[0] == "neg":
        return ("mul", one[1], const(-other[1])) if other[0] == "const" else ("neg", ("mul", one[1], other))
    if other[0] == "neg":
        return ("neg", ("mul", one, other[1]))
    if other[0] == "const" and one[0] == "mul" and one[2][0] == "const":
        product = one[2][1] * other[1]
        return ("mul", one[1], const(product)) if abs(product) <= _LARGEST_CONSTANT else ("mul", one, other)
    return ("mul", one, other)


def _divide(one: Tree, other: Tree) -> Tree:
    if const(0) in (one, other):
        return one
    if other[0] in ("neg", "abs"):
        return ("div", one, other[1])
    return ("neg", ("div", one[1], other)) if one[0] == "neg" else ("div", one, other)


def _extreme(kind: str, one: Tree, other: Tree, ranges: Ranges) -> Tree:
    (low, high), (low2, high2) = bounds(one, ranges), bounds(other, ranges)
    smaller = one if one == other or high <= low2 else other if high2 <= low else None
    if smaller is None:
        return (kind, one, other)
    larger = other if smaller == one else one
    return smaller if kind == "min" else larger
