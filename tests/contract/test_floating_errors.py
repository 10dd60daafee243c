"""Floating-point errors of numpy are reported in the guest as natively.

The expressions and the answers are in `native/floating_errors.txt`: the answers are what CPython 3.13 with the guest's
version of numpy gives on 64-bit Linux; `native/floating_errors.py` writes them anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import evocell
from evocell import Config, Limits

NATIVE = Path(__file__).parent / "native"
SOURCE = (NATIVE / "floating_errors.py").read_text(encoding="utf-8")
EXPECTED = dict(
    line.split("  ==>  ")
    for line in (NATIVE / "floating_errors.txt").read_text(encoding="utf-8").splitlines()
)


@pytest.fixture(scope="module")
def engine():
    with evocell.Engine(Config.load(workers=1)) as made:
        yield made


@pytest.fixture(scope="module")
def observed(engine):
    limits = Limits(fuel=2_000_000_000_000, memory_bytes=1 << 30)
    with_source = engine.create_sandbox(source=SOURCE, limits=limits)
    return dict(zip(EXPECTED, with_source.run("observe_all", args=(list(EXPECTED),)).unwrap(), strict=True))


def test_errors_are_those_of_native_numpy(observed):
    differing = {
        expression: (answer, observed[expression])
        for expression, answer in EXPECTED.items()
        if observed[expression] != answer
    }
    assert not differing
