"""A floating-point error is found wherever it is in an array, and nothing is reported where there is none.

Loops are judged in pieces, and numbers side by side several at once, so lengths and places around the bounds of both are
tried. What must be reported is known: the operation that is put in place, and nothing else; natively every expectation
here holds as well (`observe` is plain numpy).
"""

from __future__ import annotations

import pytest

import evocell
from evocell import Config, Limits

SOURCE = """
import warnings
import numpy as np

LENGTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 127, 129, 511, 512, 513, 1023, 1024, 1025, 1537, 2049, 3100)
BACKGROUNDS = {"finite": 1.5, "nans": np.nan, "infinities": np.inf}


def adding(a, b):
    a += b


def adding_to_the_second(a, b):
    np.add(a, b, out=b)


def with_steps(function):
    def wide(a, b):
        x, y = np.zeros((2, 2 * len(a)), a.dtype)
        x[::2], y[::2] = a, b
        function(x[::2], y[::2])
    return wide


def backwards(function):
    return lambda a, b: function(a[::-1], b[::-1])


def shifted(function):
    def moved(a, b):
        x, y = (np.zeros(one.nbytes + 1, "u1")[1:].view(one.dtype) for one in (a, b))
        x[...], y[...] = a, b
        function(x, y)
    return moved


def casting(kind):
    return lambda a, b: a.astype(kind)


LARGE = {"f8": 1e308, "f4": 3e38, "f2": 6e4}
# what is done, with what two operands an error comes of, and which
CASES = {
    "add": (np.add, lambda large: (large, large), "overflow"),
    "multiply": (np.multiply, lambda large: (large, large), "overflow"),
    "divide": (np.divide, lambda large: (1.0, 0.0), "divide"),
    "zero by zero": (np.divide, lambda large: (0.0, 0.0), "invalid"),
    "infinite difference": (np.subtract, lambda large: (np.inf, np.inf), "invalid"),
    "sqrt": (lambda a, b: np.sqrt(a), lambda large: (-1.0, 1.0), "invalid"),
    "log": (lambda a, b: np.log(a), lambda large: (0.0, 1.0), "divide"),
    "in place": (adding, lambda large: (large, large), "overflow"),
    "into the second": (adding_to_the_second, lambda large: (-np.inf, np.inf), "invalid"),
    "with steps": (with_steps(np.add), lambda large: (large, large), "overflow"),
    "in place with steps": (with_steps(adding), lambda large: (large, large), "overflow"),
    "backwards": (backwards(np.multiply), lambda large: (large, -large), "overflow"),
    "one number for all": (lambda a, b: np.multiply(a, 4.0), lambda large: (large, 1.0), "overflow"),
    "unaligned": (shifted(np.divide), lambda large: (1.0, 0.0), "divide"),
}
CASTS = {
    "to int64": ("f8", casting("i8"), 2.0**63, "invalid"),
    "to uint64": ("f8", casting("u8"), 2.0**64, "invalid"),
    "to int32": ("f8", casting("i4"), -(2.0**31) - 1, "invalid"),
    "to uint8": ("f8", casting("u1"), 2.0**31, "invalid"),
    "single to int32": ("f4", casting("i4"), 2.0**31, "invalid"),
    "to single": ("f8", casting("f4"), 1e39, "overflow"),
    "to half": ("f4", casting("f2"), 7e4, "overflow"),
    "into the other byte order": ("f8", casting(">f4"), 1e39, "overflow"),
    "assigned": ("f8", lambda a, b: np.zeros(len(a), "f4").__setitem__(slice(None), a), 1e39, "overflow"),
    "with steps": ("f8", with_steps(lambda a, b: a.astype("i4")), 1e10, "invalid"),
}


def reported(function, a, b):
    a, b = a.copy(), b.copy()
    seen = []
    with np.errstate(all="call", under="ignore", call=lambda kind, flags: seen.append(kind.split()[0])):
        function(a, b)
    return sorted(seen)


def places(length):
    return sorted({0, length // 2, length - 1, min(length - 1, 1023), min(length - 1, 1024)})


def observe(kind):
    wrong, looked = [], 0
    for background, number in BACKGROUNDS.items():
        for name, (function, operands, error) in CASES.items():
            left, right = operands(LARGE[kind])
            for length in LENGTHS:
                a, b = np.full(length, 1.5, kind), np.full(length, 1.5, kind)
                a[1::2] = number  # the others are plain numbers
                if background == "infinities" and name == "into the second":
                    a[1::2] = -number
                calm = reported(function, a, b)
                if calm:
                    wrong.append(f"{kind} {background} {name} {length}: {calm} without an error")
                for place in places(length):
                    x, y = a.copy(), b.copy()
                    x[place], y[place] = left, right
                    found = reported(function, x, y)
                    looked += 1
                    if found != [error]:
                        wrong.append(f"{kind} {background} {name} {length} at {place}: {found}, not {error}")
    return [wrong, looked]


def observe_casts():
    wrong, looked = [], 0
    for name, (kind, function, number, error) in CASTS.items():
        for length in LENGTHS:
            a = np.linspace(-0.9, 100.0, length).astype(kind)
            if error == "overflow":
                a[1::2] = np.nan
            if reported(function, a, a):
                wrong.append(f"{name} {length}: without an error")
            for place in places(length):
                x = a.copy()
                x[place] = number
                found = reported(function, x, x)
                looked += 1
                if found != [error]:
                    wrong.append(f"{name} {length} at {place}: {found}, not {error}")
    return [wrong, looked]
"""


@pytest.fixture(scope="module")
def sandbox():
    limits = Limits(fuel=2_000_000_000_000, memory_bytes=1 << 28)
    with evocell.Engine(Config.load(workers=1)) as engine:
        yield engine.create_sandbox(source=SOURCE, limits=limits)


@pytest.mark.parametrize("kind", ["f8", "f4", "f2"])
def test_an_error_of_arithmetic_is_found_where_it_is(sandbox, kind):
    wrong, looked = sandbox.run("observe", args=(kind,)).unwrap()
    assert looked > 1000
    assert wrong == []


def test_an_error_of_a_cast_is_found_where_it_is(sandbox):
    wrong, looked = sandbox.run("observe_casts").unwrap()
    assert looked > 100
    assert wrong == []
