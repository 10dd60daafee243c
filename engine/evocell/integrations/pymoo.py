"""pymoo: problems whose individuals are, or are converted to, programs that run in sandboxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from evocell.api.engine import Engine
from evocell.api.evaluator import Evaluator
from evocell.errors import ConfigurationError
from evocell.models.fitness import FitnessResult

try:
    from pymoo.core.problem import Problem
except ImportError as missing:  # pragma: no cover - the tests have it
    raise ImportError(
        "evocell.integrations.pymoo needs pymoo; install it with: pip install 'evocell[pymoo]'"
    ) from missing

__all__ = ["SandboxProblem", "SandboxRunner"]

VIOLATION = 1e30
"""Constraint violation of an individual that failed."""


class SandboxProblem(Problem):  # type: ignore[misc]  # pymoo has no types
    """A problem that evaluates a generation of individuals at a time with one evaluator.

    pymoo minimises; maximised objectives are negated. An individual that
    fails has the evaluation's ``failure``, which must be worse than any real value.

    Args:
        evaluator: Made by `Engine.evaluator`; its ``prepare`` gets one row of variables (or one object, with
            pymoo's mixed and custom variables), and its ``finish`` must return the objectives, as the
            default does.
        ieq_constr: Names of parts of the score that must not be above 0, pymoo's ``G``; an individual is
            feasible if none is.
        eq_constr: Names of parts of the score that must be 0, pymoo's ``H``.
        **settings: As for pymoo's ``Problem``: ``n_var``, ``xl``, ``xu``, ``vars`` and so on. ``n_obj`` is
            the evaluation's, ``n_ieq_constr`` and ``n_eq_constr`` are the numbers of those names.

    Raises:
        ConfigurationError: The settings contradict the evaluation.
    """

    def __init__(
        self,
        evaluator: Evaluator[Any],
        *,
        ieq_constr: Sequence[str] = (),
        eq_constr: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        directions = evaluator.evaluation.directions
        if settings.setdefault("n_obj", len(directions)) != len(directions):
            raise ConfigurationError(
                f"n_obj is {settings['n_obj']}, but the evaluation has {len(directions)} directions", "n_obj"
            )
        for key, names in (("n_ieq_constr", ieq_constr), ("n_eq_constr", eq_constr)):
            if settings.setdefault(key, len(names)) != len(names):
                raise ConfigurationError(
                    f"{key} is {settings[key]}, but {key[2:]} names {len(names)} parts of the score; name "
                    "the parts that are constraints, and leave the number out",
                    key,
                )
        if settings.get("elementwise"):
            raise ConfigurationError(
                "a SandboxProblem evaluates a generation at once; leave elementwise out", "elementwise"
            )
        super().__init__(**settings)
        self.evaluator = evaluator.finished_by(_itself) if ieq_constr or eq_constr else evaluator
        self._constraints = {"G": tuple(ieq_constr), "H": tuple(eq_constr)}
        self._signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])

    def _evaluate(self, x: Sequence[Any], out: dict[str, Any], *_args: Any, **_kwargs: Any) -> None:
        found = self.evaluator.batch(list(x))
        for key, names in self._constraints.items():
            if names:
                out[key] = np.array([_parts(result, names) for result in found], dtype=float)
        if any(self._constraints.values()):
            found = [result.objectives for result in found]
        out["F"] = np.array(found, dtype=float).reshape(len(x), self.n_obj) * self._signs

    def __deepcopy__(self, _memo: dict[int, Any]) -> SandboxProblem:
        """Return itself: algorithms copy their problem, and an engine cannot be copied."""
        return self


def _itself(result: FitnessResult) -> FitnessResult:
    return result


def _parts(result: FitnessResult, names: Sequence[str]) -> list[float]:
    """Return the values of an individual's constraints; a failed one violates all of them.

    Raises:
        ConfigurationError: The score has no such part.
    """
    if not result.valid:
        return [VIOLATION] * len(names)
    missing = [name for name in names if name not in result.components]
    if missing:
        raise ConfigurationError(
            f"the score has no part named {missing[0]!r}; it has "
            f"{', '.join(result.components) or 'no named parts'}",
            "ieq_constr",
        )
    return [float(result.components[name]) for name in names]


class SandboxRunner:
    """Runs a custom elementwise problem in threads, so that its sandboxes run concurrently.

    For a problem whose ``_evaluate`` uses an engine in any way:
    ``MyProblem(elementwise_runner=SandboxRunner(engine))``.

    Args:
        engine: The engine; determines the number of concurrent evaluations.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, f: Callable[[Any], dict[str, Any]], X: Sequence[Any]) -> list[dict[str, Any]]:  # noqa: N803 - pymoo's name
        """Call the function for each individual, in order."""
        with ThreadPoolExecutor(self._engine.slots + 1, "evocell-pymoo") as threads:
            return list(threads.map(f, X))

    def __deepcopy__(self, _memo: dict[int, Any]) -> SandboxRunner:
        """Return itself, as `SandboxProblem` does."""
        return self
