"""An evaluator as one writes it without evocell: the program runs in OpenEvolve's own process."""

from __future__ import annotations

import importlib.util

from towns import score, towns

SEEDS = range(8)


def evaluate(program_path: str) -> dict[str, float]:
    """Load the program and measure its tours."""
    spec = importlib.util.spec_from_file_location("program", program_path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    scores = [score(towns(seed), program.tour(towns(seed))) for seed in SEEDS]
    return {"combined_score": sum(scores) / len(scores)}
