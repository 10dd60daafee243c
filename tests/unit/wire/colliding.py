"""Keys that were chosen to collide in CPython's tables, as a hostile guest would choose them."""

from itertools import count

_P1, _P2, _P5 = 11400714785074694791, 14029467366897019727, 2870177450012600261
_WORD = (1 << 64) - 1


def ints_for_a_dict(bits: int) -> list[int]:
    """Numbers whose way through a table of ``2**bits`` places leads to a long chain of taken ones.

    The first third fill a chain, each in its own place; the rest enter it near its beginning and follow it
    to its end.
    """
    places = 1 << bits
    mask = places - 1
    chain = [0]
    while len(chain) < places // 3 + 2:
        chain.append((5 * chain[-1] + 1) & mask)
    position = {place: index for index, place in enumerate(chain)}
    followers: list[int] = []
    for number in count(places):
        place, perturb = number & mask, number
        while place in position and perturb:
            perturb >>= 5
            place = (place * 5 + perturb + 1) & mask
        if not perturb and position.get(place, places) < len(chain) // 3:
            followers.append(number)
            if len(followers) == len(chain) * 2 // 5:
                return chain + followers
    raise AssertionError


def tuples(count: int) -> list[tuple[int, int]]:
    """Pairs of the very same hash: the second is worked out from the first, as the hash has no secret."""
    found: list[tuple[int, int]] = []
    inverse = pow(_P2, -1, 1 << 64)
    first = 0
    while len(found) < count:
        first += 1
        state = (_P5 + first * _P2) & _WORD
        state = (((state << 31) | (state >> 33)) & _WORD) * _P1 & _WORD
        second = (12345 - state) * inverse & _WORD
        if second < 1 << 60:
            found.append((first, second))
    return found
