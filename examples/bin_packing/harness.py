"""The packing loop. It runs inside the sandbox beside the candidate, because it calls it once per item.

Sharing an interpreter with the candidate means that what this returns is only a claim; the host
verifies it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def pack(items: list[int], capacity: int) -> list[int]:
    """Pack ``items`` in order with the candidate's ``priority`` and return the bin number of each."""
    from program import priority  # type: ignore[import-not-found]  # noqa: PLC0415 - as late as it can be

    return pack_online(items, capacity, priority)


def pack_online(items: list[int], capacity: int, priority: Callable[[float, Any], Any]) -> list[int]:
    """Put each item into the bin of highest priority among those with room, one empty bin included.

    ``priority(item, bins)`` gets the item's size and an array with the room left in each bin that
    can take it, opened bins first in order of opening and the empty one last; it returns one
    number per bin. The first of equals wins.
    """
    room = np.full(len(items), float(capacity))
    opened = 0
    packing: list[int] = []
    with np.errstate(all="ignore"):
        for item in items:
            fitting = (room[: opened + 1] >= item).nonzero()[0]
            wanted = np.asarray(priority(float(item), room[fitting]), dtype=float)
            if wanted.shape != fitting.shape:
                raise ValueError(f"priority returned shape {wanted.shape} for {fitting.size} bins")
            number = int(fitting[wanted.argmax()])
            packing.append(number)
            room[number] -= item
            if number == opened:
                opened += 1
    return packing
