"""FunSearch: an implementation of the sandbox that its published code lacks.

DeepMind's code has a class ``Sandbox`` whose ``run`` raises `NotImplementedError`; forks have a class of the
same interface that they hand to their evaluators. `Sandbox` is a drop-in for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evocell.api.default import GetEngine, default_engine
from evocell.models.evaluation import Case, Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.limits import Limits

__all__ = ["Sandbox"]

# A specification imports it for its decorators; the first function's decorator remains in the program.
_FUNSEARCH = "def run(function): return function\n\n\ndef evolve(function): return function\n"


class Sandbox:
    """Runs a function of a generated program on an input, in a fresh fork each time.

    In DeepMind's code, write ``evaluator.Sandbox = evocell.integrations.funsearch.Sandbox`` before its
    ``main``. In forks, pass it in place of their class or an object of it. It may be used by many threads
    and evaluators at once, and it can be pickled.

    Args:
        *args: Ignored arguments of a fork's own sandbox, such as a directory.
        limits: Limits of a call except its timeout; None for the engine's.
        seed: Seed of the guest's random sources: the same program gives the same value on the same input.
        on_result: Called with the full result of each call, beyond the return value of `run`: its
            ``artifacts()`` have the error, the traceback, the limit and the fuel.
        engine: Returns the engine of the calling process.
        **kwargs: Ignored, as ``args`` are.
    """

    def __init__(
        self,
        *args: Any,
        limits: Limits | None = None,
        seed: int = 0,
        on_result: Callable[[FitnessResult], None] | None = None,
        engine: GetEngine = default_engine,
        **kwargs: Any,
    ) -> None:
        del args, kwargs
        self._limits = limits
        self._seed = seed
        self._on_result = on_result
        self._get_engine = engine

    def run(
        self, program: str, function_to_run: str, test_input: Any, timeout_seconds: float
    ) -> tuple[Any, bool]:
        """Call a function of a program.

        Args:
            program: The whole program's text.
            function_to_run: The name of the function in it.
            test_input: Its one argument: plain data, or a numpy array.
            timeout_seconds: Seconds after which the call is killed. It is also bounded by fuel, which ends
                the same program at the same place on every machine.

        Returns:
            Its value and True; or None and False if it did not return.

        Raises:
            ConfigurationError: The input cannot be encoded, or the name or the timeout is invalid.
        """
        engine = self._get_engine()
        limits = (self._limits or engine.config.limits()).evolve(timeout_s=float(timeout_seconds))
        task = Evaluation(
            function_to_run,
            [Case((test_input,))],
            _any_value,
            harness={"funsearch.py": _FUNSEARCH},
            limits=limits,
            seed=self._seed,
        )
        result = engine.evaluate_one(program, task)
        if self._on_result is not None:
            self._on_result(result)
        return (result.test_results[0].outcome.unwrap(), True) if result.valid else (None, False)


def _any_value(_case: Case, _value: Any) -> float:
    return 1.0
