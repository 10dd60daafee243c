"""Floating-point numbers become integers in the guest as natively, also where they do not fit.

The numbers and the ways of converting them are in `native/casts.py`; the answers in `native/casts.txt` are what CPython
3.13 with the guest's version of numpy gives on x86-64, by its loops for numbers that do not lie side by side.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import evocell
from evocell import Config, Limits

NATIVE = Path(__file__).parent / "native"
SOURCE = (NATIVE / "casts.py").read_text(encoding="utf-8")
EXPECTED = dict(
    line.split("  ==>  ") for line in (NATIVE / "casts.txt").read_text(encoding="utf-8").splitlines()
)


@pytest.fixture(scope="module")
def observed():
    limits = Limits(fuel=2_000_000_000_000, memory_bytes=1 << 30)
    with evocell.Engine(Config.load(workers=1)) as engine:
        sandbox = engine.create_sandbox(source=SOURCE, limits=limits)
        yield {name: sandbox.run(name).unwrap() for name in ("observe_all", "observe_others", "differing")}


def test_values_and_warnings_are_those_of_native_numpy(observed):
    given = observed["observe_all"] | observed["observe_others"]
    assert given.keys() == EXPECTED.keys()
    differing = {name: (answer, given[name]) for name, answer in EXPECTED.items() if given[name] != answer}
    assert not differing


def test_every_way_of_converting_gives_the_same(observed):
    assert observed["differing"] == []
