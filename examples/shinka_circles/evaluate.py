"""ShinkaEvolve's evaluation script for circles in a square.

Without evocell the first import reads ``from shinka.core import run_shinka_eval``. Nothing else is different.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

from evocell.integrations.shinka import run_shinka_eval

N_CIRCLES = 9


def validate(circles: Any) -> tuple[bool, str | None]:
    """Say whether the circles lie in the square and do not overlap."""
    if len(circles) != N_CIRCLES:
        return False, f"there are {len(circles)} circles, not {N_CIRCLES}"
    for i, (x, y, radius) in enumerate(circles):
        if radius < 0 or min(x, y) < radius or max(x, y) > 1 - radius:
            return False, f"circle {i} is not in the square"
        for j, (u, v, other) in enumerate(circles[:i]):
            if math.dist((x, y), (u, v)) < radius + other - 1e-12:
                return False, f"circles {j} and {i} overlap"
    return True, None


def aggregate(results: list[Any]) -> dict[str, Any]:
    """Make metrics of the one result."""
    total = sum(radius for _, _, radius in results[0])
    return {"combined_score": total, "public": {"sum_of_radii": total}, "private": {}}


def main(program_path: str, results_dir: str) -> None:
    """Evaluate one program."""
    run_shinka_eval(
        program_path=program_path,
        results_dir=results_dir,
        experiment_fn_name="circles",
        num_runs=1,
        get_experiment_kwargs=lambda _run: {},
        aggregate_metrics_fn=aggregate,
        validate_fn=validate,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--program_path", default="initial.py")
    parser.add_argument("--results_dir", default="results")
    given = parser.parse_args()
    main(given.program_path, given.results_dir)
