"""Versions of code: rollbacks, hot code swaps, incremental compiling, and what versions take on disk."""

from __future__ import annotations

import subprocess
import tempfile
from itertools import count
from pathlib import Path

import evocell
from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise
from measures.baseline import Baseline
from measures.lifecycle import module_of_100_lines
from measures.report import Report, Row, timed

_READINGS = 60
_FILES = 20
_VERSIONS = 100
_FILE_LINES = 100

_numbers = count(1_000_000)
_names = count(1)


def measure(report: Report, baseline: Baseline, engine: evocell.Engine) -> None:
    """Measure one round's share of reloads of other kinds than `lifecycle` has, and of disk.

    Args:
        report: Where the rows go.
        baseline: What they are compared with.
        engine: An engine that has nothing else to do.
    """
    _rollbacks(report, baseline, engine)
    _swaps(report, baseline, engine)
    _incremental(report, baseline, engine)
    _disk(report)


def _rollbacks(report: Report, baseline: Baseline, engine: evocell.Engine) -> None:
    name = f"rolled-back-{next(_names)}"
    with engine.create_sandbox(name, source=module_of_100_lines(next(_numbers))) as sandbox:
        sandbox.hot_reload_source(module_of_100_lines(next(_numbers))).unwrap()
        taken_s: list[float] = []
        diff_s: list[float] = []
        for _ in range(report.share(_READINGS)):
            latest = sandbox.history("program")[-1]
            timed(taken_s, sandbox.rollback_module, "program", latest.number - 1).unwrap()
            timed(diff_s, sandbox.diff, "program")
    report.times("engine: rollback_module of 100 lines", taken_s, target_s=3e-3, baseline_s=baseline.call_s)
    report.times("engine: diff of two versions of 100 lines", diff_s, baseline_s=baseline.call_s)


def _swaps(report: Report, baseline: Baseline, engine: evocell.Engine) -> None:
    new_s: list[float] = []
    cached_s: list[float] = []
    texts = [module_of_100_lines(next(_numbers)) for _ in range(report.share(_READINGS))]
    with engine.create_sandbox(f"swapped-{next(_names)}", source=texts[0]) as sandbox:
        sandbox.run("solve", args=(3,)).unwrap()
        for text in texts[1:]:
            timed(new_s, sandbox.hot_reload_source, text, keep_state=True).unwrap()
        for text in texts:
            timed(cached_s, sandbox.hot_reload_source, text, keep_state=True).unwrap()
    report.times("engine: hot code swap of 100 lines, new", new_s, baseline_s=baseline.call_s)
    report.times("engine: hot code swap of 100 lines, cached", cached_s, baseline_s=baseline.call_s)


def _incremental(report: Report, baseline: Baseline, engine: evocell.Engine) -> None:
    files = {f"pkg/m{n:02}.py": module_of_100_lines(next(_numbers)) for n in range(_FILES)}
    whole_s: list[float] = []
    one_s: list[float] = []
    with engine.create_sandbox(f"grown-{next(_names)}", source="") as sandbox:
        timed(whole_s, sandbox.hot_reload_source, files).unwrap()
        for _ in range(report.share(_READINGS)):
            changed = files | {"pkg/m07.py": module_of_100_lines(next(_numbers))}
            timed(one_s, sandbox.hot_reload_source, changed).unwrap()
    report.times(f"engine: hot reload of {_FILES} files, all new", whole_s, baseline_s=baseline.call_s)
    report.times(f"engine: hot reload of {_FILES} files, one new", one_s, baseline_s=baseline.call_s)


def _disk(report: Report) -> None:
    """Disk that a tree takes, a hundred versions of it that differ in one file, and as much without sharing."""
    files = {f"pkg/m{n:02}.py": f"# {n}\n" * _FILE_LINES for n in range(_FILES)}
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        one, many = SnapshotStore(root / "one"), SnapshotStore(root / "many")
        one.put(normalise(files))
        for version in range(_VERSIONS):
            many.put(normalise(files | {"pkg/m07.py": f"# version {version}\n" * _FILE_LINES}))
        single, shared = (_used_bytes(store.root) for store in (one, many))
    report.add(Row(name=f"disk: a tree of {_FILES} files", samples=[single], unit="MB"))
    report.add(
        Row(
            name=f"disk: {_VERSIONS} versions of it that differ in one file",
            samples=[shared],
            unit="MB",
        )
    )
    report.add(
        Row(
            name=f"disk: the same without sharing ({_VERSIONS} trees)",
            samples=[single * _VERSIONS],
            unit="MB",
        )
    )


def _used_bytes(directory: Path) -> int:
    done = subprocess.run(["du", "-sk", str(directory)], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0]) << 10
