"""The public API: creating, calling, reloading and destroying sandboxes, one by one and in batches."""

from __future__ import annotations

import tempfile
from itertools import count

import evocell
from measures.baseline import Baseline
from measures.report import Report, timed
from measures.starting import ready_s

_SOURCE = "def solve(n):\n    return n * n\n"
_SANDBOXES = 300
_RELOADS = 60
_BATCH = 100
_BATCHES = 18
_STARTS = 18
_MODULE_FUNCTIONS = 24
"""Functions of four lines, which with the one that is called make a module of about 100 lines."""

_numbers = count()
"""A number for each round: no two of them may reload the same text."""


def measure(report: Report, baseline: Baseline, engine: evocell.Engine) -> None:
    """Measure the life of a sandbox, reloads and batches.

    Args:
        report: Where the rows go.
        baseline: What they are compared with.
        engine: An engine that has nothing else to do.
    """
    _one_by_one(report, baseline, engine)
    _reloads(report, baseline, engine)
    _batches(report, baseline, engine)
    _starts(report)


def module_of_100_lines(version: int) -> str:
    """Write a module of 100 lines that no other version equals."""
    functions = [
        f"def step_{n}(values):\n    total = sum(values) + {n}\n    return total * {version}\n\n"
        for n in range(_MODULE_FUNCTIONS)
    ]
    return "".join(functions) + "\n\ndef solve(n):\n    return step_0([n])\n"


def _one_by_one(report: Report, baseline: Baseline, engine: evocell.Engine) -> None:
    create_s: list[float] = []
    first_s: list[float] = []
    second_s: list[float] = []
    destroy_s: list[float] = []
    for n in range(report.share(_SANDBOXES)):
        name = f"bench-{n}"
        timed(create_s, engine.create_sandbox, name, source=_SOURCE)
        timed(first_s, engine.run, name, "solve", args=(3,)).unwrap()
        timed(second_s, engine.run, name, "solve", args=(4,)).unwrap()
        timed(destroy_s, engine.destroy_sandbox, name)
    whole_s = [sum(parts) for parts in zip(create_s, first_s, destroy_s, strict=True)]
    call_s = baseline.call_s
    report.times("engine: create_sandbox", create_s, target_s=1e-3, baseline_s=call_s)
    report.times("engine: first call (forks)", first_s, baseline_s=call_s)
    report.times("engine: second call in the session", second_s, baseline_s=call_s)
    report.times("engine: destroy_sandbox", destroy_s, baseline_s=call_s)
    report.times("engine: create + first call + destroy", whole_s, baseline_s=call_s)


def _reloads(report: Report, baseline: Baseline, engine: evocell.Engine) -> None:
    first_number = next(_numbers) * _RELOADS
    texts = [module_of_100_lines(first_number + n) for n in range(report.share(_RELOADS))]
    new_s: list[float] = []
    cached_s: list[float] = []
    first_s: list[float] = []
    engine.create_sandbox("reloaded", source=_SOURCE)
    for text in texts:
        timed(new_s, engine.hot_reload_source, "reloaded", text).unwrap()
    for text in texts:
        timed(cached_s, engine.hot_reload_source, "reloaded", text).unwrap()
        timed(first_s, engine.run, "reloaded", "solve", args=(3,)).unwrap()
    engine.destroy_sandbox("reloaded")
    call_s = baseline.call_s
    report.times("engine: hot reload of 100 lines, new", new_s, target_s=10e-3, baseline_s=call_s)
    report.times("engine: hot reload of 100 lines, cached", cached_s, target_s=3e-3, baseline_s=call_s)
    report.times("engine: first call after a reload", first_s, baseline_s=call_s)


def _batches(report: Report, baseline: Baseline, engine: evocell.Engine) -> None:
    task = evocell.Evaluation("solve", [evocell.Case(args=(3,), expected=9)])
    specs = [evocell.SandboxSpec(source=_SOURCE) for _ in range(_BATCH)]
    create_s: list[float] = []
    evaluate_s: list[float] = []
    destroy_s: list[float] = []
    for _ in range(report.share(_BATCHES)):
        made = timed(create_s, engine.batch_create, specs)
        results = timed(evaluate_s, engine.batch_evaluate, made, task)
        timed(destroy_s, engine.batch_destroy, made)
        assert all(result.valid for result in results), results
    call_s = baseline.call_s
    report.times(f"engine: batch_create {_BATCH}", create_s, target_s=60e-3, baseline_s=call_s, each=_BATCH)
    report.times(
        f"engine: batch_evaluate {_BATCH}, trivial",
        evaluate_s,
        target_s=200e-3,
        baseline_s=call_s,
        each=_BATCH,
    )
    report.times(f"engine: batch_destroy {_BATCH}", destroy_s, baseline_s=call_s, each=_BATCH)


def _starts(report: Report) -> None:
    whole_s: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        # Byte code of its own, whatever the surroundings say: the first start writes it, the others count.
        environment = {"PYTHONPYCACHEPREFIX": directory, "PYTHONDONTWRITEBYTECODE": ""}
        ready_s(environment)
        taken_s = [timed(whole_s, ready_s, environment) for _ in range(report.share(_STARTS))]
    report.times("engine: ready, image in the cache, fresh process", taken_s, target_s=0.3)
    report.times("engine: whole such process, import evocell included", whole_s)
