"""A bound on hash collisions, checked before keys of untrusted bytes are hashed.

CPython hashes an int to itself and follows a fixed probe sequence from there, so a sender can choose keys
each of which takes thousands of probes. Text and bytes are hashed with a secret of the process and need no
check. Probes are counted here as CPython will make them, in tables of each size that the container goes
through, and too many are refused: building the container, copying it or looking up a key then takes about as
much work as with random keys.

Source: CPython 3.11 to 3.13, Objects/dictobject.c (`find_empty_slot`) and Objects/setobject.c
(`set_add_entry`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence

from evocell.errors import ProtocolError

__all__ = ["check_keys", "is_salted"]

FREE_KEYS = 512
"""Containers with at most this many keys are not checked; about 0.1 million probes at worst."""
FIRST_TABLE = 1024
PLACES_PER_KEY = {"dict": 64, "set": 256}
"""Most probes per key on average, beyond the first; a set looks at ten neighbours at a time. Source:
100,000 keys as programs choose them (counters, multiples of 2**k, addresses, grid cells, random numbers,
fractions) need at most 29 and 96; chosen ones, thousands."""

_LINEAR = 9
"""Linear probes of a set beside the first slot."""


def is_salted(keys: Iterable[Hashable]) -> bool:
    """Return whether a sender cannot know the hashes of keys."""
    return set(map(type, keys)) <= {str, bytes}


def check_keys(keys: Collection[Hashable], *, for_set: bool) -> None:
    """Refuse keys whose hashes collide on purpose.

    Args:
        keys: Keys of a map or elements of a set, in the order of insertion.
        for_set: Which of the two.

    Raises:
        ProtocolError: They collide too often.
    """
    if len(keys) <= FREE_KEYS or is_salted(keys):
        return
    hashes = [hash(key) for key in keys]
    # A set grows fourfold at first, so its table may have up to eight times its length.
    filled, largest = (_in_set, 8 * len(hashes)) if for_set else (_in_dict, 3 * len(hashes))
    size = FIRST_TABLE
    while size <= largest:
        most = 3 * size // 5 if for_set else 2 * size // 3
        if not filled(hashes[:most] if most < len(hashes) else hashes, size):
            what = "the elements of a set" if for_set else "the keys of a map"
            raise ProtocolError(f"a malformed message: {what} collide as only chosen ones do")
        size *= 2


def _in_dict(hashes: Sequence[int], size: int) -> bool:
    """Return whether a dict with `size` slots takes the keys without too many probes."""
    mask = size - 1
    taken = bytearray(size)
    budget = PLACES_PER_KEY["dict"] * len(hashes)
    for number in hashes:
        place = number & mask
        if taken[place]:
            perturb = number & 0xFFFF_FFFF_FFFF_FFFF
            while taken[place]:
                perturb >>= 5
                place = (place * 5 + perturb + 1) & mask
                budget -= 1
                if budget < 0:
                    return False
        taken[place] = 1
    return True


def _in_set(hashes: Sequence[int], size: int) -> bool:
    """Do the same as `_in_dict` for a set."""
    mask = size - 1
    taken = bytearray(size)
    budget = PLACES_PER_KEY["set"] * len(hashes)
    for number in hashes:
        place = number & mask
        if taken[place]:
            perturb = number & 0xFFFF_FFFF_FFFF_FFFF
            while True:
                end = place + _LINEAR + 1 if place + _LINEAR <= mask else place + 1
                free = taken.find(0, place, end)
                budget -= (end if free < 0 else free) - place
                if budget < 0:
                    return False
                if free >= 0:
                    place = free
                    break
                perturb >>= 5
                place = (place * 5 + 1 + perturb) & mask
        taken[place] = 1
    return True
