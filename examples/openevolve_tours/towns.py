"""What the evaluators share: towns, and the length of a tour through them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

Town = tuple[float, float]

N_TOWNS = 40


def towns(seed: int, n: int = N_TOWNS) -> list[Town]:
    """Return towns in the unit square."""
    numbers = random.Random(seed)
    return [(numbers.random(), numbers.random()) for _ in range(n)]


def length(places: Sequence[Town], order: Sequence[int]) -> float:
    """Return the length of a closed tour.

    Raises:
        ValueError: The order does not visit each town once.
    """
    if sorted(order) != list(range(len(places))):
        raise ValueError("the tour does not visit each town once")
    return sum(math.dist(places[a], places[b]) for a, b in zip(order, [*order[1:], order[0]], strict=True))


def score(places: Sequence[Town], order: Sequence[int]) -> float:
    """Return how short a tour is: about 1 for a good one, 0.25 for a random one."""
    # The best tour through n random towns in the unit square is about 0.7124 * sqrt(n) long.
    return 0.7124 * math.sqrt(len(places)) / length(places, order)
