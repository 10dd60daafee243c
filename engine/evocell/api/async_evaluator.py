"""An evaluation as a function of an individual, for loops that have their own idea of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

from evocell.api.async_evaluating import AsyncEvaluating
from evocell.api.options import check_evaluation
from evocell.errors import ConfigurationError
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.references import Completable, Source
from evocell.models.specs import SandboxSpec

__all__ = [
    "AsyncEvaluator",
    "AsyncEvaluators",
    "Call",
    "Finish",
    "Prepare",
    "as_given",
    "bound",
    "objectives",
]

F = TypeVar("F")

Prepare: TypeAlias = Callable[..., Source | SandboxSpec]
"""Makes the code of whatever a loop calls an individual."""

Finish: TypeAlias = Callable[[FitnessResult], F]
"""Makes of a result whatever a loop calls a fitness."""

Call: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments of one call, by place and by name."""


def as_given(individual: Source) -> Source:
    """Take an individual for its own code."""
    return individual


def objectives(result: FitnessResult) -> tuple[float, ...]:
    """Return the objectives in order, as DEAP has them; of an invalid individual, the ``failure``."""
    return result.objectives


def bound(function: Callable[..., Any]) -> tuple[Callable[..., Any], Call]:
    """Take the partials off a function, which is how toolboxes hand theirs over.

    Args:
        function: Any function.

    Returns:
        What is inside, and the arguments that the partials had bound.
    """
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    while isinstance(function, partial):
        args = function.args + args
        kwargs = {**function.keywords, **kwargs}
        function = function.func
    return function, (args, kwargs)


def not_an_evaluator(function: object) -> ConfigurationError:
    """Refuse to map a function that would run outside of any sandbox."""
    name = getattr(function, "__name__", None) or type(function).__name__
    return ConfigurationError(
        f"the map of an evaluator runs evaluators only, and {name!r} is none and wraps none: it would run "
        "outside of the sandbox; register the evaluator itself as the function that evaluates",
        "function",
    )


class AsyncEvaluator(Completable, Generic[F]):
    """An evaluation as an async function of an individual; made by `AsyncEngine.evaluator`.

    Attributes:
        evaluation: What is run of an individual and how it is scored.
        prepare: Makes an individual's source, or a `SandboxSpec` with it, of the arguments of a call.
        finish: Makes of a `FitnessResult` what is returned.
    """

    __slots__ = ("_engine", "evaluation", "finish", "prepare")

    def __init__(
        self, engine: AsyncEvaluating, evaluation: Evaluation, prepare: Prepare, finish: Finish[F]
    ) -> None:
        self.evaluation = check_evaluation(evaluation)
        self.prepare = prepare
        self.finish = finish
        self._engine = engine

    async def __call__(self, *args: Any, **kwargs: Any) -> F:
        """Evaluate one individual.

        Args:
            *args: What ``prepare`` takes; without one, the source alone.
            **kwargs: The same, by name.

        Returns:
            What ``finish`` makes of the result; without one, the tuple of objectives.

        Cancellation: Its calls are stopped.
        """
        result = await self._engine.evaluate_one(
            cast("Source", self.prepare(*args, **kwargs)), self.evaluation
        )
        return self.finish(result)

    async def batch(self, individuals: Iterable[Any]) -> list[F]:
        """Evaluate many individuals side by side.

        Args:
            individuals: Each of them the one argument of ``prepare``.

        Returns:
            What ``finish`` makes of each result, in order.

        Raises:
            ScoringError: A function of the evaluation raised for all of them.

        Cancellation: Every call is stopped.
        """
        return await self._all([((individual,), {}) for individual in individuals])

    async def map(self, function: Callable[..., Awaitable[F]], *iterables: Iterable[Any]) -> list[F]:
        """Do what the built-in ``map`` does for this evaluator, or a partial of it, all at once.

        Raises:
            ConfigurationError: The function is something else.
        """
        return await self.starmap(function, zip(*iterables, strict=False))

    async def starmap(self, function: Callable[..., Awaitable[F]], calls: Iterable[Iterable[Any]]) -> list[F]:
        """Do the same for arguments that are together already, as `itertools.starmap` does."""
        inside, (args, kwargs) = bound(function)
        if not isinstance(inside, AsyncEvaluator):
            raise not_an_evaluator(inside)
        found: list[F] = await inside._all([((*args, *call), kwargs) for call in calls])  # noqa: SLF001 - its own kind
        return found

    async def _all(self, calls: list[Call]) -> list[F]:
        sources = [cast("Source", self.prepare(*args, **kwargs)) for args, kwargs in calls]
        return [self.finish(result) for result in await self._engine.evaluate(sources, self.evaluation)]


class AsyncEvaluators(AsyncEvaluating):
    """The part of `AsyncEngine` that makes functions of evaluations; see there."""

    @overload
    def evaluator(
        self, evaluation: Evaluation, *, prepare: Prepare | None = None, finish: None = None
    ) -> AsyncEvaluator[tuple[float, ...]]: ...

    @overload
    def evaluator(
        self, evaluation: Evaluation, *, prepare: Prepare | None = None, finish: Finish[F]
    ) -> AsyncEvaluator[F]: ...

    def evaluator(
        self,
        evaluation: Evaluation,
        *,
        prepare: Prepare | None = None,
        finish: Finish[Any] | None = None,
    ) -> AsyncEvaluator[Any]:
        """Make an async function of an individual that evaluates it.

        Args:
            evaluation: What to run of an individual and how to score it.
            prepare: Makes an individual's source, or a `SandboxSpec` with it that says who its parents are,
                of the arguments of a call; None takes the individual for its own source.
            finish: Makes of a `FitnessResult` what is returned; None returns its objectives, a tuple.

        Raises:
            ConfigurationError: It is no evaluation.
        """
        return AsyncEvaluator(self, evaluation, prepare or as_given, finish or objectives)
