"""The program that ShinkaEvolve begins with: nine circles in the unit square, as large as they can be."""


# EVOLVE-BLOCK-START
def circles() -> list[tuple[float, float, float]]:
    """Return nine circles (x, y, radius) in the unit square that do not overlap."""
    return [((i + 1) / 5, (j + 1) / 5, 0.09) for i in range(3) for j in range(3)]


# EVOLVE-BLOCK-END
