"""Callable evaluators for DEAP-style toolboxes that map a function over individuals."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar, cast, overload

from evocell.api.arguments import check_evaluation
from evocell.api.async_evaluating import AsyncEvaluating
from evocell.api.blocking import Blocking
from evocell.api.portal import Task, TrioThread
from evocell.errors import ConfigurationError
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.references import Completable, Source
from evocell.models.specs import SandboxSpec

__all__ = [
    "AsyncEvaluator",
    "AsyncEvaluators",
    "Call",
    "Evaluator",
    "Evaluators",
    "Finish",
    "Prepare",
    "as_given",
    "bound",
    "not_an_evaluator",
    "objectives",
]

F = TypeVar("F")

Prepare: TypeAlias = Callable[..., Source | SandboxSpec]
"""Converts a loop's individual to its source."""

Finish: TypeAlias = Callable[[FitnessResult], F]
"""Converts a result to a loop's fitness."""

Call: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one call."""


def as_given(individual: Source) -> Source:
    """Return the individual itself as its source."""
    return individual


def objectives(result: FitnessResult) -> tuple[float, ...]:
    """Return the objectives as a tuple, as in DEAP; for an invalid individual, the ``failure``."""
    return result.objectives


def bound(function: Callable[..., Any]) -> tuple[Callable[..., Any], Call]:
    """Unwrap the partials that toolboxes wrap functions in.

    Args:
        function: Any function.

    Returns:
        The innermost function, and the arguments bound by the partials.
    """
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    while isinstance(function, partial):
        args = function.args + args
        kwargs = {**function.keywords, **kwargs}
        function = function.func
    return function, (args, kwargs)


def not_an_evaluator(function: object) -> ConfigurationError:
    """Return the error for mapping a function that would run outside of any sandbox."""
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
        """Map this evaluator, or a partial of it, over iterables concurrently, like the built-in ``map``.

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
    """The method of `AsyncEngine` that makes evaluators."""

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
        """Make an async function that evaluates an individual.

        Args:
            evaluation: What to run of an individual and how to score it.
            prepare: Makes an individual's source, or a `SandboxSpec` with it that says who its parents are,
                of the arguments of a call; None takes the individual for its own source.
            finish: Makes of a `FitnessResult` what is returned; None returns its objectives, a tuple.

        Raises:
            ConfigurationError: It is no evaluation.
        """
        return AsyncEvaluator(self, evaluation, prepare or as_given, finish or objectives)


class Evaluator(Completable, Generic[F]):
    """An evaluation as a function of an individual; made by `Engine.evaluator`.

    Call it with one individual, or pass it to code that maps functions over many: its `map` and `starmap`
    are suitable for ``toolbox.register("map", ...)`` and the like, and evaluate concurrently. It may be used
    from any thread.

    Attributes:
        evaluation: What is run of an individual and how it is scored.
        prepare: Makes an individual's source, or a `SandboxSpec` with it, of the arguments of a call.
        finish: Makes of a `FitnessResult` what is returned.
    """

    # No __dict__: toolboxes copy a function's into the partials they make of it.
    __slots__ = ("_lock", "_owner", "_stream", "_thread", "evaluation", "finish", "prepare")

    def __init__(
        self, owner: Evaluators, evaluation: Evaluation, prepare: Prepare, finish: Finish[F]
    ) -> None:
        self.evaluation = check_evaluation(evaluation)
        self.prepare = prepare
        self.finish = finish
        self._owner = owner  # an unreferenced engine is closed
        self._thread = owner._thread  # noqa: SLF001 - its engine's
        self._lock = threading.Lock()
        self._stream: Callable[[Source | SandboxSpec], Awaitable[FitnessResult]] | None = None

    def finished_by(self, finish: Finish[Any]) -> Evaluator[Any]:
        """Return an evaluator of the same evaluation and engine with another ``finish``.

        Args:
            finish: Makes of a `FitnessResult` what is returned.
        """
        return Evaluator(self._owner, self.evaluation, self.prepare, finish)

    def __call__(self, *args: Any, **kwargs: Any) -> F:
        """Evaluate one individual.

        Args:
            *args: What ``prepare`` takes; without one, the source alone.
            **kwargs: The same, by name.

        Returns:
            What ``finish`` makes of the result; without one, the tuple of objectives.

        Cancellation: Ctrl-C stops its calls.
        """
        source = self.prepare(*args, **kwargs)
        return self.finish(self._thread.call(partial(self._ready(), source)))

    def submit(self, *args: Any, **kwargs: Any) -> Future[F]:
        """Start the evaluation of one individual and return at once.

        Args:
            *args: As for a call; ``prepare`` is called before this returns.
            **kwargs: The same, by name.

        Returns:
            Resolves to the value or exception of a call. Cancelling it stops the evaluation.
        """
        source = self.prepare(*args, **kwargs)
        return _Pending(self._thread.submit(partial(self._ready(), source)), self.finish)

    def batch(self, individuals: Iterable[Any]) -> list[F]:
        """Evaluate many individuals side by side.

        Args:
            individuals: Each of them the one argument of ``prepare``.

        Returns:
            What ``finish`` makes of each result, in order.

        Raises:
            ScoringError: A function of the evaluation raised for all of them.

        Cancellation: Ctrl-C stops every call.
        """
        return self._all([((individual,), {}) for individual in individuals])

    def map(self, function: Callable[..., F], *iterables: Iterable[Any]) -> list[F]:
        """Map this evaluator over iterables concurrently, like the built-in ``map``.

        Args:
            function: This evaluator, another one, or a partial of one, as toolboxes pass it. A function
                that wraps one (a penalty, say) is called in threads.
            *iterables: The arguments, one iterable for each.

        Raises:
            ConfigurationError: The function wraps no evaluator, so it would run outside of any sandbox.
        """
        return self.starmap(function, zip(*iterables, strict=False))

    def starmap(self, function: Callable[..., F], calls: Iterable[Iterable[Any]]) -> list[F]:
        """Do the same for arguments that are together already, as `itertools.starmap` does."""
        inside, (args, kwargs) = bound(function)
        if isinstance(inside, Evaluator):
            found: list[F] = inside._all([((*args, *call), kwargs) for call in calls])  # noqa: SLF001 - its own kind
            return found
        if not isinstance(bound(inspect.unwrap(inside, stop=_is_partial))[0], Evaluator):
            raise not_an_evaluator(inside)
        with ThreadPoolExecutor(self._thread.resource.slots + 1, "evocell-map") as threads:
            try:
                return [one.result() for one in [threads.submit(function, *call) for call in calls]]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _all(self, calls: list[Call]) -> list[F]:
        sources = [cast("Source", self.prepare(*args, **kwargs)) for args, kwargs in calls]
        evaluate = partial(self._thread.resource.evaluate, sources, self.evaluation)
        return [self.finish(result) for result in self._thread.call(evaluate)]

    def _ready(self) -> Callable[[Source | SandboxSpec], Awaitable[FitnessResult]]:
        with self._lock:
            if self._stream is None:
                self._stream = self._thread.call(partial(self._thread.resource.open_stream, self.evaluation))
            return self._stream

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an evaluator cannot be pickled: its sandboxes belong to this process; it needs no pool of "
            "processes either, register its map instead"
        )


def _is_partial(function: Callable[..., Any]) -> bool:
    return isinstance(function, partial)


class _Pending(Future[F]):
    """The future of one evaluation, which can be cancelled until it is done."""

    def __init__(self, task: Task[FitnessResult], finish: Finish[F]) -> None:
        super().__init__()
        self._task = task
        self._finish = finish
        task.future.add_done_callback(self._settle)

    def cancel(self) -> bool:
        """Stop the evaluation; False if it is done already."""
        cancelled = super().cancel()
        if cancelled:
            self._task.cancel()
        return cancelled

    def _settle(self, done: Future[FitnessResult]) -> None:
        if not self.set_running_or_notify_cancel():
            with suppress(BaseException):  # the future of a cancelled call
                done.result()
            return
        try:
            self.set_result(self._finish(done.result()))
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that waits
            self.set_exception(error)


class Evaluators(Blocking):
    """The methods of `Engine` that make evaluators."""

    _thread: TrioThread[AsyncEvaluating]

    @property
    def slots(self) -> int:
        """Number of concurrent calls; further ones wait."""
        self._thread.check()
        return self._thread.resource.slots

    @overload
    def evaluator(
        self, evaluation: Evaluation, *, prepare: Prepare | None = None, finish: None = None
    ) -> Evaluator[tuple[float, ...]]: ...

    @overload
    def evaluator(
        self, evaluation: Evaluation, *, prepare: Prepare | None = None, finish: Finish[F]
    ) -> Evaluator[F]: ...

    def evaluator(
        self,
        evaluation: Evaluation,
        *,
        prepare: Prepare | None = None,
        finish: Finish[Any] | None = None,
    ) -> Evaluator[Any]:
        """Make a function that evaluates an individual, for an existing evolution loop.

        Args:
            evaluation: What to run of an individual and how to score it.
            prepare: Makes an individual's source, or a `SandboxSpec` with it that says who its parents are,
                of the arguments of a call; None takes the individual for its own source. It runs in the
                caller's thread.
            finish: Makes of a `FitnessResult` what is returned; None returns its objectives, a tuple. After a
                `submit` it runs in the engine's thread, so it should be quick.

        Raises:
            ConfigurationError: It is no evaluation.
        """
        return Evaluator(self, evaluation, prepare or as_given, finish or objectives)
