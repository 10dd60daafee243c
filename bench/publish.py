"""Put a run into README, docs/benchmarks.md and docs/limitations.md: the tables, the chart, and the run itself to compare with."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from measures.render import docs_table, put_between, readme_table, speed_table, write_chart
from measures.saved import load

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "docs" / "benchmarks.json"
CHART = ROOT / "docs" / "images" / "benchmarks.svg"


def main() -> None:
    """Take the latest run, or the one that is named."""
    parser = argparse.ArgumentParser(prog="just bench-docs", description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=ROOT / ".benchmarks" / "latest.json")
    args = parser.parse_args()
    run = load(args.run)
    if args.run.resolve() != RUN:
        shutil.copyfile(args.run, RUN)
    write_chart(run, CHART)
    for path, made in (
        (ROOT / "README.md", readme_table(run)),
        (ROOT / "docs" / "benchmarks.md", docs_table(run)),
        (ROOT / "docs" / "limitations.md", speed_table(run)),
    ):
        path.write_text(put_between(path.read_text(encoding="utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main()
