"""What a cycle of the garbage collector takes over a thousand sandboxes of a generation that is over."""

from __future__ import annotations

import evocell
from measures.report import Report

_DEAD = 1_000
_TARGET_S = 0.1
_HOLDING = 200


def measure(report: Report) -> None:
    """Collect a thousand dead sandboxes, each with code of its own, and two hundred that hold a session.

    Args:
        report: Where the rows go.
    """
    config = evocell.Config.load(gc_retain_generations=1, gc_elites=0, default_max_processes=4 * _DEAD)
    with evocell.Engine(config) as engine:
        engine.next_generation(_population(engine, "same"), _offspring(_DEAD, same=True))
        engine.next_generation("same", _offspring(1, same=True))
        report.times(
            f"garbage collection: {_DEAD:,} dead sandboxes", [_collect(engine, _DEAD)], target_s=_TARGET_S
        )
        engine.next_generation(_population(engine, "own"), _offspring(_DEAD, same=False))
        engine.next_generation("own", _offspring(1, same=True))
        report.times(
            f"garbage collection: {_DEAD:,} dead sandboxes and their {_DEAD:,} version trees",
            [_collect(engine, _DEAD)],
        )
        made = engine.next_generation(_population(engine, "held"), _offspring(_HOLDING, same=True))
        for sandbox in made:
            sandbox.run("f")
        engine.next_generation("held", _offspring(1, same=True))
        report.times(
            f"garbage collection: {_HOLDING:,} dead sandboxes with a session", [_collect(engine, _HOLDING)]
        )


def _population(engine: evocell.Engine, name: str) -> str:
    return engine.create_population(name).id


def _offspring(count: int, *, same: bool) -> list[evocell.Offspring]:
    return [evocell.Offspring(f"def f(): return {0 if same else n}") for n in range(count)]


def _collect(engine: evocell.Engine, expected: int) -> float:
    report = engine.collect_garbage()
    assert len(report.sandboxes) == expected, report
    return report.duration_s
