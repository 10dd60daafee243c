"""How far one call of the API walks through the engine: modules, functions, switches from module to module.

    .venv/bin/python bench/walks.py

A walk is what the engine's own code executes in its process for one call: "down" from the front door to the
moment at which a worker's process is first asked, "all" to the answer. A coroutine that is resumed is not
counted again. Nothing is timed.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType

import evocell

ROOT = f"{Path(evocell.__file__).parent}/"
SOURCE = "def f(x):\n    return x + {}\n"
WORKER = "workers/pool", "execution/pool"
"""Where a request leaves for a worker's process, today and before the packages were moved."""


class Recorder:
    """Notes which functions of the engine are called, in every thread that starts after it was made."""

    def __init__(self) -> None:
        self._frames: list[FrameType] = []
        self._active = False
        threading.setprofile(self._seen)
        sys.setprofile(self._seen)

    def _seen(self, frame: FrameType, event: str, _: object) -> None:
        if self._active and event == "call" and frame.f_code.co_filename.startswith(ROOT):
            self._frames.append(frame)

    def walk(self, call: Callable[[], object]) -> list[tuple[str, str]]:
        """Return what was called, as pairs of a module and a function."""
        self._frames, self._active = [], True
        try:
            call()
        finally:
            self._active = False
        steps = []
        for frame in dict.fromkeys(self._frames):
            code = frame.f_code
            module = code.co_filename[len(ROOT) : -3]
            if not code.co_name.startswith("<"):
                steps.append((module, code.co_qualname))
        return steps


def main() -> None:
    """Walk and print one row for each call."""
    recorder = Recorder()
    task = evocell.Evaluation("f", [evocell.Case(args=(1,), expected=3)])
    with evocell.Engine(evocell.Config(workers=1)) as engine:
        fresh = count()
        sandbox = engine.create_sandbox(source=SOURCE.format(next(fresh)))
        walks: dict[str, Callable[[], object]] = {
            "evaluate, one new source": lambda: engine.evaluate([SOURCE.format(next(fresh))], task),
            "create_sandbox": lambda: engine.create_sandbox(source=SOURCE.format(next(fresh))),
            "run in a sandbox": lambda: sandbox.run("f", args=[2]),
            "lineage.ancestors": lambda: engine.lineage.ancestors(sandbox.id),
            "workers()": engine.workers,
        }
        print(f"{'':28}{'modules':>16}{'functions':>16}{'switches':>16}")
        print(f"{'':28}" + f"{'down':>10}{'all':>6}" * 3)
        for name, call in walks.items():
            call()  # what is imported or made at a first call is not counted
            # Pings and readings of the engine's own may fall into a walk, so the shortest of some counts.
            every = min((recorder.walk(call) for _ in range(5)), key=len)
            down = every[: next((n for n, step in enumerate(every) if is_worker(step)), None)]
            numbers = zip(*map(measure, (down, every)), strict=True)
            print(f"{name:28}" + "".join(f"{one:>10}{other:>6}" for one, other in numbers))


def is_worker(step: tuple[str, str]) -> bool:
    """Whether a step asks a worker's process."""
    return step[0] in WORKER and step[1].endswith(".run")


def measure(steps: list[tuple[str, str]]) -> tuple[int, int, int]:
    """Count modules, functions, and switches between modules."""
    modules = [module for module, _ in steps]
    return len(set(modules)), len(set(steps)), sum(map(str.__ne__, modules, modules[1:]))


if __name__ == "__main__":
    main()
