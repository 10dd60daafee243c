"""Seeding of the random sources that are part of the image.

`random` and numpy's legacy generator were seeded before the freeze, so every fork would draw the
same numbers. `os.urandom`, and with it numpy's default generator, is the membrane's business.
"""

from __future__ import annotations

import random
import sys

_MODULES = sys.modules
# Bound now: a variant may replace the module's attributes.
_seed_random = random.seed


def reseed(seed: int) -> None:
    """Seed `random`, and numpy's legacy generator if it is imported.

    Args:
        seed: Any whole number; numpy, which takes 32 bits, gets the lower ones.
    """
    _seed_random(seed)
    reseed_numpy(seed)


def reseed_numpy(seed: int) -> None:
    """Seed numpy's legacy generator if it is imported."""
    numpy_random = _MODULES.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(seed & 0xFFFFFFFF)
