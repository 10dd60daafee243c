"""The part of `AsyncEngine` that evaluates sources, and measures and compares programs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

import trio
from attrs import evolve

from evocell.api.arguments import (
    Parents,
    SandboxRef,
    check_evaluation,
    check_iterable,
    individual,
    individuals,
    source_list,
)
from evocell.api.lifecycle import EngineLifecycle
from evocell.concurrency import passes_on
from evocell.console.batches import StreamProgress
from evocell.errors import ConfigurationError
from evocell.evaluation.individuals import NewIndividual, Progress
from evocell.evaluation.own_functions import AwaitedScores
from evocell.models.evaluation import Case, Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.limits import Limits
from evocell.models.measurement import Comparison, Measurement
from evocell.models.references import Source
from evocell.models.specs import SandboxSpec
from evocell.models.stages import Stage, StagedResult, check_stages
from evocell.models.tables import Results

__all__ = ["AsyncEvaluating", "RepeatDone"]

REPEATS = 9
"""Default repeats of a measurement; a confidence interval of the time needs at least six."""

RepeatDone: TypeAlias = Callable[[int, int], None]
"""Called with the number of finished evaluations and the total."""


class AsyncEvaluating(EngineLifecycle):
    """The methods of `AsyncEngine` that evaluate, measure and compare sources."""

    async def prepare(self, evaluation: Evaluation, *, packages: Sequence[str] = ()) -> str:
        """Have ready what an evaluation needs before its first program: harness compiled, image built.

        Otherwise the first evaluation waits for it.

        Args:
            evaluation: What will be run.
            packages: Packages that the programs will import, such as ``["scipy"]``.

        Returns:
            What the image is called, as in `FitnessResult.image`, of programs that import them all.

        Raises:
            ConfigurationError: The evaluation cannot be used.
            ImageError: The image cannot be built.

        Cancellation: A build is killed.
        """
        if isinstance(packages, str):
            raise ConfigurationError(f"packages must be a list; write [{packages!r}]", "packages")
        with self._request():
            plan = await self._batches.plan(check_evaluation(evaluation), deadline_s=None)
            if plan.image is not None:
                return plan.image.name
            images, own = self._manager.images, () if plan.harness is None else plan.harness.packages
            return (await images.have(images.name_for([*packages, *own]))).name

    async def evaluate(
        self,
        sources: Sequence[Source],
        evaluation: Evaluation,
        *,
        population: str | None = None,
        generation: int = 0,
        parents: Parents | None = None,
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[FitnessResult]:
        """Evaluate many sources.

        Args:
            sources: Text, files by path, a `Path`, or the bytes of a zip or wheel, each.
            evaluation: What to run of them and how to score it.
            population: Keep them as sandboxes of this population; None keeps only the results.
            generation: The generation they belong to, from 0.
            parents: For each source None, its parent, or a tuple of its parents, which may be destroyed.
            deadline_s: Overall deadline in seconds, including waiting and scoring; sources not evaluated by
                then are invalid with the reason ``"timeout"``.
            progress: Called in the engine's loop with each result, the number of results so far, and the
                total. None shows a bar on a terminal after two seconds, `evocell.silent` nothing.

        Returns:
            One result for each source, in order. A source that fails gives an invalid result, as does one
            whose sandbox is destroyed meanwhile, with the reason ``"destroyed"``.

        Raises:
            ConfigurationError: The evaluation or an argument cannot be used.
            ScoringError: A function of the evaluation raised for every source.
            SandboxNotFound: A parent never existed; nothing has been evaluated.
            CapacityError: The population would exceed its capacity.
            StoreError: The ``state_dir`` cannot be written, for example because the disk is full. Its
                `results` hold the return value; unwritten rows stay in memory and the write is retried.

        Cancellation: Every call is stopped; nothing is kept.
        """
        given = source_list(sources)
        new = individuals(given, population=population, generation=generation, parents=parents)
        with self._request(), self._shown("evaluating", len(new), progress) as report:
            self._check_parents(parents, new)
            plan = await self._batches.plan(check_evaluation(evaluation), deadline_s=deadline_s)
            return Results(await self._batches.new(plan, new, progress=report))

    async def evaluate_stages(
        self,
        sources: Sequence[Source],
        stages: Sequence[Stage],
        *,
        total_limits: Limits | None = None,
        population: str | None = None,
        generation: int = 0,
        parents: Parents | None = None,
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[StagedResult]:
        """Evaluate many sources in stages, of which only the best sources enter the next.

        A stage begins when the one before has ended. Its cases run in fresh forks.

        Args:
            sources: As in `evaluate`.
            stages: The stages: what to run, and which sources advance.
            total_limits: Limits of all calls of one source together, over all stages: fuel, time and output
                used in one stage are not available to the next. None sets none.
            population: Keep all of them as sandboxes of this population, each with the fitness of the last
                stage that it entered.
            generation: As in `evaluate`.
            parents: As in `evaluate`.
            deadline_s: Overall deadline of all stages, in seconds.
            progress: As in `evaluate`; called with the last result of each source when dropped or done.

        Returns:
            The last stage and the results of each source, in order.

        Raises:
            ConfigurationError: A stage or an argument cannot be used.
            ScoringError: A function of a stage raised for every source that entered it.
            CapacityError: The population would have too many sandboxes.
            StoreError: As for `evaluate`.

        Cancellation: Every call is stopped; nothing is kept.
        """
        given = source_list(sources)
        new = individuals(given, population=population, generation=generation, parents=parents)
        checked = check_stages(stages, total_limits)
        with self._request(), self._shown("evaluating in stages", len(new), progress) as report:
            self._check_parents(parents, new)
            return await self._batches.staged(
                checked, new, total_limits=total_limits, deadline_s=deadline_s, progress=report
            )

    async def evaluate_one(
        self,
        source: Source,
        evaluation: Evaluation,
        *,
        population: str | None = None,
        generation: int = 0,
        parents: Sequence[SandboxRef] | SandboxRef | None = None,
        deadline_s: float | None = None,
    ) -> FitnessResult:
        """Evaluate one source; see `evaluate`.

        Args:
            source: The program, as in `evaluate`.
            evaluation: What to run of it and how to score it.
            population: Keep it as a sandbox of this population; None keeps only the result.
            generation: The generation it belongs to, from 0.
            parents: Its parent, or several of them.
            deadline_s: Overall deadline in seconds, as in `evaluate`.

        If a function of the evaluation raises, the result is invalid with the reason ``"score"``: a single
        individual does not tell whether the function or the individual is at fault.
        """
        new = individuals([source], population=population, generation=generation, parents=[parents])
        with self._request():
            self._check_parents(parents, new)
            plan = await self._batches.plan(check_evaluation(evaluation), deadline_s=deadline_s)
            return await self._batches.one(plan, new[0])

    @trio.as_safe_channel
    async def as_completed(
        self,
        sources: Iterable[Source | SandboxSpec],
        evaluation: Evaluation,
        *,
        population: str | None = None,
        generation: int = 0,
        progress: Progress | None = None,
    ) -> AsyncGenerator[tuple[int, FitnessResult], None]:
        """Evaluate sources and yield each result as soon as it arrives, for steady-state loops.

        Use it as ``async with engine.as_completed(...) as results: async for index, result in results: ...``.
        Sources are consumed one at a time, when a slot is free, so that a generator may produce them from
        the results so far. The index is the source's position.

        Args:
            sources: Any iterable, possibly infinite; a `SandboxSpec` with its source states its parents, its
                id, and its mutation type.
            evaluation: What to run of them and how to score it.
            population: Keep them as sandboxes of this population.
            generation: The generation they belong to, from 0.
            progress: Called with each result, the number of results so far, and the number of sources (of
                those consumed so far, if the total is unknown). None shows a bar on a terminal while the
                loop waits for a result, once it has taken two seconds; `evocell.silent` shows nothing.

        Cancellation: Leaving the block stops what is under way.
        """
        check_iterable(sources)
        evaluate = await self.open_stream(evaluation, population=population, generation=generation)
        finished_in, finished_out = trio.open_memory_channel[tuple[int, FitnessResult | BaseException]](0)

        async def one(index: int, source: Source | SandboxSpec) -> None:
            result: FitnessResult | BaseException
            try:
                result = await evaluate(source)
            except BaseException as error:
                if passes_on(error):
                    raise
                result = error  # raised again where the results are consumed
            await finished_in.send((index, result))

        waiting = iter(enumerate(sources))
        stream = StreamProgress(sources, progress, shown=self.shows_batches)
        failure: BaseException | None = None
        n_awaited = AwaitedScores(check_evaluation(evaluation)).most
        async with trio.open_nursery() as nursery:
            n_running = 0
            while True:
                while n_running <= self.slots + n_awaited and (taken := next(waiting, None)) is not None:
                    nursery.start_soon(one, *taken)
                    n_running += 1
                if not n_running:
                    break
                with stream.waiting():
                    index, result = await finished_out.receive()
                n_running -= 1
                if isinstance(result, BaseException):
                    failure = result
                    nursery.cancel_scope.cancel()
                    break
                stream.done(result, n_running=n_running)
                yield index, result
        if failure is not None:
            raise failure

    async def open_stream(
        self, evaluation: Evaluation, *, population: str | None = None, generation: int = 0
    ) -> Callable[[Source | SandboxSpec], Awaitable[FitnessResult]]:
        """Prepare an evaluation once, for a loop that evaluates sources one by one.

        Args:
            evaluation: What to run of them and how to score it.
            population: Keep them as sandboxes of this population.
            generation: The generation they belong to, from 0.

        Returns:
            An async function equivalent to `evaluate_one`; concurrent calls are allowed.

        Raises:
            ConfigurationError: The evaluation cannot be used.
        """
        with self._request():
            plan = await self._batches.plan(check_evaluation(evaluation), deadline_s=None)

        async def evaluate(source: Source | SandboxSpec) -> FitnessResult:
            new = individual(source, population=population, generation=generation)
            with self._request():
                return await self._batches.one(plan, new)

        return evaluate

    def _check_parents(self, given: object, new: Iterable[NewIndividual]) -> None:
        """Refuse parents that never existed; those of a `SandboxSpec` may still be under evaluation."""
        if given is None:
            return
        for one in new:
            for parent in one.spec.parent_ids:
                self._observer.lineage.get(parent)

    async def measure(
        self,
        source: Source,
        evaluation: Evaluation,
        *,
        repeats: int = REPEATS,
        progress: RepeatDone | None = None,
    ) -> Measurement:
        """Measure the cost of a program in fuel, memory and time.

        Args:
            source: The program.
            evaluation: Its cases.
            repeats: Number of evaluations, from 1. Fuel needs one; time is noisy, nine are advisable.
            progress: Called after each evaluation.

        Raises:
            ConfigurationError: The evaluation or the number of repeats cannot be used.
        """
        (measured,) = await self._repeated([source], evaluation, repeats, progress)
        return measured

    async def compare(
        self,
        first: Source,
        second: Source,
        evaluation: Evaluation,
        *,
        repeats: int = REPEATS,
        progress: RepeatDone | None = None,
    ) -> Comparison:
        """Compare the costs of two programs on the same cases.

        They run alternately, one call at a time, and swap the order with each repeat, so that other load of
        the machine affects both alike. Fuel decides without noise, time only where noise cannot explain
        the difference.

        Args:
            first: One program.
            second: The other.
            evaluation: The cases.
            repeats: As in `measure`.
            progress: As in `measure`.

        Raises:
            ConfigurationError: The evaluation or the number of repeats cannot be used.
        """
        return Comparison(*await self._repeated([first, second], evaluation, repeats, progress))

    async def _repeated(
        self, sources: Sequence[Source], evaluation: Evaluation, repeats: int, progress: RepeatDone | None
    ) -> list[Measurement]:
        _check_repeats(repeats)
        new = individuals(list(sources), population=None, generation=0, parents=None)
        found: list[list[FitnessResult]] = [[] for _ in new]
        # Not memoised: a memoised call has no time of its own.
        evaluation = evolve(check_evaluation(evaluation), memoise=False)
        with self._request():
            plan = await self._batches.plan(evaluation, deadline_s=None, calls=1)
            overhead_fuel = await self._overhead_fuel(evaluation)
            for repeat in range(repeats):
                places = range(len(new)) if repeat % 2 == 0 else reversed(range(len(new)))
                for place in places:
                    found[place].append(await self._batches.one(plan, new[place]))
                    if progress is not None:
                        progress(sum(map(len, found)), repeats * len(new))
        return [Measurement.of(results, overhead_fuel=overhead_fuel) for results in found]

    async def _overhead_fuel(self, evaluation: Evaluation) -> int:
        """Measure the fuel of an evaluation's calls to an empty function; 0 for a harness."""
        if evaluation.harness is not None:
            return 0
        bare = evolve(
            evaluation,
            score=_any_value,
            aggregate="mean",
            stop=None,
            directions=("maximize",),
            failure=None,
        )
        plan = await self._batches.plan(bare, deadline_s=None, calls=1)
        (new,) = individuals([_empty_program(evaluation.entry)], population=None, generation=0, parents=None)
        result = await self._batches.one(plan, new)
        return result.fuel_used if result.valid else 0


def _check_repeats(repeats: object) -> None:
    if not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 1:
        raise ConfigurationError(f"repeats must be a whole number from 1, not {repeats!r}", "repeats")


def _any_value(_case: Case, _value: object) -> float:
    return 1.0


def _empty_program(entry: str) -> dict[str, str]:
    """Return the source of a program whose entry takes any arguments and returns at once."""
    module, _, qualname = entry.partition(":")
    *classes, function = qualname.split(".")
    lines = [f"{'    ' * depth}class {name}:" for depth, name in enumerate(classes)]
    indent = "    " * len(classes)
    lines += [f"{indent}@staticmethod"] if classes else []
    lines += [f"{indent}def {function}(*args, **kwargs):", f"{indent}    return None", ""]
    *packages, last = module.split(".")
    files = {"/".join([*packages[: depth + 1], "__init__.py"]): "" for depth in range(len(packages))}
    return {**files, "/".join([*packages, f"{last}.py"]): "\n".join(lines)}
