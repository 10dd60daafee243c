"""Functions of the interpreter beside what replaces them: both are taken out into small modules and given the same memory."""

import ctypes
from functools import cache

import attrs
import numpy as np
import pytest
import wasmtime
from tests.unit.runtime.extracting import extract

from evocell_runtime import artifacts
from evocell_runtime.patches import argsorting, arithmetic, extremes, products, selecting, sorting
from evocell_runtime.patches.edges import LAST_ZERO
from evocell_runtime.patches.kernels import KERNELS
from evocell_runtime.patches.layer import apply_patches, body_digest
from evocell_runtime.patches.module import open_module

STACK, ARGUMENTS, FIRST, SECOND, THIRD = 1 << 20, 5 << 18, 2 << 20, 6 << 20, 10 << 20
PAGES = 700
SIZES = (
    *range(41),
    47,
    48,
    49,
    63,
    64,
    65,
    100,
    127,
    128,
    129,
    130,
    131,
    150,
    170,
    200,
    255,
    256,
    1000,
    4097,
)
LARGE = 70_000


class Rig:
    """A module with some functions, and a memory to call them on."""

    def __init__(self, wasm):
        engine = wasmtime.Engine()
        self.store = wasmtime.Store(engine)
        instance = wasmtime.Instance(self.store, wasmtime.Module(engine, wasm), [])
        self.exports = instance.exports(self.store)
        self.exports["stack_pointer"].set_value(self.store, wasmtime.Val.i32(STACK))
        self.memory = self.exports["memory"]

    def _address(self):
        return ctypes.addressof(self.memory.data_ptr(self.store).contents)

    def put(self, place, values):
        raw = np.ascontiguousarray(values).tobytes()
        assert place + len(raw) <= 16 << 20
        ctypes.memmove(self._address() + place, raw, len(raw))

    def get(self, place, size):
        return ctypes.string_at(self._address() + place, size)

    def call(self, name, *values):
        return self.exports[name](self.store, *values)


@cache
def interpreter():
    return open_module(artifacts.read_checked(artifacts.locate().wasm))


@cache
def pair(donors, *besides):
    """Two rigs: the functions as they are, and as the donors make them."""
    names = [name for donor in donors for name, _ in donor.expected]
    small = extract(interpreter(), [*names, *besides], pages=PAGES)
    small = apply_patches(small, [one for one in LAST_ZERO if one.function in names])
    module = open_module(small)
    own = [
        attrs.evolve(
            donor,
            expected=tuple(
                (name, body_digest(module.body(module.number(name)))) for name, _ in donor.expected
            ),
        )
        for donor in donors
    ]
    return Rig(small), Rig(apply_patches(small, own))


def numbers(dtype, size, rng):
    """Arrays of a size, random and special."""
    bits = rng.integers(0, 256, size * dtype.itemsize, dtype=np.uint8).view(dtype)
    yield "bits", bits
    if dtype.kind == "f":
        plain = (rng.standard_normal(size) * 10).astype(dtype)
        yield "normal", plain
        yield "NaN", np.where(rng.random(size) < 0.2, np.array(np.nan, dtype), plain)
        yield "one NaN", np.where(np.arange(size) == size // 2, np.array(np.nan, dtype), plain)
        yield "all NaN", np.full(size, np.nan, dtype)
        infinite = np.where(rng.random(size) < 0.2, np.array(np.inf, dtype), plain)
        infinite[rng.random(size) < 0.2] = -np.inf
        infinite[rng.random(size) < 0.2] = -0.0
        yield "infinite, -0", infinite
        several = infinite.copy()
        several[rng.random(size) < 0.2] = -np.nan
        several[rng.random(size) < 0.2] = np.nan
        yield "NaNs of both signs", several
        for sign in (-1, 1):
            zeros = (sign * np.abs(plain)).astype(dtype)
            zeros[rng.random(size) < 0.3] = 0.0
            zeros[rng.random(size) < 0.3] = -0.0
            yield f"zeros of both signs, and numbers {sign}", zeros
        yield "denormal", (rng.standard_normal(size) * 0.1 * np.finfo(dtype).tiny).astype(dtype)
    else:
        ends = np.iinfo(dtype)
        yield (
            "ends",
            rng.choice(np.array([ends.min, ends.max, 0, 1, ends.min + 1, ends.max - 1], dtype), size),
        )
    yield "few", rng.integers(0, 5, size).astype(dtype)
    yield "some", rng.integers(0, max(1, min(100, size // 2)), size).astype(dtype)
    order = (np.arange(size) % 60_000).astype(dtype)
    yield "sorted", order
    yield "reversed", order[::-1].copy()
    yield "organ pipe", np.concatenate([order[: size // 2], order[: size - size // 2][::-1]])
    yield "constant", np.full(size, 3).astype(dtype)
    if size < LARGE:
        yield "against the median of three", killer(size).astype(dtype)


@cache
def killer(size):
    """A sequence for which numpy's quicksort divides as badly as it can, found by playing against it (McIlroy, 1999)."""
    gas, solid, candidate = size, 0, 0
    values = [gas] * size

    def less(x, y):
        nonlocal solid, candidate
        if values[x] == gas and values[y] == gas:
            values[x if x == candidate else y] = solid
            solid += 1
        if values[x] == gas:
            candidate = x
        elif values[y] == gas:
            candidate = y
        return values[x] < values[y]

    places, waiting = list(range(size)), [(0, size - 1)]
    while waiting:
        low, high = waiting.pop()
        while high - low >= 16:
            middle = low + (high - low) // 2
            for one, other in ((middle, low), (high, middle), (middle, low)):
                if less(places[one], places[other]):
                    places[one], places[other] = places[other], places[one]
            pivot = places[middle]
            i, j = low, high - 1
            places[middle], places[j] = places[j], places[middle]
            while True:
                i += 1
                while less(places[i], pivot):
                    i += 1
                j -= 1
                while less(pivot, places[j]):
                    j -= 1
                if i >= j:
                    break
                places[i], places[j] = places[j], places[i]
            places[i], places[high - 1] = places[high - 1], places[i]
            if i - low < high - i:
                waiting.append((i + 1, high))
                high = i - 1
            else:
                waiting.append((low, i - 1))
                low = i + 1
    return np.array(values)


def dtype_of(element):
    return np.dtype(f"{'i' if element.kind == 'M' else element.kind}{element.width}")


def sized(dtype, seed):
    rng = np.random.default_rng(seed)
    for size in (*SIZES, LARGE):
        for what, values in numbers(dtype, size, rng):
            yield what, values, rng


# ---------------------------------------------------------------------- sort


@pytest.mark.parametrize("element", sorting.ELEMENTS, ids=lambda one: one.name)
def test_sorted_elements_are_the_same_to_the_bit(element):
    rigs = pair(sorting.donors(), "malloc", "free")
    for what, values, _ in sized(dtype_of(element), 5):
        found = []
        for rig in rigs:
            rig.put(FIRST, np.append(values, values[:1]))
            rig.call(element.function, FIRST, len(values))
            found.append(rig.get(FIRST, values.nbytes + values[:1].nbytes))
        assert found[0] == found[1], (what, len(values))


def test_sorting_is_left_to_the_original_when_there_is_no_memory():
    element = next(one for one in sorting.ELEMENTS if one.name == "double floats")
    original, replaced = pair(sorting.donors(), "malloc", "free")
    values = np.random.default_rng(1).random(300_000)
    for rig in (original, replaced):
        taken = []
        while address := rig.call("malloc", 1 << 20):
            taken.append(address)
            assert len(taken) < 5000
        rig.put(FIRST, values)
        rig.call(element.function, FIRST, len(values))
        for address in taken:
            rig.call("free", address)

        assert rig.get(FIRST, values.nbytes) == np.sort(values).tobytes()


# ---------------------------------------------------------------------- argsort


@pytest.mark.parametrize("element", argsorting.ELEMENTS, ids=lambda one: one.function)
def test_sorted_places_are_in_the_same_order_with_equal_elements(element):
    rigs = pair(argsorting.donors(), "malloc", "free")
    for what, values, rng in sized(dtype_of(element), 6):
        places = np.arange(len(values) + 1, dtype=np.int32)
        if rng.random() < 0.3:
            places[:-1] = rng.permutation(len(values))
        found = []
        for rig in rigs:
            rig.put(FIRST, values)
            rig.put(SECOND, places)
            rig.call(element.function, FIRST, SECOND, len(values))
            found.append(rig.get(SECOND, places.nbytes))
        assert found[0] == found[1], (what, len(values))


# ---------------------------------------------------------------------- partition

SETTLED, MANY = ARGUMENTS + 1024, ARGUMENTS + 2048


@pytest.mark.slow
@pytest.mark.parametrize("element", selecting.ELEMENTS, ids=lambda one: one.name)
def test_what_is_selected_and_all_around_it_is_the_same_to_the_bit(element):
    """One place after the other, each with what the ones before have settled, as numpy asks for them."""
    rigs = pair(selecting.donors(), "malloc", "free")
    dtype = np.dtype({"": "f", "_s": "i", "_u": "u"}[element.sign] + str(element.width))
    for what, values, rng in sized(dtype, 9):
        size = len(values)
        if not size:
            continue
        wanted = sorted({size // 2, size - 1, *map(int, rng.integers(0, size, 3))})
        orders = [[(place, True) for place in reversed(wanted)], [(place, True) for place in wanted]]
        orders.append([(wanted[0], False), (wanted[-1] // 2, False)])
        for order in orders:
            found = []
            for rig in rigs:
                rig.put(FIRST, values)
                rig.put(SETTLED, np.full(52, -1, np.int32))
                rig.put(MANY, np.zeros(1, np.int32))
                for place, kept in order:
                    stack = (SETTLED, MANY) if kept else (0, 0)
                    assert rig.call(element.function, FIRST, 0, size, place, *stack) == 0
                found.append((rig.get(FIRST, values.nbytes), rig.get(SETTLED, 208), rig.get(MANY, 4)))
            assert found[0] == found[1], (what, size, order)


def test_selection_goes_on_with_medians_of_medians_where_halving_fails():
    """The sequence makes the median of three as bad as it can be, longer than the depth that is allowed."""
    element = selecting.ELEMENTS[0]
    rigs = pair(selecting.donors(), "malloc", "free")
    size = 5_000
    values = bad_for_selection(size, 2_500)
    found = []
    for rig in rigs:
        rig.put(FIRST, values)
        rig.call(element.function, FIRST, 0, size, 2_500, 0, 0)
        found.append(rig.get(FIRST, values.nbytes))
    assert found[0] == found[1]
    assert np.frombuffer(found[0])[2_500] == 2_500


def bad_for_selection(size, kth):
    """Numbers 0 to size - 1, ordered so that each median of three is the second smallest of what is left."""
    places, low, high = list(range(size)), 0, size - 1
    values = [-1] * size
    smallest = 0
    for _ in range(64):
        if high - low < 8:
            break
        middle = low + (high - low) // 2
        # the smallest two of what is left are at the beginning and in the middle: they are what is parted off
        for place in (low, middle):
            values[places[place]] = smallest
            smallest += 1
        places[middle], places[low + 1] = places[low + 1], places[middle]
        low += 2
        if low > kth:
            break
    rest = [place for place in places[low:] if values[place] < 0]
    for number, place in enumerate(rest):
        values[place] = smallest + number
    assert sorted(values) == list(range(size))
    return np.array(values, float)


# ---------------------------------------------------------------------- the matrix product


def test_a_tile_of_the_product_is_the_same_to_the_bit():
    rng = np.random.default_rng(3)
    rigs = pair(products.donors())
    shapes = [
        (m, n, k)
        for m in (1, 2, 3, 4, 5, 7, 8, 9, 16, 17)
        for n in (1, 2, 3, 4, 5, 8)
        for k in (0, 1, 2, 3, 4, 7)
    ]
    shapes += [tuple(map(int, rng.integers(1, 90, 3))) for _ in range(30)]
    for m, n, k in shapes:
        for special in (False, True):
            apart = m + int(rng.integers(0, 3))
            a, b, c = rng.standard_normal(m * k), rng.standard_normal(k * n), rng.standard_normal(apart * n)
            alpha = float(rng.standard_normal())
            if special:
                for one in (a, b, c):
                    one[rng.random(len(one)) < 0.1] = rng.choice([0.0, -0.0, 1e-310, -1e300, 1e300])
                alpha = float(rng.choice([-0.0, 0.0, 1.0, 1e-300, np.inf]))
            found = []
            for rig in rigs:
                for place, one in ((FIRST, a), (SECOND, b), (THIRD, c)):
                    rig.put(place, one)
                assert rig.call("dgemm_kernel", m, n, k, alpha, FIRST, SECOND, THIRD, apart) == 0
                found.append(np.frombuffer(rig.get(THIRD, c.nbytes)))
            assert_same(*found)


def assert_same(one, other):
    """Equal to the bit, but for what kind of NaN a NaN is."""
    nan = np.isnan(one)
    assert (nan == np.isnan(other)).all()
    assert one[~nan].tobytes() == other[~nan].tobytes()


# ---------------------------------------------------------------------- largest and smallest


def arguments(*places_and_steps):
    return np.array(places_and_steps, np.int32)


def ways(width, size):
    """How a loop of numpy is called: places of operands and result, and the steps between their elements."""
    yield (THIRD, SECOND, THIRD, size, 0, width, 0)  # reduce
    yield (THIRD, SECOND, THIRD, size // 2, 0, 2 * width, 0)  # reduce every other
    for places in (
        (FIRST, SECOND, THIRD),
        (FIRST, SECOND, FIRST),
        (FIRST, SECOND, SECOND),
        (FIRST, FIRST, FIRST),
    ):
        yield (*places, size, width, width, width)
    yield (FIRST, SECOND, THIRD, size, width, 0, width)
    yield (FIRST, SECOND, THIRD, size, 0, width, width)
    yield (FIRST, FIRST + width, FIRST + width, size, width, width, width)  # accumulate
    yield (FIRST, SECOND, FIRST + 3 * width, size, width, width, width)
    yield (FIRST + 3 * width, SECOND, FIRST, size, width, width, width)
    yield (FIRST, FIRST + 5 * width, FIRST, size, width, 0, width)


@pytest.mark.parametrize("element", extremes.ELEMENTS, ids=lambda one: one.name)
def test_the_larger_and_the_smaller_of_each_two_are_the_same_to_the_bit(element):
    rigs = pair(extremes.donors())
    rng = np.random.default_rng(7)
    dtype = dtype_of(element)
    words = ("maximum", "minimum") + (("fmax", "fmin") if element.kind == "f" else ())
    for size in (0, 1, 2, 7, 16, 17, 31, 32, 33, 64, 65, 127, 128, 129, 143, 200, 1000):
        operands = [list(numbers(dtype, size + 8, rng)) for _ in range(3)]
        for (what, a), (_, b), (_, c) in zip(*operands, strict=True):
            for way in ways(element.width, size):
                for word in words:
                    found = []
                    for rig in rigs:
                        for place, one in ((FIRST, a), (SECOND, b), (THIRD, c), (ARGUMENTS, arguments(*way))):
                            rig.put(place, one)
                        rig.call(f"{element.name}_{word}", ARGUMENTS, ARGUMENTS + 12, ARGUMENTS + 16, 0)
                        found.append([rig.get(place, a.nbytes) for place in (FIRST, SECOND, THIRD)])
                    assert found[0] == found[1], (word, what, way)


@pytest.mark.parametrize("element", [one for one in extremes.ELEMENTS if one.finds], ids=lambda one: one.name)
def test_the_place_of_the_largest_and_the_smallest_is_the_same(element):
    rigs = pair(extremes.donors())
    for what, values, _ in sized(dtype_of(element), 8):
        if not len(values):
            continue
        for word in ("argmax", "argmin"):
            found = []
            for rig in rigs:
                rig.put(FIRST, values)
                rig.put(ARGUMENTS, np.array([-1], np.int32))
                assert rig.call(f"{element.name}_{word}", FIRST, len(values), ARGUMENTS, 0) == 0
                found.append(rig.get(ARGUMENTS, 4))
            assert found[0] == found[1], (word, what, len(values))


# ---------------------------------------------------------------------- arithmetic


@pytest.mark.slow
@pytest.mark.parametrize(
    "element", sorted({one for one, _, _ in arithmetic.LOOPS}, key=str), ids=lambda one: one.name
)
def test_arithmetic_of_arrays_is_the_same_to_the_bit(element):
    rigs = pair(arithmetic.donors())
    rng = np.random.default_rng(11)
    dtype = dtype_of(element)
    words = [word for one, word, _ in arithmetic.LOOPS if one == element]
    more = [(FIRST, THIRD + element.width, THIRD, 0), (THIRD + 3 * element.width, SECOND, THIRD, 1)]
    for size in (0, 1, 15, 16, 17, 31, 33, 64, 257):
        operands = [list(numbers(dtype, size + 8, rng)) for _ in range(3)]
        overlapping = [
            (one, two, out, size, *((0, element.width) if which == 0 else (element.width, 0)), element.width)
            for one, two, out, which in [*more, (THIRD, SECOND, THIRD, 0), (FIRST, THIRD, THIRD, 1)]
        ]
        for (_, a), (_, b), (_, c) in zip(*operands, strict=True):
            for way in (*ways(element.width, size), *overlapping):
                for word in words:
                    found = []
                    for rig in rigs:
                        for place, one in ((FIRST, a), (SECOND, b), (THIRD, c), (ARGUMENTS, arguments(*way))):
                            rig.put(place, one)
                        rig.call(f"{element.name}_{word}", ARGUMENTS, ARGUMENTS + 12, ARGUMENTS + 16, 0)
                        found.append([rig.get(place, a.nbytes) for place in (FIRST, SECOND, THIRD)])
                    for one, other in zip(*found, strict=True):
                        assert_same(np.frombuffer(one, dtype), np.frombuffer(other, dtype))


# ---------------------------------------------------------------------- all of them


def test_a_donor_says_of_every_function_what_it_must_be():
    module = interpreter()
    for donor in KERNELS:
        for name, digest in donor.expected:
            assert body_digest(module.body(module.number(name))) == digest
