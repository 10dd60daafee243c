"""Evolve on two nodes of a Dask cluster, and see that one machine finds the same, to the bit.

    python examples/dask_cluster.py

It needs ``pip install "evocell[dask]"``. On a real cluster, `LocalCluster` becomes `SSHCluster`,
`SLURMCluster` or the address of a scheduler, and nothing else changes.
"""

from __future__ import annotations

import random

from distributed import Client, LocalCluster
from distributed.security import Security

import evocell
from evocell import Case, Evaluation

POINTS = [x / 4 for x in range(-8, 9)]
TASK = Evaluation(
    "predict",
    [Case((POINTS,), expected=[3 * x * x - 2 * x + 1 for x in POINTS])],
    # Runs on this machine; neither it nor the expected values are sent to a node.
    score=lambda case, found: -sum((a - b) ** 2 for a, b in zip(found, case.expected, strict=True)),
    failure=-1e9,
)
GENERATIONS, SIZE = 5, 24


def program(genes: list[float]) -> str:
    """What is evaluated: the text of a polynomial."""
    a, b, c = genes
    return f"def predict(points):\n    return [{a!r} * x * x + {b!r} * x + {c!r} for x in points]\n"


def search(engine: evocell.Engine) -> list[tuple[float, int]]:
    """Evolve polynomials; returns score and fuel of every one that was tried."""
    dice = random.Random(1)
    population = [[dice.uniform(-4, 4) for _ in range(3)] for _ in range(SIZE)]
    seen: list[tuple[float, int]] = []
    for _ in range(GENERATIONS):
        results = engine.evaluate([program(genes) for genes in population], TASK, progress=evocell.silent)
        seen += [(result.fitness_score, result.fuel_used) for result in results]
        order = sorted(range(SIZE), key=lambda index: -results[index].fitness_score)
        parents = [population[index] for index in order[: SIZE // 4]]
        children = SIZE - len(parents)
        population = parents + [
            [x + dice.gauss(0, 0.4) for x in dice.choice(parents)] for _ in range(children)
        ]
    return seen


def main() -> None:
    """Search on two nodes, and again on one machine."""
    try:
        security = Security.temporary()  # Dask's ports run what they are sent: use TLS
    except ImportError:
        security = Security()  # it needs the package cryptography to make certificates
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, security=security, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        evocell.Engine(cluster=client) as engine,
    ):
        on_nodes = search(engine)
        for node in engine.workers():
            print(f"{node.name}: {node.processes} guest process, {node.finished} calls")
    with evocell.Engine() as engine:
        at_home = search(engine)
    print(f"best score {max(on_nodes)[0]:.4f} in {len(on_nodes)} evaluations")
    print("the same scores and fuel on one machine:", on_nodes == at_home)


if __name__ == "__main__":
    main()
