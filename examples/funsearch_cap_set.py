"""FunSearch's cap set in miniature: a specification, bodies for its priority function, and the sandbox.

    python examples/funsearch_cap_set.py

In DeepMind's code the one line to add is ``evaluator.Sandbox = Sandbox``; forks take the class as an
argument. What follows is what their evaluators do: put a body into the specification, run it, keep its score.
"""

from __future__ import annotations

import evocell
from evocell.integrations.funsearch import Sandbox

SPECIFICATION = '''
import itertools
import numpy as np
import funsearch


@funsearch.run
def evaluate(n: int) -> int:
    """Return the size of the cap set that the priorities lead to."""
    vectors = np.array(list(itertools.product((0, 1, 2), repeat=n)), dtype=np.int32)
    powers = 3 ** np.arange(n - 1, -1, -1)
    priorities = np.array([priority(tuple(int(x) for x in vector), n) for vector in vectors], dtype=float)
    capset = np.empty((0, n), dtype=np.int32)
    while np.any(priorities != -np.inf):
        best = int(np.argmax(priorities))
        vector = vectors[best]
        priorities[np.einsum("cn,n->c", (-capset - vector) % 3, powers)] = -np.inf
        priorities[best] = -np.inf
        capset = np.concatenate([capset, vector[None]])
    return len(capset)


@funsearch.evolve
def priority(element: tuple[int, ...], n: int) -> float:
    """Return how early a vector should be added to the set."""
{body}
'''

BODIES = {
    "nothing": "    return 0.0",
    "ones before twos": "    return float(sum(x == 1 for x in element)) - 0.1 * sum(x == 2 for x in element)",
    "few zeros": "    return float(-sum(x == 0 for x in element))",
    "an endless loop": "    while True: pass",
    "a memory bomb": "    return float(len(bytearray(10**9)))",
    "a crash": "    import os; os._exit(1)",
    "a forger": "    import builtins; builtins.len = lambda _: 10**6; return 0.0",
}


def main() -> int:
    """Run the example."""
    failed: list[str] = []
    sandbox = Sandbox(
        limits=evocell.Limits(fuel=3 * 10**9),
        on_result=lambda result: failed.append(result.error or "") if not result.valid else None,
    )
    scores: dict[str, int] = {}
    for name, body in BODIES.items():
        program = SPECIFICATION.replace("{body}", body)
        value, runs_ok = sandbox.run(program, "evaluate", 4, timeout_seconds=30)
        if runs_ok:
            scores[name] = value
        print(f"{name:18} {value if runs_ok else 'failed: ' + failed[-1]}")
    print("A forger's value is as good as its word: FunSearch scores inside of the program. The engine's own")
    print("evaluations score on the host, see docs/guides/funsearch.md.")
    return 0 if len(failed) == 3 and scores["nothing"] > 1 else 1  # noqa: PLR2004 - loop, bomb and crash


if __name__ == "__main__":
    raise SystemExit(main())
