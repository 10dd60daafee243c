"""A dataset of 50 MB: loaded once, frozen and forked, beside loading it for each candidate.

It runs in a process of its own, so that nothing else is on the scales, and removes the image it made.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

import evocell
from evocell_runtime.cache import ImageCache
from measures.machine import private_bytes
from measures.report import Report, Row

IMAGE = "evocell-bench-dataset"

_PARTS = 13
_PART_VALUES = 481_000
_FORKS = 1_000
_LOADING = 12
_AWAKE = 100
_AWAKE_LOADING = 4
_COPIES = 20

_DATASET = f"""
import numpy as np

VALUES = np.concatenate([np.load(f"/app/part{{n:02}}.npy") for n in range({_PARTS})])
INDEX = {{int(key): float(value) for key, value in enumerate(VALUES[:20_000])}}
"""
_PROGRAM = """
import dataset

def solve(n):
    return float(dataset.VALUES[n::1000].sum()) + sum(dataset.INDEX.values())
"""
_CANDIDATE = "import dataset\n\ndef solve(n):\n    return float(dataset.VALUES[n::1000].sum()) + {}\n"


def measure(report: Report) -> None:
    """Weigh and time both ways.

    Args:
        report: Where the rows go.
    """
    ran = subprocess.run(
        [sys.executable, "-c", "from measures import datasets; datasets.main()"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    seen = json.loads(ran.stdout)
    report.times("50 MB dataset: load it, in one session", seen["load_s"])
    report.times("50 MB dataset: freeze the session into an image", seen["freeze_s"])
    report.times("50 MB dataset: fork_sandbox of the session", seen["copy_s"])
    report.times(f"50 MB dataset: each of {_FORKS:,} candidates in the frozen image", seen["frozen_s"])
    report.times("50 MB dataset: each candidate that loads it itself", seen["loading_s"])
    for name, samples in (
        ("a session of the frozen image that has read it", seen["frozen_bytes"]),
        ("a session that has loaded it itself", seen["loading_bytes"]),
    ):
        report.add(Row(name=f"50 MB dataset: memory of {name}", samples=samples, unit="MB"))


def main() -> None:
    """Do it in this process, and print what was seen as JSON."""
    seen: dict[str, list[float]] = {}
    config = evocell.Config.load(workers=2, default_max_processes=_FORKS + 100)
    try:
        with evocell.Engine(config) as engine:
            _measure(engine, seen)
    finally:
        cache = ImageCache(config.cache_path())
        if (made := cache.id_of(IMAGE)) is not None:
            cache.remove(made)
    print(json.dumps(seen))


def _measure(engine: evocell.Engine, seen: dict[str, list[float]]) -> None:
    files: dict[str, str | bytes] = {**_parts(), "dataset.py": _DATASET}
    loader = engine.create_sandbox(source={**files, "program.py": _PROGRAM})
    seen["load_s"] = [_timed(partial(_call, loader, 0))]
    seen["freeze_s"] = [_timed(partial(loader.freeze, IMAGE, replace=True))]
    seen["copy_s"] = []
    for _ in range(_COPIES):
        seen["copy_s"].append(_timed(partial(loader.fork, "copy")))
        engine.destroy_sandbox("copy")

    task = evocell.Evaluation("solve", [evocell.Case((3,))], _claimed, image=IMAGE)
    candidates = [_CANDIDATE.format(n) for n in range(_FORKS)]
    begun = time.perf_counter()
    results = engine.evaluate(candidates, task)
    seen["frozen_s"] = [(time.perf_counter() - begun) / _FORKS]
    assert all(result.valid for result in results), results[0].error
    alone = evocell.Evaluation("solve", [evocell.Case((3,))], _claimed)
    sources: list[evocell.Source] = [{**files, "program.py": _CANDIDATE.format(n)} for n in range(_LOADING)]
    begun = time.perf_counter()
    results = engine.evaluate(sources, alone)
    seen["loading_s"] = [(time.perf_counter() - begun) / _LOADING]
    assert all(result.valid for result in results), results[0].error
    seen["frozen_bytes"] = [_weigh(engine, _AWAKE, lambda n: (_CANDIDATE.format(n), IMAGE))]
    seen["loading_bytes"] = [
        _weigh(engine, _AWAKE_LOADING, lambda n: ({**files, "program.py": _CANDIDATE.format(n)}, None))
    ]


def _claimed(_: evocell.Case, value: float) -> float:
    return value


def _weigh(
    engine: evocell.Engine, count: int, make: Callable[[int], tuple[evocell.Source, str | None]]
) -> float:
    """Give sandboxes a session each and say what one of them takes."""
    specs = [evocell.SandboxSpec(source=source, image=image) for source, image in map(make, range(count))]
    before = private_bytes()
    made = engine.batch_create(specs)
    _ready(made)
    taken = (private_bytes() - before) / count
    engine.batch_destroy(made)
    return float(taken)


def _ready(sandboxes: Sequence[evocell.Sandbox]) -> None:
    for sandbox in sandboxes:
        _call(sandbox, 1)


def _call(sandbox: evocell.Sandbox, n: int) -> object:
    return sandbox.run("solve", args=(n,)).unwrap()


def _timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def _parts() -> dict[str, bytes]:
    """50 MB of numbers, in files as large as a tree may hold."""
    random = np.random.default_rng(7)
    found = {}
    for n in range(_PARTS):
        file = io.BytesIO()
        np.save(file, random.random(_PART_VALUES))
        found[f"part{n:02}.npy"] = file.getvalue()
    return found
