"""What numpy says of floating-point errors: run natively this writes the expected answers anew, from the expressions there.

python3.13 floating_errors.py, with numpy at the guest's version
"""

import operator
import sys
import warnings

import numpy as np

NAMES = {
    "np": np,
    "inf": np.inf,
    "nan": np.nan,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "itruediv": operator.itruediv,
    "imul": operator.imul,
    "iadd": operator.iadd,
    "isub": operator.isub,
    "f8": lambda *x: np.array(x, "f8"),
    "f4": lambda *x: np.array(x, "f4"),
    "f2": lambda *x: np.array(x, "f2"),
    "c16": lambda *x: np.array(x, "c16"),
    "c8": lambda *x: np.array(x, "c8"),
    "g": lambda *x: np.array(x, "g"),
}


def outcome(code):
    try:
        eval(code, dict(NAMES))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def observe(expression):
    """Warnings by default, what `raise` raises, and what is called for `call`."""
    code = compile(expression, "<expression>", "eval")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain = outcome(code)
        warned = [str(one.message) for one in caught]
        with np.errstate(all="ignore"):
            ignored = outcome(code)
        silent = len(caught) == len(warned) and ignored == plain
    called = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with np.errstate(all="raise"):
            raised = outcome(code)
        with np.errstate(all="call", call=lambda kind, flags: called.append(f"{kind} {flags}")):
            outcome(code)
    parts = [
        f"gives {plain}" if plain != "nothing" else "",
        f"warns {warned}" if warned else "",
        f"raises {raised}" if raised != plain else "",
        f"calls {called}" if called else "",
        "" if silent else "is not silent when ignored",
    ]
    return ", ".join(part for part in parts if part) or "silent"


def observe_all(expressions):
    return [observe(expression) for expression in expressions]


if __name__ == "__main__":
    path = __file__.removesuffix(".py") + ".txt"
    with open(path) as file:
        expressions = [line.rstrip("\n").split("  ==>  ")[0] for line in file]
    with open(path, "w") as file:
        for expression in expressions:
            print(expression, "  ==>  ", observe(expression), sep="", file=file)
    sys.exit()
