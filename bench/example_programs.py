"""The programs among the examples of OpenEvolve and ShinkaEvolve that need no graphics processor, with what calls them.

They are not part of this project; `bench/fidelity.py` reads them from checkouts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

CALLING = """
import contextlib, io, random
import numpy
import program
from recorder import recorded

rng = numpy.random.default_rng(7)


def run():
    seen = []
    for name, arguments in {calls!r}:
        random.seed(1)
        numpy.random.seed(1)
        given = eval(arguments)
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                recorded(getattr(program, name), seen)(*given)
            except (Exception, SystemExit):
                pass
    return chr(10).join(seen)
"""

_FOREIGN = ("jax", "mlx", "optax", "torch")
_SYMMETRIC = "(lambda a: ({'A': (a + a.T).tolist()},))(rng.normal(size=(8, 8)))"
_GRIDS = "(numpy.arange(12).reshape(3, 4) % 5,)"
_SPECTRUM = "(rng.normal(size=(8, 8)) + 1j * rng.normal(size=(8, 8)),)"

ARGUMENTS: dict[str, tuple[tuple[str, str], ...]] = {
    "affine_transform_2d": (
        (
            "run_solver",
            "({'image': rng.random((16, 16)).tolist(), 'matrix': [[0.9, -0.1, 1.5], [0.1, 1.1, -2.0]]},)",
        ),
    ),
    "convolve2d_full_fill": (("run_solver", "((rng.normal(size=(16, 16)), rng.normal(size=(5, 5))),)"),),
    "eigenvectors_complex": (("run_solver", "(rng.normal(size=(8, 8)),)"),),
    "fft_cmplx_scipy_fftpack": (("run_solver", _SPECTRUM),),
    "fft_convolution": (
        (
            "run_solver",
            "({'signal_x': rng.normal(size=40).tolist(), 'signal_y': rng.normal(size=9).tolist(), 'mode': 'full'},)",
        ),
    ),
    "lu_factorization": (("run_solver", "({'matrix': rng.normal(size=(8, 8)).tolist()},)"),),
    "polynomial_real": (("run_solver", "([1.0, -6.5, 11.25, -5.0],)"),),
    "psd_cone_projection": (("run_solver", _SYMMETRIC),),
    "arc_benchmark": (("transform_grid_attempt_1", _GRIDS), ("transform_grid_attempt_2", _GRIDS)),
    "background_blur": (("process_sequence", "(rng.random((2, 12, 12, 3)), rng.random((2, 12, 12)), 1.5)"),),
    "sldbench": (("fit_scaling_law", "(rng.random((12, 2)) + 1, rng.random(12))"),),
    "signal_processing": (("run_signal_processing", "(200,)"),),
    "web_scraper_optillm": (
        (
            "scrape_api_docs",
            "('<html><body><h2>f(a, b=1)</h2><p>Adds.</p><dl><dt>g(x)</dt><dd>Doc</dd></dl></body></html>',)",
        ),
        ("extract_parameters", "('f(a, b: int = 1, *args)',)"),
    ),
    "sine_approx_headless": (("approximate", "(0.5,)"), ("approximate", "(-3,)")),
    "novelty_generator": (("run_experiment", "([1, 2, 3],)"),),
    "game_2048": (("run_2048", "()"),),
}
"""By folder: the functions that take arguments, and an expression for these. Of other programs all functions that need
none are called."""


@frozen
class Example:
    """A program with the files beside it and the calls to make."""

    name: str
    files: dict[str, str]


def examples(checkout: Path, names: tuple[str, ...]) -> Iterator[Example]:
    """Programs of the given file names under `examples`, without those that need a graphics processor's libraries.

    Args:
        checkout: A checkout of the repository.
        names: File names, as patterns.
    """
    root = checkout / "examples"
    for path in sorted({path for name in names for path in root.rglob(name)}):
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        if any(name in _FOREIGN for name in _imported(tree)):
            continue
        folder = path.relative_to(root).parts[:-1]
        calls = next((ARGUMENTS[part] for part in folder if part in ARGUMENTS), None) or _without_arguments(
            tree
        )
        if calls:
            beside = {f"{name}.py": path.with_name(f"{name}.py") for name in _imported(tree)}
            files = {name: own.read_text(encoding="utf-8") for name, own in beside.items() if own.exists()}
            driver = CALLING.format(calls=calls)
            yield Example(
                "/".join((*folder, path.stem)), {**files, "program.py": source, "driver.py": driver}
            )


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name.partition(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def _without_arguments(tree: ast.Module) -> tuple[tuple[str, str], ...]:
    """Public functions that can be called with nothing, but for those that draw."""
    return tuple(
        (node.name, "()")
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and len(node.args.args) == len(node.args.defaults)
        and not node.name.startswith(("_", "visual"))
    )
