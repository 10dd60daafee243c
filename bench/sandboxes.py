"""What sandboxes cost, beside a subprocess that imports numpy, in one run. Nothing is asserted.

The last column says how many times cheaper something is than the baseline: one subprocess that imports
numpy and calls the same function (for rows of memory, the memory of one). Each of a batch counts as one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console

import evocell
from measures import arrays, baseline, execution, lifecycle, machine, many, memory, stopping
from measures.report import Report

_WIDTH = 160


def main() -> None:
    """Run every measurement and print one table."""
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE as well")
    parser.add_argument(
        "--sessions", type=int, metavar="N", help="weigh N sandboxes that keep state as well (10000: minutes)"
    )
    args = parser.parse_args()
    begun = time.perf_counter()
    report = Report()
    with evocell.Engine() as engine:  # builds the image if there is none, and says so
        head = machine.describe(engine.image_id)
    _say("subprocesses")
    compared = baseline.measure(report)
    _say("forks and calls in the worker")
    execution.measure(report, compared)
    _say("memory")
    memory.measure(report, compared)
    with evocell.Engine() as engine:
        _say("the engine")
        lifecycle.measure(report, compared, engine)
        _say("arrays")
        arrays.measure(report, engine)
        _say("stopping")
        stopping.measure(report, engine)
    if args.sessions:
        _say(f"{args.sessions:,} sessions")
        many.measure(report, args.sessions)
    head["took"] = f"{time.perf_counter() - begun:.0f} s"
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": head, "rows": report.plain()}, indent=2) + "\n")
    console = Console(width=_WIDTH, highlight=False)
    for name, value in head.items():
        console.print(f"{name}: {value}", markup=False)
    console.print(report.table())


def _say(what: str) -> None:
    sys.stderr.write(f"measuring: {what}\n")


if __name__ == "__main__":
    main()
