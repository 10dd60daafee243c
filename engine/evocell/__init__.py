"""Runs evolved, untrusted Python in WebAssembly sandboxes: hard limits, reproducible fitness, fast forks.

>>> import evocell
>>> task = evocell.Evaluation("solve", cases=[evocell.Case(args=(3,), expected=9)])
>>> with evocell.Engine() as engine:  # doctest: +SKIP
...     engine.evaluate_one("def solve(n): return n * n", task).fitness_score
1.0
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evocell._public import *  # noqa: F403

    __version__: str


def __getattr__(name: str) -> Any:
    # Worker processes import parts of this package, and start in half the time without the others.
    if name == "__version__":
        return _version()
    if name == "plot":
        return import_module("evocell.plot")  # not part of the engine: needed for plots only
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    public = import_module("evocell._public")
    if name == "__all__":
        return public.__all__
    globals().update({each: getattr(public, each) for each in public.__all__})
    try:
        return globals()[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    special = {name for name in globals() if name.startswith("__")}
    return sorted({"__version__", *special, *__getattr__("__all__")})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - seldom asked for

    try:
        return version("evocell")
    except PackageNotFoundError:
        return "0+unknown"  # run from an uninstalled checkout
