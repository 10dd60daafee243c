import random

import numpy as np
import pytest


@pytest.fixture
def priority_of():
    """Returns the function that a rendered program defines."""

    def load(source):
        namespace = {}
        exec(compile(source, "program.py", "exec"), namespace)

        def priority(item, bins):
            with np.errstate(all="ignore"):
                return namespace["priority"](item, bins)

        return priority

    return load


@pytest.fixture
def situations():
    """Items with the room of the bins that can take them, whole numbers as in a real run."""
    rng = random.Random(5)
    drawn = []
    for _ in range(20):
        item = rng.randint(1, 150)
        drawn.append((float(item), np.array([float(rng.randint(item, 150)) for _ in range(15)])))
    return drawn
