"""OpenEvolve and DEAP with and without evocell: speed, and what three hostile programs do in either.

    python bench/frameworks.py [--evaluations 60]

Each figure comes from a process of its own, because without a sandbox some of them do not end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from attrs import evolve
from deap import base, gp
from openevolve.config import EvaluatorConfig
from openevolve.evaluator import Evaluator
from rich.console import Console
from rich.table import Table

import evocell

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path[:0] = [str(EXAMPLES), str(EXAMPLES / "openevolve_tours")]

from model import ENDLESS_LOOP, ENVIRON_READER, MEMORY_BOMB, NEAREST  # noqa: E402 - the same

import deap_regression  # noqa: E402 - an example, beside this directory

SECRET = "the-secret-of-the-host"
TIMEOUT_S = 2
PATIENCE_S = 8.0
ROOM_BYTES = 4 << 30

EVALUATORS = {
    "before": "plain_evaluator.py",
    "after": "sandboxed_evaluator.py",
    "after, scored on the host": "evaluator.py",
}
DEAP_BATCH = "after, in batches"
HOSTILE = {"endless loop": ENDLESS_LOOP, "memory bomb": MEMORY_BOMB, "os.environ reader": ENVIRON_READER}


def openevolve_speed(how: str, n: int) -> dict[str, Any]:
    """Evaluate different programs with OpenEvolve's own evaluator; return how many per second."""
    driver = _driver(how)
    programs = [(f"{NEAREST}\n# {i}\n", str(i)) for i in range(n)]

    async def run() -> float:
        await driver.evaluate_multiple(programs[:2])
        started = time.perf_counter()
        found = await driver.evaluate_multiple(programs)
        assert all(metrics["combined_score"] > 0.5 for metrics in found), found[0]
        return n / (time.perf_counter() - started)

    return {"per_second": asyncio.run(run())}


def openevolve_hostile(how: str, name: str) -> dict[str, Any]:
    """Evaluate one hostile program, and look at this process afterwards."""
    driver = _driver(how)

    async def run() -> dict[str, Any]:
        started = time.perf_counter()
        metrics = await driver.evaluate_program(HOSTILE[name], "it")
        seconds = time.perf_counter() - started
        artifacts = driver.get_pending_artifacts("it") or {}
        found = _aftermath(seconds, f"{metrics} {artifacts}")
        print("\n" + json.dumps(found), flush=True)  # now: asyncio waits for threads that may never end
        return found

    return asyncio.run(run())


def _driver(how: str) -> Evaluator:
    settings = {
        "cascade_evaluation": False,
        "timeout": TIMEOUT_S,
        "max_retries": 0,
        "parallel_evaluations": 2,
    }
    return Evaluator(EvaluatorConfig(**settings), str(EXAMPLES / "openevolve_tours" / EVALUATORS[how]))


def deap_speed(how: str, n: int) -> dict[str, Any]:
    """Evaluate random trees with DEAP's toolbox; return how many per second."""
    random.seed(1)
    with evocell.Engine() as engine:
        task = evolve(deap_regression.TASK, isolation="batch" if how == DEAP_BATCH else "case")
        box = deap_regression.toolbox(engine, task)
        if how == "before":
            box.register("map", map)
            box.register("evaluate", _in_process, primitives=deap_regression.primitives())
        trees = box.population(n=n)
        list(box.map(box.evaluate, trees[:4]))
        started = time.perf_counter()
        list(box.map(box.evaluate, trees))
        return {"per_second": n / (time.perf_counter() - started)}


def _in_process(tree: gp.PrimitiveTree, primitives: gp.PrimitiveSet) -> tuple[float]:
    """Evaluate a tree as DEAP's own examples do."""
    function = gp.compile(tree, primitives)
    try:
        return (deap_regression.squared_error(evocell.Case(), [function(x) for x in deap_regression.POINTS]),)
    except ZeroDivisionError:
        return (1e12,)


def deap_hostile(how: str, name: str) -> dict[str, Any]:
    """Evaluate one individual that is a program with DEAP's toolbox, and look at this process afterwards."""
    with evocell.Engine() as engine:
        task = evocell.Evaluation(
            "tour",
            [evocell.Case(([(0.0, 0.0)],))],
            lambda _, value: float(len(value)),
            limits=evocell.Limits(fuel=2 * 10**9),
            directions=("minimize",),
            failure=1e12,
            isolation="batch" if how == DEAP_BATCH else "case",
        )
        errors: list[str] = []

        def finish(result: evocell.FitnessResult) -> tuple[float, ...]:
            errors.append(result.error or "")
            return result.objectives

        evaluator = engine.evaluator(task, finish=finish)
        box = base.Toolbox()
        box.register("map", map if how == "before" else evaluator.map)
        box.register("evaluate", _executed if how == "before" else evaluator)
        started = time.perf_counter()
        try:
            found = str(list(box.map(box.evaluate, [HOSTILE[name]])))
        except Exception as error:  # noqa: BLE001 - what came out of the individual
            found = f"{type(error).__name__}: {error}"
        return _aftermath(time.perf_counter() - started, f"{found} {errors}")


def _executed(program: str) -> tuple[float]:
    names: dict[str, Any] = {}
    exec(program, names)
    return (float(len(names["tour"]([(0.0, 0.0)]))),)


def _aftermath(seconds: float, said: str) -> dict[str, Any]:
    """Say how long it took, what is still running, and how much memory this process had at most."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    before = sum(sum(process.cpu_times()[:2]) for process in family)
    time.sleep(1)
    busy = sum(sum(process.cpu_times()[:2]) for process in family) - before
    return {
        "seconds": seconds,
        "busy": busy,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "secret": SECRET in said,
        "said": said[:300],
    }


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "openevolve_speed": openevolve_speed,
    "openevolve_hostile": openevolve_hostile,
    "deap_speed": deap_speed,
    "deap_hostile": deap_hostile,
}


def child(job: str, how: str, what: str) -> None:
    """Do one job and print what it found."""
    if how == "before":  # or the memory bomb would take the machine's; sandboxes reserve more than they use
        resource.setrlimit(resource.RLIMIT_AS, (ROOM_BYTES, ROOM_BYTES))
    found = JOBS[job](how, int(what) if what.isdigit() else what)
    print("\n" + json.dumps(found), flush=True)
    sys.exit(0)


def measure(job: str, how: str, what: str) -> dict[str, Any] | None:
    """Do one job in a process of its own; None if it does not end."""
    environ = {**os.environ, "OPENAI_API_KEY": SECRET, "EVOCELL_DEFAULT_MAX_FUEL": str(2 * 10**9)}
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--child", job, how, what],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE_S if "hostile" in job else 120,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        out = (expired.stdout or b"").decode()
        return {**json.loads(out.splitlines()[-1]), "hangs": True} if out.strip().endswith("}") else None
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {"died": done.returncode}


def said(name: str, found: dict[str, Any] | None) -> str:
    """Put what a hostile program did into words."""
    if found is None:
        return f"does not return (killed after {PATIENCE_S:.0f} s)"
    if "died" in found:
        return f"the process died ({found['died']})"
    words = [f"result after {found['seconds']:.1f} s"]
    if found.get("hangs"):
        words.append("but the process does not end")
    if found["busy"] > 0.3:
        words.append(f"still {found['busy']:.0%} of a core")
    if name == "memory bomb":
        words.append(f"this process had {found['peak_bytes'] / 2**30:.2f} GiB")
    if name == "os.environ reader":
        words.append("has the host's keys" if found["secret"] else "sees nothing of the host")
    return ", ".join(words)


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evaluations", type=int, default=60, help="for the speed")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
    console = Console()
    for framework, hows in (("openevolve", list(EVALUATORS)), ("deap", ["before", "after", DEAP_BATCH])):
        table = Table(framework, *hows)
        for how in hows:
            measure(f"{framework}_speed", how, "2")  # caches
        speeds = [measure(f"{framework}_speed", how, str(given.evaluations)) for how in hows]
        table.add_row(
            "evaluations per second", *(f"{found['per_second']:.0f}" if found else "-" for found in speeds)
        )
        for name in HOSTILE:
            table.add_row(name, *(said(name, measure(f"{framework}_hostile", how, name)) for how in hows))
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
