"""Online bin packing: instances, lower bound, verification of a claimed packing, classic baselines.

Items arrive one at a time and each must be put into a bin before the next one is seen. The aim is
to open as few bins as possible. This module is the referee's half: it runs on the host, in plain
Python, and no candidate ever sees it.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Sequence

from attrs import frozen

WEIBULL_CAPACITY = 100
WEIBULL_SHAPE = 3.0
WEIBULL_SCALE = 45.0
OR_CAPACITY = 150
OR_SMALLEST = 20
OR_LARGEST = 100


class ForgedPacking(ValueError):
    """A claimed packing breaks the rules: the claim is a lie, or the program that made it is broken."""


@frozen(kw_only=True)
class Instance:
    """One sequence of items to pack.

    Attributes:
        name: Label shown in tables, for example ``weibull-300-0``.
        capacity: Size of every bin, in units of item size.
        items: Sizes in order of arrival, each from 1 to ``capacity``.
        bound: Bins that any packing of these items needs at least.
    """

    name: str
    capacity: int
    items: tuple[int, ...]
    bound: int


def make_instance(name: str, capacity: int, items: Sequence[int]) -> Instance:
    """Build an instance and compute its lower bound once.

    Raises:
        ValueError: An item is smaller than 1 or larger than a bin.
    """
    for position, item in enumerate(items):
        if not 1 <= item <= capacity:
            raise ValueError(
                f"item {position} of {name} has size {item}; sizes go from 1 to the capacity, {capacity}"
            )
    return Instance(name=name, capacity=capacity, items=tuple(items), bound=lower_bound(items, capacity))


def weibull_instance(n_items: int, seed: int, *, label: str = "weibull") -> Instance:
    """Draw Weibull sizes (shape 3, scale 45), rounded and clipped to 1-100; bins hold 100.

    Source: Romera-Paredes et al., "Mathematical discoveries from program search with large
    language models", Nature 2023.
    """
    rng = random.Random(f"{label}/{n_items}/{seed}")
    sizes = [
        min(WEIBULL_CAPACITY, max(1, round(rng.weibullvariate(WEIBULL_SCALE, WEIBULL_SHAPE))))
        for _ in range(n_items)
    ]
    return make_instance(f"{label}-{n_items}-{seed}", WEIBULL_CAPACITY, sizes)


def or_instance(n_items: int, seed: int, *, label: str = "or") -> Instance:
    """Draw item sizes uniformly from 20-100; bins hold 150, as in the u-class of the OR-Library.

    Source: Falkenauer, "A hybrid grouping genetic algorithm for bin packing", Journal of
    Heuristics 1996.
    """
    rng = random.Random(f"{label}/{n_items}/{seed}")
    sizes = [rng.randint(OR_SMALLEST, OR_LARGEST) for _ in range(n_items)]
    return make_instance(f"{label}-{n_items}-{seed}", OR_CAPACITY, sizes)


def lower_bound(items: Sequence[int], capacity: int) -> int:
    """Return the bound L2 of Martello and Toth: bins no packing can do without.

    Items larger than half a bin never share one. For each threshold, what those bins cannot take
    of the items between the threshold and half a bin needs further bins. The threshold 0 gives at
    least the total size divided by the capacity.
    """
    ordered = sorted(items)
    prefix = [0]
    for item in ordered:
        prefix.append(prefix[-1] + item)
    half = bisect_left(ordered, capacity // 2 + 1)
    best = 0
    for threshold in sorted({0, *(item for item in ordered if 2 * item <= capacity)}):
        middle = bisect_left(ordered, capacity - threshold + 1, lo=half)
        small = bisect_left(ordered, threshold)
        space = (middle - half) * capacity - (prefix[middle] - prefix[half])
        overflow = max(0, prefix[half] - prefix[small] - space)
        best = max(best, len(ordered) - half + -(-overflow // capacity))
    return best


def verify(instance: Instance, claim: object) -> int:
    """Check a claimed packing and return how many bins it uses.

    Args:
        instance: What was to be packed.
        claim: For each item, in order, the number of the bin it went into; whatever the guest
            handed over, so nothing about
            it is taken for granted.

    Returns:
        The number of bins used.

    Raises:
        ForgedPacking: The claim is not a list of bin numbers, leaves items out, adds some, or
            overfills a bin.
    """
    if type(claim) is not list:
        raise ForgedPacking(f"the packing is a {type(claim).__name__}, not a list of bin numbers")
    if len(claim) != len(instance.items):
        raise ForgedPacking(f"the packing places {len(claim)} items, the instance has {len(instance.items)}")
    load: dict[int, int] = {}
    for position, (number, item) in enumerate(zip(claim, instance.items, strict=True)):
        if type(number) is not int:
            raise ForgedPacking(f"item {position} was put into a {type(number).__name__}, not a bin number")
        if not 0 <= number < len(claim):
            raise ForgedPacking(f"item {position} was put into a bin not numbered 0 to {len(claim) - 1}")
        load[number] = load.get(number, 0) + item
        if load[number] > instance.capacity:
            raise ForgedPacking(
                f"item {position} overfills bin {number}: {load[number]} in {instance.capacity}"
            )
    return len(load)


def excess(instance: Instance, bins_used: int) -> float:
    """Return the share of bins used beyond the lower bound; 0.04 means 4 % more."""
    return bins_used / instance.bound - 1.0


def first_fit(instance: Instance) -> list[int]:
    """Pack each item into the first bin with room.

    A tree over the bins holding the largest room in each half keeps this at O(n log n).
    """
    leaves = 1 << max(1, len(instance.items) - 1).bit_length()
    room = [instance.capacity] * (2 * leaves)
    packing = []
    for item in instance.items:
        node = 1
        while node < leaves:
            node = 2 * node if room[2 * node] >= item else 2 * node + 1
        packing.append(node - leaves)
        room[node] -= item
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return packing


def best_fit(instance: Instance) -> list[int]:
    """Pack each item into the fullest bin with room, the earliest of equals."""
    open_bins: list[tuple[int, int]] = []
    opened = 0
    packing = []
    for item in instance.items:
        place = bisect_left(open_bins, (item, -1))
        if place < len(open_bins):
            room, number = open_bins.pop(place)
        else:
            room, number = instance.capacity, opened
            opened += 1
        packing.append(number)
        insort(open_bins, (room - item, number))
    return packing
