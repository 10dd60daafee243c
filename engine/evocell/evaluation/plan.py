"""Preparation of an evaluation, once for all candidates: payloads, harness, budgets, failure watch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import Literal, TypeVar

from attrs import define, evolve, field, frozen

from evocell.code.compiler import CompiledVersion
from evocell.concurrency import CapacityRetry, Deadline, Turns
from evocell.errors import ConfigurationError
from evocell.evaluation.memo import MemoisingCaller
from evocell.evaluation.own_functions import AwaitedScores, HostThread
from evocell.execution.interface import FollowUpJob
from evocell.models.evaluation import Evaluation, is_async
from evocell.models.fitness import FitnessResult
from evocell.models.limits import Limits
from evocell.models.outcome import LimitExceeded, Outcome, Rejected
from evocell.sandboxes.calls import encode_arguments
from evocell.sandboxes.code_versions import HARNESS_ROOT, Versions, read_source
from evocell.sandboxes.normal_forms import NormalForms
from evocell.sandboxes.package_images import ChosenImage, PackageImages
from evocell.store.observer import Observer

__all__ = ["Budget", "FailureWatch", "Plan", "check_functions", "compile_harness", "encode_cases", "on_host"]

R = TypeVar("R")

MOST_TOLD = 10_000
"""Most evaluations remembered as warned about."""


@frozen(kw_only=True)
class Plan:
    """A prepared evaluation, to be run on any number of candidates.

    Attributes:
        evaluation: The evaluation.
        payloads: The encoded arguments of each case.
        seeds: The seed of each case.
        limits: Limits of each call.
        image: The image that forks start from; None for the sandbox's, or the one that the code asks for.
        images: Has the images that code asks for.
        harness: The compiled harness, if there is one.
        deadline: When everything must be over.
        calls: Bounds the concurrent calls of this evaluation in the worker.
        room: Waits for a worker that has none.
        observer: Where its evaluations are noted.
        pure: Makes its calls, or remembers their outcomes.
        memoise: Whether it may remember, and whether by syntax tree.
        normal_forms: Finds the syntax trees' own texts of programs.
        security: The engine's security profile.
        watch: Warns where a failure counts more than a real score.
        awaited: Awaits an async score function, and bounds how often at once.
        scoring: Runs the caller's functions, one at a time.
    """

    evaluation: Evaluation
    payloads: tuple[bytes, ...] = field(repr=False)
    limits: Limits
    image: ChosenImage | None
    images: PackageImages
    harness: CompiledVersion | None
    deadline: Deadline
    calls: Turns
    room: CapacityRetry
    observer: Observer
    pure: MemoisingCaller
    memoise: bool | Literal["tree"]
    normal_forms: NormalForms
    security: str
    watch: FailureWatch
    seeds: tuple[int, ...] = field(init=False)
    awaited: AwaitedScores = field(init=False)
    scoring: HostThread = field(init=False, factory=HostThread)

    @seeds.default
    def _seed_of_each(self) -> tuple[int, ...]:
        own = self.evaluation.seed
        return tuple(own if case.seed is None else case.seed for case in self.evaluation.cases)

    @awaited.default
    def _awaiting(self) -> AwaitedScores:
        return AwaitedScores(self.evaluation)

    async def choose_image(
        self, *codes: CompiledVersion | None, asked: ChosenImage | None = None
    ) -> ChosenImage:
        """Return the image that calls of some code start from, built if need be; no deadline counts that.

        Args:
            *codes: The code, without the harness.
            asked: The image that the individual was made with; None if it was made with none.

        Raises:
            ImageError: It cannot be built.
        """
        if self.image is not None and (self.image.id is not None or asked is None):
            return self.image
        return asked or await self.images.choose(*codes, self.harness, meanwhile=self.deadline.stopped)

    @cached_property
    def own_functions(self) -> bool:
        """Whether a function of the caller's is involved; it then runs in a thread."""
        evaluation = self.evaluation
        return any(map(callable, (evaluation.score, evaluation.aggregate, evaluation.stop)))

    @cached_property
    def by_tree(self) -> bool:
        """Whether calls are memoised by syntax tree; those of a shared fork are not memoised at all."""
        return self.memoise == "tree" and self.evaluation.isolation == "case"

    @cached_property
    def phases(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the public cases and of the hidden ones; the public ones run first.

        Otherwise a candidate could leak information from a hidden case to a later public one: in a shared
        fork, through the remaining budget, or by its time of stopping.
        """
        public = tuple(index for index, case in enumerate(self.evaluation.cases) if case.public)
        hidden = tuple(index for index, case in enumerate(self.evaluation.cases) if not case.public)
        return tuple(phase for phase in (public, hidden) if phase)

    def follow_up(self) -> FollowUpJob | None:
        """Return an individual's first call, if that may be begun as soon as its code is compiled."""
        asks_first = self.memoise or self.one_by_one or self.limits.processes
        own_image = self.image is not None and self.image.id is not None
        if asks_first or own_image or (self.harness is not None and self.harness.packages):
            return None
        first = self.phases[0][0]
        return FollowUpJob(
            entry=self.evaluation.entry,
            payload=self.payloads[first],
            seed=self.seeds[first],
            limits=self.limits,
            harness=self.harness,
        )

    @cached_property
    def one_by_one(self) -> bool:
        """Whether a candidate's cases depend on the ones before and so must run in turn."""
        evaluation = self.evaluation
        return (
            evaluation.isolation == "candidate"
            or evaluation.stop is not None
            or evaluation.total_limits is not None
        )


def encode_cases(evaluation: Evaluation, limits: Limits) -> tuple[bytes, ...]:
    """Encode the arguments of each case.

    Raises:
        ConfigurationError: A case cannot be encoded.
    """
    payloads = []
    for index, case in enumerate(evaluation.cases):
        name = f"cases[{index}] ({case.name})" if case.name else f"cases[{index}]"
        payloads.append(encode_arguments(case.args, case.kwargs, limits, name))
    return tuple(payloads)


def check_functions(evaluation: Evaluation) -> None:
    """Refuse async functions where they would not be awaited.

    Raises:
        ConfigurationError: One of them is async.
    """
    for role in ("aggregate", "stop"):
        if is_async(getattr(evaluation, role)):
            raise ConfigurationError(
                f"{role} must not be async: it is called in a thread; only score is awaited", role
            )


async def on_host(plan: Plan, function: Callable[[], R], *, asks: bool) -> R | None:
    """Run a function that may call the caller's own ones, which must not run on the loop.

    Args:
        plan: The plan whose functions are called.
        function: The function; it must not return None.
        asks: Whether any of the caller's functions will be called.

    Returns:
        Its value; None if the deadline passed first. The thread is then abandoned.

    Cancellation: The thread is abandoned.
    """
    if not asks:
        return function()
    with plan.deadline.scope():
        return await plan.scoring.run(function)
    return None


async def compile_harness(evaluation: Evaluation, versions: Versions) -> CompiledVersion | None:
    """Compile the harness, if there is one.

    Raises:
        ConfigurationError: It cannot be compiled.
    """
    if evaluation.harness is None:
        return None
    tree = await read_source(evaluation.harness)
    made = await versions.compiled(tree, root=HARNESS_ROOT, trusted=True)
    if isinstance(made, Rejected):
        raise ConfigurationError(f"the harness cannot be compiled: {made.error}", "harness")
    return made


class Budget:
    """A candidate's remaining fuel, time and output under `Evaluation.total_limits`.

    The usage of hidden cases is not deducted from public ones in a later stage, whose results would reveal
    it. So a candidate with hidden cases in one stage and public ones in a later one can use up to twice the
    total.

    Args:
        limits: Limits of each call.
        total: Limits of all calls together; None for none.
    """

    def __init__(self, limits: Limits, total: Limits | None) -> None:
        self._limits = limits
        self._total = total
        self._public = _Spent()
        self._hidden = _Spent()

    def enter(self, limits: Limits) -> None:
        """Enter a stage with other limits per call, keeping the remaining total."""
        self._limits = limits

    def next_limits(self, *, public: bool = True) -> Limits | LimitExceeded:
        """Return the limits of the next call, or the limit that is exhausted.

        Args:
            public: Whether its case may be shown.
        """
        total = self._total
        if total is None:
            return self._limits
        spent = self._spent(public=public)
        fuel = total.fuel - spent.fuel
        timeout_s = total.timeout_s - spent.wall_s
        output_bytes = total.output_bytes - spent.output_bytes
        if fuel <= 0:
            return _spent("fuel", total.fuel, spent.fuel)
        if timeout_s <= 0:
            return _spent("timeout", total.timeout_s, spent.wall_s)
        limits = self._limits
        return limits.evolve(
            fuel=min(fuel, limits.fuel),
            timeout_s=min(timeout_s, limits.timeout_s),
            # Using up the output is no fault: only a call that writes one byte more is stopped.
            output_bytes=max(1, min(output_bytes, limits.output_bytes)),
            memory_bytes=min(total.memory_bytes, limits.memory_bytes),
            payload_bytes=min(total.payload_bytes, limits.payload_bytes),
            payload_items=min(total.payload_items, limits.payload_items),
            payload_depth=min(total.payload_depth, limits.payload_depth),
            open_files=min(total.open_files, limits.open_files),
            scratch_bytes=min(total.scratch_bytes, limits.scratch_bytes),
            scratch_files=min(total.scratch_files, limits.scratch_files),
            scratch_file_bytes=min(total.scratch_file_bytes, limits.scratch_file_bytes),
            scratch_depth=min(total.scratch_depth, limits.scratch_depth),
        )

    def spend(self, outcome: Outcome, given: Limits, *, public: bool = True) -> Outcome:
        """Subtract a call's usage from the budget.

        Args:
            outcome: Its outcome.
            given: Its limits, from `next_limits`.
            public: Whether its case may be shown.

        Returns:
            The outcome; if the total was exhausted, it says so.
        """
        own = self._public if public else self._hidden
        own.add(outcome)
        if self._total is None or not isinstance(outcome, LimitExceeded):
            return outcome
        spent = self._spent(public=public)
        if outcome.kind == "fuel" and given.fuel < self._limits.fuel:
            return _in_total(outcome, self._total.fuel, spent.fuel)
        if outcome.kind == "timeout" and given.timeout_s < self._limits.timeout_s:
            return _in_total(outcome, self._total.timeout_s, spent.wall_s)
        return outcome

    def _spent(self, *, public: bool) -> _Spent:
        return self._public if public else self._public.plus(self._hidden)


@define
class _Spent:
    fuel: int = 0
    wall_s: float = 0.0
    output_bytes: int = 0

    def add(self, outcome: Outcome) -> None:
        self.fuel += outcome.fuel_used
        self.wall_s += outcome.wall_s
        self.output_bytes += len(outcome.stdout.encode("utf-8", "replace"))
        self.output_bytes += len(outcome.stderr.encode("utf-8", "replace"))

    def plus(self, other: _Spent) -> _Spent:
        return _Spent(
            self.fuel + other.fuel, self.wall_s + other.wall_s, self.output_bytes + other.output_bytes
        )


def _in_total(outcome: LimitExceeded, limit: float, reached: float) -> LimitExceeded:
    message = f"the {outcome.kind} of all cases together, {limit:,}, ran out in this case"
    return evolve(outcome, limit=limit, reached=reached, message=message)


def _spent(kind: Literal["fuel", "timeout"], limit: float, reached: float) -> LimitExceeded:
    return LimitExceeded(
        kind,
        limit=limit,
        reached=reached,
        message=f"the {kind} of all cases together, {limit:,}, was used up before this case",
        deterministic=kind == "fuel",
    )


_log = logging.getLogger("evocell")


class FailureWatch:
    """Warns once per evaluation, in the log, of what a caller would want to change.

    That is valid scores that are worse than what a failure counts, and calls that are mostly imports.
    """

    def __init__(self) -> None:
        self._told: set[object] = set()

    def look(self, evaluation: Evaluation, about: int, result: FitnessResult) -> None:
        """Check a result, and warn if a failure would have counted more.

        Args:
            evaluation: The evaluation.
            about: Identifies the evaluation's cases.
            result: The result.
        """
        self._look_at_imports(evaluation.entry, result)
        failure = evaluation.failure_objectives
        self._look(result, failure, evaluation.entry, (about, evaluation.score, evaluation.aggregate))

    def look_at(self, function: str, result: FitnessResult) -> None:
        """Check a result of a custom fitness function, whose failures count 0.0."""
        self._look(result, (0.0,), function, ())

    def _look_at_imports(self, entry: str, result: FitnessResult) -> None:
        for case in result.test_results:
            if case.outcome.import_fuel and (note := case.outcome.imports_note):
                if (entry, "imports") not in self._told:
                    self._told.add((entry, "imports"))
                    _log.warning("%s of %r: %s", entry, result.sandbox_id, note)
                return

    def _look(
        self, result: FitnessResult, failure: tuple[float, ...], entry: str, about: tuple[object, ...]
    ) -> None:
        if not result.valid:
            return
        for score, counted, direction in zip(result.objectives, failure, result.directions, strict=False):
            if score < counted if direction == "maximize" else score > counted:
                break
        else:
            return
        key = (entry, failure, result.directions, *map(_name, about))
        if key in self._told:
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told.add(key)
        _log.warning(
            "%s: the valid score %r of %r is worse than failure=%r, which an individual that fails gets: "
            "where direction is %r it would win. Give a failure that is worse than any real score, and rank "
            "by valid first, as evocell.best and engine.best do",
            entry,
            score,
            result.sandbox_id,
            failure[0] if len(failure) == 1 else failure,
            direction,
        )


def _name(part: object) -> object:
    return getattr(part, "__qualname__", type(part).__qualname__) if callable(part) else part
