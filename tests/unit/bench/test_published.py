"""What README and docs say of cost is what the published run measured."""

import re
from pathlib import Path

import pytest

from measures.render import SLOWER, docs_table, put_between, readme_table, speed_table
from measures.saved import load

ROOT = Path(__file__).parents[3]
RUN = load(ROOT / "docs" / "benchmarks.json")


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("README.md", readme_table),
        ("docs/benchmarks.md", docs_table),
        ("docs/limitations.md", speed_table),
    ],
)
def test_the_tables_are_those_of_the_run(name, made):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert put_between(text, made(RUN)) == text, "run: just bench-docs docs/benchmarks.json"


def test_what_readme_says_of_the_guests_speed():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    said = re.search(
        r"pure Python (\d+) to (\d+) times, most of numpy (\d+) to (\d+) times, "
        r"`np.sort` and matrix products (\d+) to (\d+) times",
        text,
    )
    slower = {
        name.removeprefix(SLOWER): series.median
        for name, series in RUN.series.items()
        if name.startswith(SLOWER)
    }
    slow = [slower.pop(f"numpy: {name}") for name in ("sort of 500,000", "matrix product, 300 x 300")]
    numpy = [times for name, times in slower.items() if name.startswith("numpy")]
    python = [times for name, times in slower.items() if not name.startswith("numpy")]

    def within(times, low, high):
        return [float(low) <= round(one) <= float(high) for one in times]

    assert all(within(python, said[1], said[2]))
    assert sum(within(numpy, said[3], said[4])) > len(numpy) / 2
    assert all(within(slow, said[5], said[6]))
