"""Candidates that share a fork, `isolation="batch"`: the same results, and one that dies costs only itself."""

import evocell
from evocell.evaluation.together import GROUP

LIMITS = evocell.Limits(fuel=300_000_000, timeout_s=10)
CASES = [evocell.Case((n,), expected=n * n) for n in (2, 3)]
HARNESS = {"drive.py": "import program\nprogram.two = 2\n\ndef drive(x):\n    return program.f(x)\n"}

SQUARE = "def f(x):\n    return x * x + {}\n"
ODD = {
    "raises": "def f(x):\n    return 1 / (x - x)\n",
    "syntax": "def f(:\n",
    "refused": "import socket\n\ndef f(x):\n    return x\n",
    "nothing": "def g(x):\n    return x\n",
    "of the harness": "def f(x):\n    return x * x * two // 2\n",
    "files": {"program.py": "def f(x):\n    return int(open('/app/data.txt').read())\n", "data.txt": "7"},
    "package": {
        "program.py": "import part\n\ndef f(x):\n    return part.square(x)\n",
        "part.py": "def square(x):\n    return x * x\n",
    },
    "another part": {
        "program.py": "import part\n\ndef f(x):\n    return part.cube(x)\n",
        "part.py": "def cube(x):\n    return x ** 3\n",
    },
    "hides json": {
        "program.py": "import json\n\ndef f(x):\n    return json.HIDDEN\n",
        "json.py": "HIDDEN = 9\n",
    },
    "wants json": "import json\n\ndef f(x):\n    return json.loads('4')\n",
    "unencodable": "def f(x):\n    return object()\n",
    "loose": "import sys\n\ndef f(x):\n    sys.setrecursionlimit(50)\n    return x * x\n",
    "deep": "def f(x):\n    return x * x if x > 300 else f(x + 1)\n",
}
DEADLY = {
    "loops": "def f(x):\n    while True:\n        pass\n",
    "exits": "import os\n\ndef f(x):\n    os._exit(3)\n",
    "fills memory": "def f(x):\n    return len([bytearray(1 << 24) for _ in range(1000)])\n",
    "floods": "def f(x):\n    while True:\n        print('x' * 10000)\n",
    "sleeps": "import time\n\ndef f(x):\n    time.sleep(1e6)\n    return x * x\n",
}


def task(isolation, **more):
    return evocell.Evaluation(
        "drive:drive", CASES, harness=HARNESS, limits=LIMITS, isolation=isolation, failure=-1.0, **more
    )


def told(result):
    outcomes = [(case.outcome.kind, case.passed, case.score) for case in result.test_results]
    return result.valid, result.objectives, result.reason, result.error, outcomes


def test_results_are_those_of_forks_of_their_own(engine):
    sources = [SQUARE.format(n % 3) for n in range(GROUP)] + list(ODD.values())

    alone = engine.evaluate(sources, task("case"))
    shared = engine.evaluate(sources, task("batch"))

    assert [told(one) for one in shared] == [told(one) for one in alone]
    assert sum(one.valid for one in shared) > GROUP


def test_one_that_ends_the_fork_costs_only_itself(engine):
    sources = [SQUARE.format(0), *DEADLY.values(), SQUARE.format(1)]

    alone = engine.evaluate(sources, task("case"))
    shared = engine.evaluate(sources, task("batch"))

    assert [told(one) for one in shared] == [told(one) for one in alone]
    assert [one.objectives for one in (shared[0], shared[-1])] == [(1.0,), (0.0,)]


def test_the_same_batch_takes_the_same_fuel_again(engine):
    sources = [SQUARE.format(n) for n in range(2 * GROUP + 5)]

    first, second = (engine.evaluate(sources, task("batch")) for _ in range(2))
    single = engine.evaluate(sources[:1], task("case"))

    assert [one.fuel_used for one in first] == [one.fuel_used for one in second]
    assert not any(case.outcome.deterministic for one in first for case in one.test_results)
    assert all(0 < one.fuel_used < single[0].fuel_used for one in first)


def test_a_deadline_ends_a_batch(engine):
    endless = evocell.Evaluation(
        "f", CASES, limits=evocell.Limits(fuel=10**14, timeout_s=100), isolation="batch"
    )
    results = engine.evaluate([DEADLY["loops"]] * 3, endless, deadline_s=0.2)

    assert [one.reason for one in results] == ["timeout"] * 3


def test_the_scoring_of_a_batch_is_the_callers(engine):
    def score(case, value):
        if value % 2:
            raise ValueError("odd")
        return float(value)

    shared = evocell.Evaluation("drive:drive", CASES[:1], score, harness=HARNESS, isolation="batch")
    results = engine.evaluate([SQUARE.format(n) for n in range(4)], shared)

    assert [one.fitness_score for one in results] == [4.0, 0.0, 6.0, 0.0]
    assert [one.reason for one in results] == [None, "score", None, "score"]


def test_a_call_of_next_to_nothing_takes_next_to_nothing(engine):
    (result,) = engine.evaluate([SQUARE.format(0)], evocell.Evaluation("f", CASES[:1]))

    assert result.fuel_used < 250_000  # parsing and compiling the text that starts a call took as much again
