"""Integers are as wide in the guest as natively, wherever a program can see it.

The expressions and their values are in `native/`: the values are what CPython 3.13 with the same versions of the
libraries gives on 64-bit Linux.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import evocell
from evocell import Config, Limits

NATIVE = Path(__file__).parent / "native"

SHOW = """
def show(value):
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return f"array object {value.tolist()}"
        kind = type(value).__name__ + " " if NAMED else ""
        return f"{kind}{value.dtype.descr if value.dtype.names else value.dtype} {value.shape} {value.tolist()}"
    if isinstance(value, np.generic):
        return (type(value).__name__ + " " if NAMED else "") + f"{value.dtype} {value.item()!r}"
    if isinstance(value, dict) and not NAMED:
        return "{" + ", ".join(f"{key}: {show(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return (type(value).__name__ if NAMED else "") + f"({', '.join(map(show, value))})"
    return repr(value)

def evaluate(expressions):
    warnings.simplefilter("ignore")
    found = []
    for expression in expressions:
        try:
            found.append(show(eval(expression)))
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return found
"""

INTEGERS = (
    """
import sys, itertools, collections, re, heapq, random, io, array, functools, textwrap, pprint, reprlib, pickle
import warnings
import numpy as np
NAMED = True
"""
    + SHOW
)

LIBRARIES = (
    """
import importlib, io, warnings
warnings.simplefilter("ignore")
import numpy as np
import scipy.sparse as sp, scipy.sparse.csgraph, scipy.sparse.linalg
from scipy import optimize, spatial, ndimage, signal, interpolate, stats, special, linalg
import scipy.linalg.interpolative, scipy.spatial.distance, scipy.stats.qmc
import scipy.cluster.hierarchy as hier, scipy.cluster.vq as vq
import pandas as pd, statsmodels.api as sm, statsmodels.formula.api as smf, sympy, networkx, patsy
NAMED = False
X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
def sk(name):
    return importlib.import_module("sklearn." + name)
"""
    + SHOW
)

AMPLE = Limits(fuel=2_000_000_000_000, memory_bytes=1 << 30)


def expected(name: str) -> dict[str, str]:
    lines = (NATIVE / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("  ==>  ", 1) for line in lines)


@pytest.fixture(scope="module")
def engine():
    with evocell.Engine(Config.load(workers=1)) as made:
        yield made


def differing(engine, source: str, wanted: dict[str, str]) -> dict[str, tuple[str, str]]:
    sandbox = engine.create_sandbox(source=source)
    found = sandbox.run("evaluate", args=[list(wanted)], limits=AMPLE).unwrap()
    return {
        expression: (value, native)
        for (expression, native), value in zip(wanted.items(), found, strict=True)
        if value != native
    }


def test_integers_of_numpy_and_python_are_as_natively(engine):
    assert differing(engine, INTEGERS, expected("integers.txt")) == {}


def test_compiled_libraries_give_what_they_give_natively(engine):
    assert differing(engine, LIBRARIES, expected("libraries.txt")) == {}


OVERFLOWS = """
import numpy as np
from scipy.spatial import KDTree
big = 2**32 + 1

def repeat():
    return np.repeat([1], [big]).size

def index():
    return np.arange(3)[np.array([big])]

def index_many():
    return np.arange(10**6)[np.full(3, big)]

def index_late():
    indices = np.zeros(20_000, dtype=int)
    indices[-1] = big
    return np.arange(10**6)[indices]

def index_pairs():
    return np.zeros((1000, 1000))[np.full(3, big), np.full(3, 1)]

def take():
    return np.take([1, 2, 3], np.array([2**32]))

def put_index():
    a = np.arange(3)
    a[np.array([2**32])] = 9
    return a

def bincount():
    return np.bincount([2**32]).size

def extension():
    from scipy.stats._stats import _kendall_dis
    return _kendall_dis(np.array([big, 1]), np.array([1, 2]))

def index_of_library_times():
    _, nearest = KDTree(np.arange(6).reshape(3, 2)).query([[4, 5]])
    products = nearest * 10**10, nearest**40, np.sum(nearest * 2**40), nearest[0] * 10**10
    narrow = np.full(2, 2**20, np.intp)
    sums = np.dot(narrow, narrow), np.inner(narrow, narrow), np.vdot(narrow, narrow), np.einsum("i,i", narrow, narrow)
    sums += np.correlate(narrow, narrow), narrow @ narrow, narrow.dot(narrow), np.tensordot(narrow, narrow, 1)
    single = np.prod(narrow), narrow.cumprod()[1:], np.outer(narrow, narrow)[0], np.convolve(narrow, narrow)[:1]
    return [[int(np.max(one)) for one in group] for group in (products, sums, single)]

def index_of_library_in_place():
    _, nearest = KDTree(np.arange(6).reshape(3, 2)).query([[4, 5]])
    nearest *= 10**10
    return int(nearest[0])
"""


@pytest.mark.parametrize(
    "entry",
    [
        "repeat",
        "index",
        "index_many",
        "index_late",
        "index_pairs",
        "take",
        "put_index",
        "bincount",
        "extension",
        "index_of_library_in_place",
    ],
)
def test_what_does_not_fit_an_index_is_an_error_and_not_another_value(engine, entry):
    outcome = engine.create_sandbox(source=OVERFLOWS).run(entry)
    assert outcome.kind == "raised", outcome
    assert outcome.type_name in ("ValueError", "IndexError", "MemoryError", "OverflowError"), outcome


def test_a_compiled_function_says_that_it_computes_with_32_bits(engine):
    outcome = engine.create_sandbox(source=OVERFLOWS).run("extension")
    assert outcome.type_name == "OverflowError"
    assert "does not fit the 32 bits with which this compiled function computes" in outcome.error


def test_indices_of_libraries_are_computed_with_64_bits(engine):
    found = engine.create_sandbox(source=OVERFLOWS).run("index_of_library_times").unwrap()
    assert found == [[2 * 10**10, 2**40, 2**41, 2 * 10**10], [2**41] * 8, [2**40] * 4]


def test_arrays_of_the_host_are_counts_and_indices(engine):
    np = pytest.importorskip("numpy")
    source = """
import numpy as np
def solve(counts):
    return np.repeat(np.arange(4), counts), np.bincount(counts), np.take(np.arange(9), counts), counts.dtype.name
"""
    repeated, counted, taken, name = (
        engine.create_sandbox(source=source).run("solve", args=[np.array([2, 1, 0, 3])]).unwrap()
    )
    assert (repeated.tolist(), counted.tolist(), taken.tolist()) == (
        [0, 0, 1, 3, 3, 3],
        [1, 1, 1, 1],
        [2, 1, 0, 3],
    )
    assert {repeated.dtype, counted.dtype, taken.dtype} == {np.dtype("int64")}
    assert name == "int64"


def test_a_heuristic_that_raises_the_room_to_a_power_packs_as_natively(engine):
    source = """
import numpy as np
def priority(item, bins):
    room = bins - item
    return -(room ** 5) + 1000 * room
def solve():
    bins = np.array([100] * 12)
    out = []
    for item in (40, 33, 61, 25, 58, 7, 90, 44):
        fits = np.nonzero(bins >= item)[0]
        k = int(fits[np.argmax(priority(item, bins[fits]))])
        bins[k] -= item
        out.append(k)
    return out
"""
    assert engine.create_sandbox(source=source).run("solve").unwrap() == [0, 0, 1, 0, 2, 1, 3, 4]
