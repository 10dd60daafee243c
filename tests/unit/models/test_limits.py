from __future__ import annotations

import math

import pytest

from evocell.errors import ConfigurationError
from evocell.models import Limits


def test_defaults():
    limits = Limits()

    assert limits.fuel == 100_000_000_000
    assert limits.memory_bytes == 128 << 20
    assert limits.timeout_s == 300
    assert limits.output_bytes == 1 << 20
    assert limits.scratch_bytes == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fuel", 0),
        ("fuel", True),
        ("fuel", 2.5),
        ("fuel", 1 << 63),
        ("memory_bytes", -1),
        ("memory_bytes", (4 << 30) + 1),
        ("timeout_s", 0),
        ("timeout_s", math.inf),
        ("timeout_s", math.nan),
        ("timeout_s", "3"),
        ("timeout_s", True),
        ("output_bytes", (1 << 20) + 1),
        ("payload_depth", 1000),
        ("open_files", 0),
        ("scratch_bytes", -1),
    ],
)
def test_a_limit_out_of_range_is_named(name, value):
    with pytest.raises(ConfigurationError, match=name) as caught:
        Limits(**{name: value})

    assert caught.value.key == f"limits.{name}"


def test_evolve_changes_a_copy():
    limits = Limits()

    assert limits.evolve(fuel=5, timeout_s=1) == Limits(fuel=5, timeout_s=1)
    assert limits == Limits()


def test_evolve_refuses_an_unknown_limit_by_name():
    with pytest.raises(ConfigurationError, match="no limit named 'feul'"):
        Limits().evolve(feul=5)


def test_evolve_validates():
    with pytest.raises(ConfigurationError, match="fuel"):
        Limits().evolve(fuel=-5)


def test_equal_limits_are_the_same_limits():
    assert repr(Limits(timeout_s=5)) == repr(Limits(timeout_s=5.0))
