"""Evaluations through `concurrent.futures` and asyncio, as a program that has them already would do it.

python examples/futures_and_asyncio.py
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, as_completed

import evocell
from evocell.integrations.futures import SandboxExecutor

PROGRAMS = {
    "square": "def f(n): return n * n",
    "double": "def f(n): return 2 * n",
    "an endless loop": "def f(n):\n    while True: pass",
    "a crash": "import os\ndef f(n): os._exit(3)",
}

TASK = evocell.Evaluation(
    "f", [evocell.Case((n,), expected=n * n) for n in range(4)], limits=evocell.Limits(fuel=10**9)
)


def with_futures(pool: Executor, evaluate: evocell.Evaluator[float]) -> dict[str, float]:
    """Submit all programs and take each result as it comes."""
    futures = {pool.submit(evaluate, source): name for name, source in PROGRAMS.items()}
    return {futures[future]: future.result() for future in as_completed(futures)}


async def with_asyncio(pool: Executor, evaluate: evocell.Evaluator[float]) -> dict[str, float]:
    """Await all programs, and give up on one that hangs: its sandbox is stopped, at once."""
    loop = asyncio.get_running_loop()
    scores = await asyncio.gather(
        *(loop.run_in_executor(pool, evaluate, source) for source in PROGRAMS.values())
    )
    hanging = loop.run_in_executor(pool, evaluate, PROGRAMS["an endless loop"])
    try:
        await asyncio.wait_for(hanging, timeout=0.05)
    except TimeoutError:
        print("gave up on the endless loop after 0.05 s")
    return dict(zip(PROGRAMS, scores, strict=True))


def main() -> int:
    """Run the example."""
    with evocell.Engine() as engine, SandboxExecutor() as pool:
        evaluate = engine.evaluator(TASK, finish=lambda result: result.fitness_score)
        from_futures = with_futures(pool, evaluate)
        from_asyncio = asyncio.run(with_asyncio(pool, evaluate))
    for name in PROGRAMS:
        print(f"{name:18} {from_futures[name]:.2f} {from_asyncio[name]:.2f}")
    return 0 if from_futures == from_asyncio and from_futures["square"] == 1.0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
