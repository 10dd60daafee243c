"""Seeding of the random sources that are part of the image.

`random` and numpy's legacy generator were seeded before the freeze, so every fork would draw the
same numbers. `os.urandom`, and with it numpy's default generator, is handled by the membrane.
"""

from __future__ import annotations

import random
import sys
from importlib import import_module

DEFAULT_SEED = 0
"""The default seed, with which the image is prepared."""

_MODULES = sys.modules
# Bound now: a variant may replace the module's attributes.
_seed_random = random.seed

# The seed of the sources at the freeze, until a fork's first call.
_standing: int | None = None


def prepare(seed: int) -> None:
    """Seed all sources before the freeze, so that a fork's first call with this seed need not."""
    global _standing  # noqa: PLW0603
    _standing = None
    reseed(seed)
    _standing = seed


def reseed(seed: int) -> None:
    """Seed `random`, and numpy's legacy generator if it is imported.

    Args:
        seed: Any integer; numpy, which takes 32 bits, gets the lower ones.
    """
    global _standing
    standing, _standing = _standing, None
    if standing == seed:
        return
    _seed_random(seed)
    reseed_numpy(seed)


def reseed_numpy(seed: int) -> None:
    """Seed numpy's legacy generator if numpy is imported.

    numpy imports `numpy.random` only when a program first asks for it, and seeds it then from the
    system; so it is imported here, where the seed is known.
    """
    numpy_random = _MODULES.get("numpy.random")
    if numpy_random is None:
        if "numpy" not in _MODULES:
            return
        try:
            numpy_random = import_module("numpy.random")
        except ImportError:
            # A variant's own module of that name.
            return
    numpy_random.seed(seed & 0xFFFFFFFF)
