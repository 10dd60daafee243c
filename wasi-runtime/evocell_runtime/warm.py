"""The modules that images import before they are frozen. It stands alone so that reading it loads nothing."""

from collections.abc import Iterable, Mapping

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

Some are included for evaluators that run in the guest: importing them took 140M fuel of each evaluation. They
make the image larger by 1 MB; a call that does not use them costs the same with and without.
"""

_SCIPY = (
    "scipy.cluster.hierarchy",
    "scipy.fft",
    "scipy.integrate",
    "scipy.interpolate",
    "scipy.linalg",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.signal",
    "scipy.sparse.csgraph",
    "scipy.sparse.linalg",
    "scipy.spatial",
    "scipy.spatial.distance",
    "scipy.special",
    "scipy.stats",
)
_SKLEARN = (
    "joblib",
    "sklearn.cluster",
    "sklearn.datasets",
    "sklearn.decomposition",
    "sklearn.ensemble",
    "sklearn.gaussian_process",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.model_selection",
    "sklearn.naive_bayes",
    "sklearn.neighbors",
    "sklearn.neural_network",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
    "sklearn.tree",
)

_ALL = (*_SCIPY, *_SKLEARN, "pandas", "sympy", "networkx", "matplotlib.pyplot", "statsmodels.api", "seaborn")

BASE = "base"
"""What the engine's own image is called, in which nothing but the warm set is imported."""

PACKAGE_IMAGES: Mapping[str, tuple[frozenset[str], tuple[str, ...]]] = {
    "networkx": (frozenset({"networkx"}), ("networkx",)),
    "matplotlib": (frozenset({"matplotlib"}), ("matplotlib.pyplot",)),
    "sympy": (frozenset({"sympy", "mpmath"}), ("sympy",)),
    "pandas": (frozenset({"pandas"}), ("pandas",)),
    "scipy": (frozenset({"scipy"}), _SCIPY),
    "sklearn": (frozenset({"joblib", "scipy", "sklearn"}), (*_SCIPY, *_SKLEARN)),
    "all": (
        frozenset(
            {
                "joblib",
                "matplotlib",
                "mpmath",
                "networkx",
                "pandas",
                "patsy",
                "scipy",
                "seaborn",
                "sklearn",
                "statsmodels",
                "sympy",
            }
        ),
        _ALL,
    ),
}
"""Images with heavy packages: the top-level names that each is for, and what it imports beside the warm set.

The list is closed and in order of size. Code runs in the first that is for all of its heavy packages. What
costs less than 500M fuel to import is not heavy.
"""

HEAVY_PACKAGES = PACKAGE_IMAGES["all"][0]
"""The packages that decide in which image code runs."""


def image_for(packages: Iterable[str]) -> str:
    """Name the image for code that imports some packages; those that are not heavy do not count."""
    wanted = HEAVY_PACKAGES.intersection(packages)
    if not wanted:
        return BASE
    return next(name for name, (held, _) in PACKAGE_IMAGES.items() if wanted <= held)


def warm_modules(image: str) -> tuple[str, ...]:
    """Return what an image of the list imports, in order."""
    return DEFAULT_WARM if image == BASE else (*DEFAULT_WARM, *PACKAGE_IMAGES[image][1])
