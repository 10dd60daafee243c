"""A whole run of OpenEvolve with sandboxed evaluations, and a model on the loopback interface.

    python examples/openevolve_tours/run.py [--evaluator sandboxed_evaluator.py] [--iterations 10]

The model knows five programs by heart. Three of them are hostile, and get nowhere.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

from model import PROGRAMS, serving
from openevolve import run_evolution
from openevolve.config import Config, LLMModelConfig

HERE = Path(__file__).parent


def settings(api_base: str, *, cascade: bool, timeout_s: int) -> Config:
    """Return OpenEvolve's configuration, with the model at `api_base`."""
    config = Config()
    config.log_level = "ERROR"
    config.llm.models = [
        LLMModelConfig(name="parrot", api_base=api_base, api_key="none", timeout=60, retries=0, retry_delay=0)
    ]
    config.llm.evaluator_models = list(config.llm.models)
    config.diff_based_evolution = False
    config.random_seed = 1
    config.checkpoint_interval = 1000
    config.database.num_islands = 1
    config.evaluator.cascade_evaluation = cascade
    config.evaluator.cascade_thresholds = [0.3, 0.9]
    config.evaluator.parallel_evaluations = 2
    config.evaluator.timeout = timeout_s
    config.evaluator.max_retries = 0
    return config


def main() -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evaluator", default="evaluator.py", help="which evaluator of this directory")
    parser.add_argument("--iterations", type=int, default=2 * len(PROGRAMS), help="programs to ask for")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    started = time.perf_counter()
    with serving() as api_base, tempfile.TemporaryDirectory(prefix="openevolve-") as output:
        config = settings(api_base, cascade=given.evaluator == "evaluator.py", timeout_s=60)
        found = run_evolution(
            HERE / "initial_program.py",
            HERE / given.evaluator,
            config=config,
            iterations=given.iterations,
            output_dir=output,
            cleanup=True,
        )
    seconds = time.perf_counter() - started
    print(f"{given.iterations} programs of the model in {seconds:.1f} s, evaluated by {given.evaluator}")
    print("metrics of the best:")
    for name, value in found.metrics.items():
        print(f"  {name:15} {value:,.4f}" if isinstance(value, float) else f"  {name:15} {value}")
    print("the best program:\n" + found.best_code)
    return 0 if found.best_score > 0.75 else 1  # noqa: PLR2004 - nearest neighbour alone reaches 0.75


if __name__ == "__main__":
    raise SystemExit(main())
