"""Kernels read and write nothing behind their arrays: these lie at the very end of memory, behind which a call would trap."""

import numpy as np
import pytest
from tests.unit.runtime.test_kernels import (
    ARGUMENTS,
    FIRST,
    PAGES,
    SECOND,
    arguments,
    dtype_of,
    numbers,
    pair,
)

from evocell_runtime.patches import argsorting, arithmetic, extremes, products, selecting, sorting

pytestmark = pytest.mark.slow

END = PAGES << 16
SIZES = (1, 2, 7, 15, 16, 17, 31, 33, 63, 65, 127, 128, 129, 200, 257, 1000)


def put_last(rig, values):
    """Put values where memory ends, and return their address."""
    place = END - values.nbytes
    rig.memory.write(rig.store, values.tobytes(), place)
    return place


def arrays(dtype):
    rng = np.random.default_rng(3)
    for size in SIZES:
        for _, values in numbers(dtype, size, rng):
            yield size, values


@pytest.mark.parametrize("element", sorting.ELEMENTS, ids=lambda one: one.name)
def test_sorting(element):
    _, rig = pair(sorting.donors(), "malloc", "free")
    for size, values in arrays(dtype_of(element)):
        rig.call(element.function, put_last(rig, values), size)


@pytest.mark.parametrize("element", argsorting.ELEMENTS, ids=lambda one: one.function)
def test_sorting_of_places(element):
    _, rig = pair(argsorting.donors(), "malloc", "free")
    for size, values in arrays(dtype_of(element)):
        rig.put(SECOND, np.arange(size, dtype=np.int32))
        rig.call(element.function, put_last(rig, values), SECOND, size)
        rig.put(FIRST, values)
        rig.call(element.function, FIRST, put_last(rig, np.arange(size, dtype=np.int32)), size)


@pytest.mark.parametrize("element", selecting.ELEMENTS, ids=lambda one: one.name)
def test_selecting(element):
    _, rig = pair(selecting.donors(), "malloc", "free")
    for size, values in arrays(np.dtype({"": "f", "_s": "i", "_u": "u"}[element.sign] + str(element.width))):
        for place in {0, size // 2, size - 1}:
            rig.call(element.function, put_last(rig, values), 0, size, place, 0, 0)


def of_two(rig, name, width, size, values):
    """Call a loop of numpy with each of its operands and its result at the end of memory, and as a reduction."""
    last = put_last(rig, values)
    rig.put(FIRST, values)
    for places in ((last, FIRST, SECOND), (FIRST, last, SECOND), (FIRST, SECOND, last), (last, last, last)):
        for steps in ((width, width), (0, width), (width, 0)):
            one, two = (
                place if step else min(place, END - width) for place, step in zip(places, steps, strict=False)
            )
            rig.put(ARGUMENTS, arguments(one, two, places[2], size, *steps, width))
            rig.call(name, ARGUMENTS, ARGUMENTS + 12, ARGUMENTS + 16, 0)
    rig.put(ARGUMENTS, arguments(SECOND, last, SECOND, size, 0, width, 0))
    rig.call(name, ARGUMENTS, ARGUMENTS + 12, ARGUMENTS + 16, 0)


@pytest.mark.parametrize("element", extremes.ELEMENTS, ids=lambda one: one.name)
def test_largest_and_smallest(element):
    _, rig = pair(extremes.donors())
    words = ("maximum", "minimum") + (("fmax", "fmin") if element.kind == "f" else ())
    for size, values in arrays(dtype_of(element)):
        for word in words:
            of_two(rig, f"{element.name}_{word}", element.width, size, values)
        for word in ("argmax", "argmin") if element.finds else ():
            rig.call(f"{element.name}_{word}", put_last(rig, values), size, ARGUMENTS, 0)


@pytest.mark.parametrize(
    "element", sorted({one for one, _, _ in arithmetic.LOOPS}, key=str), ids=lambda one: one.name
)
def test_arithmetic(element):
    _, rig = pair(arithmetic.donors())
    words = [word for one, word, _ in arithmetic.LOOPS if one == element]
    for size, values in arrays(dtype_of(element)):
        for word in words:
            of_two(rig, f"{element.name}_{word}", element.width, size, values)


def test_products():
    _, rig = pair(products.donors())
    rng = np.random.default_rng(5)
    for m, n, k in ((1, 1, 1), (3, 5, 7), (4, 4, 4), (8, 4, 16), (9, 3, 2), (17, 8, 33)):
        for last in range(3):
            operands = [rng.standard_normal(size) for size in (m * k, k * n, m * n)]
            places = [1 << 20 << at for at in range(1, 4)]
            for at, one in enumerate(operands):
                rig.put(places[at], one)
            places[last] = put_last(rig, operands[last])
            assert rig.call("dgemm_kernel", m, n, k, 1.0, *places, m) == 0
