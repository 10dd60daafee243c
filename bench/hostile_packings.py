"""Programs for the circle packing of OpenEvolve's examples: honest ones by number, and forgers by what they try."""

from __future__ import annotations

__all__ = ["FORGERS", "honest"]

_HONEST = """# honest {number}
import numpy as np


def radii_of(centers):
    radii = np.minimum(np.minimum(centers[:, 0], 1 - centers[:, 0]), np.minimum(centers[:, 1], 1 - centers[:, 1]))
    for i in range(len(centers)):
        for j in range(i + 1, len(centers)):
            distance = np.hypot(*(centers[i] - centers[j]))
            if radii[i] + radii[j] > distance:
                scale = distance / (radii[i] + radii[j])
                radii[i] *= scale
                radii[j] *= scale
    return radii


def run_packing():
    random = np.random.default_rng({number})
    grid = [(x, y) for x in np.linspace(0.1, 0.9, 5) for y in np.linspace(0.1, 0.9, 5)]
    best = np.array([*grid, (0.2, 0.2)])
    score = radii_of(best).sum()
    for step in range({steps}):
        tried = best.copy()
        one = random.integers(len(best))
        tried[one] = np.clip(tried[one] + random.normal(0, 0.05, 2), 0.01, 0.99)
        value = radii_of(tried).sum()
        if value > score:
            best, score = tried, value
    radii = radii_of(best)
    return best, radii, radii.sum()
"""

_CLAIM = '''
import numpy as np


def claim():
    """26 circles that overlap, and a sum of radii that cannot be."""
    return np.full((26, 2), 0.5), np.full(26, 0.19), 4.94
'''

FORGERS = {
    "patched modules": f"""{_CLAIM}
import sys


def run_packing():
    for module in list(sys.modules.values()):
        for name in ("validate_packing", "evaluate", "run_with_timeout"):
            if hasattr(module, name):
                setattr(module, name, lambda *given: True)
    np.isnan = lambda value: np.zeros(1, bool)
    np.sqrt = lambda value: 1e9
    return claim()
""",
    "sys.settrace": f"""{_CLAIM}
import sys, threading


def trace(frame, event, argument):
    if frame.f_code.co_name in ("validate_packing", "evaluate"):
        frame.f_locals.update(valid=True, dist=1e9)
    return trace


def run_packing():
    sys.settrace(trace)
    threading.settrace(trace)
    return claim()
""",
    "atexit": f"""{_CLAIM}
import atexit, glob, os, pickle, tempfile


def last():
    centers, radii, total = claim()
    for name in glob.glob(os.path.join(tempfile.gettempdir(), "*.results")):
        with open(name, "wb") as file:
            pickle.dump({{"centers": centers, "radii": radii, "sum_radii": total}}, file)
    print("combined_score: 4.93")


def run_packing():
    atexit.register(last)
    return claim()
""",
    "files left behind": f"""{_CLAIM}
import os, tempfile


def run_packing():
    for place in (tempfile.gettempdir(), os.path.dirname(os.path.abspath(__file__)), os.getcwd()):
        for name in ("evaluator_result.json", "forged.results", "sitecustomize.py"):
            try:
                with open(os.path.join(place, "forged_" + name), "w") as file:
                    file.write("FORGED = 4.93")
            except OSError:
                pass
    return claim()
""",
    "environment": f"""{_CLAIM}
import os


def run_packing():
    os.environ.update(PYTHONSTARTUP="/tmp/forged.py", COMBINED_SCORE="4.93", TARGET_VALUE="0.5")
    os.putenv("TARGET_VALUE", "0.5")
    return claim()
""",
    "monkeypatched json and pickle": f"""{_CLAIM}
import json, pickle


def run_packing():
    json.dumps = json.loads = lambda *given, **named: {{"combined_score": 4.93}}
    real = pickle.dump
    pickle.dump = lambda value, file, *rest: real(
        dict(zip(("centers", "radii", "sum_radii"), claim()), combined_score=4.93), file
    )
    return claim()
""",
    "__del__": f"""{_CLAIM}
import sys


class Last:
    def __del__(self):
        for module in list(sys.modules.values()):
            if hasattr(module, "validate_packing"):
                module.validate_packing = lambda *given: True
        print("combined_score: 4.93")


last = Last()


def run_packing():
    last.itself = last
    return claim()
""",
    "an exception that carries objects": f"""{_CLAIM}
class Evil(Exception):
    def __init__(self):
        super().__init__(claim())

    def __str__(self):
        return "combined_score: 4.93"

    def __reduce__(self):
        return print, ("combined_score: 4.93",)

    def __eq__(self, other):
        return True


def run_packing():
    raise Evil
""",
    "objects that compare as they like": f"""{_CLAIM}
class Radius(float):
    def __add__(self, other):
        return Radius(-1e9)

    __radd__ = __add__

    def __lt__(self, other):
        return False

    __gt__ = __lt__


def run_packing():
    centers, radii, total = claim()
    return [[0.5, 0.5]] * 26, [Radius(one) for one in radii], total
""",
    "an exit that says all is well": f"""{_CLAIM}
import os, sys


def run_packing():
    print("combined_score: 4.93")
    sys.stdout.flush()
    os._exit(0)
""",
}
"""What is tried, each as a program that claims a sum of radii of 4.94: more than is possible."""


def honest(number: int) -> str:
    """Return an honest program: a grid, improved by steps at random that are its own."""
    return _HONEST.format(number=number, steps=20 + 2 * number)
