"""The modules that an image imports by default. It stands alone so that reading it loads nothing."""

DEFAULT_WARM: tuple[str, ...] = (
    "numpy",
    "numpy.linalg",
    "numpy.random",
    "abc",
    "array",
    "bisect",
    "collections",
    "concurrent.futures",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "importlib.util",
    "itertools",
    "json",
    "math",
    "operator",
    "queue",
    "random",
    "re",
    "runpy",
    "selectors",
    "signal",
    "statistics",
    "string",
    "struct",
    "tempfile",
    "time",
    "traceback",
    "typing",
)
"""Modules imported before the freeze, so that a fork need not: numpy and the usual standard library.

Some are there for evaluators that run in the guest: importing them took 140M fuel of each evaluation. They
make the image larger by 1 MB; a call that does not use them costs the same with and without.
"""
