"""Evaluate candidates: cases in forks, scores on the host, one's failure no business of the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain, count
from typing import TypeAlias

import trio
from attrs import define, evolve, field, frozen

from evocell.code.compiler import CompiledVersion
from evocell.concurrency import CAPACITY_TIMEOUT_S, map_bounded
from evocell.errors import CapacityError, SandboxNotFound, ScoringError, WorkerDied
from evocell.evaluation.plan import Budget, Plan, on_host
from evocell.evaluation.scoring import (
    Judged,
    Scored,
    destroyed,
    in_order,
    judge,
    should_stop,
    summarise,
    unscored,
)
from evocell.execution.interface import CallJob, CallReport, Worker
from evocell.models.fitness import FitnessResult
from evocell.models.limits import Limits
from evocell.models.outcome import LimitExceeded, Outcome, Rejected, WorkerLost
from evocell.sandboxes.audit_events import report_deadline, report_kill
from evocell.sandboxes.calls import KILLING, deadline_outcome
from evocell.sandboxes.package_images import ChosenImage
from evocell.telemetry.events import Span
from evocell_runtime.warm import BASE

__all__ = [
    "Candidate",
    "LoadCode",
    "Progress",
    "evaluate_all",
    "evaluate_candidate",
    "evaluate_each",
    "note_result",
    "refuse_broken_scoring",
]

Progress = Callable[[FitnessResult, int, int], None]
"""Called with each result as it is there, how many are there now, and how many there will be."""

LoadCode: TypeAlias = Callable[[], Awaitable[CompiledVersion | Rejected]]
"""Makes an individual's code ready."""

_session_numbers = count(1)
_MOST_FORKS = 3
"""How often what a candidate's cases share may be lost with its worker, the last time included."""


@frozen(kw_only=True)
class Candidate:
    """An individual to evaluate.

    Attributes:
        sandbox_id: Its name in the result.
        generation: The generation it belongs to.
        load: Makes its code ready; called once.
        image: The image that it was made with, if it was with one.
        in_use: Entered while it is evaluated. If its sandbox is destroyed, it cancels what is under way and
            raises `SandboxNotFound`.
        security: The security profile of its code, if it is not the engine's.
    """

    sandbox_id: str
    generation: int
    load: LoadCode
    image: ChosenImage | None = None
    in_use: Callable[[], AbstractContextManager[None]] = nullcontext
    security: str | None = None


async def evaluate_all(
    worker: Worker,
    plan: Plan,
    candidates: Sequence[Candidate],
    *,
    done: Callable[[int, FitnessResult], None],
) -> list[FitnessResult]:
    """Evaluate candidates, as many at once as the worker can use.

    Args:
        worker: Where to run them.
        plan: What to run.
        candidates: Whom.
        done: Called with the place and result of each, as it is there.

    Returns:
        Their results, in order. A candidate that fails is an invalid result.

    Raises:
        ScoringError: The caller's own functions raised for every candidate they were asked about.

    Cancellation: Every call is stopped, and there is no result.
    """
    scored = await evaluate_each(worker, plan, candidates, done=done)
    refuse_broken_scoring(scored)
    return [one.result for one in scored]


async def evaluate_each(
    worker: Worker,
    plan: Plan,
    candidates: Sequence[Candidate],
    *,
    budgets: Sequence[Budget] | None = None,
    done: Callable[[int, FitnessResult], None],
) -> list[Scored]:
    """Evaluate candidates as `evaluate_all` does, but leave it open whether the scoring is broken.

    Args:
        worker: Where to run them.
        plan: What to run.
        candidates: Whom.
        budgets: What each may still use, if the evaluation is one of several; None for a fresh one.
        done: Called with the place and result of each, as it is there.
    """

    async def one(index: int) -> Scored:
        budget = None if budgets is None else budgets[index]
        scored = await evaluate_candidate(worker, plan, candidates[index], budget)
        done(index, scored.result)
        return scored

    # One more than there are calls at once, so that none waits while a candidate is compiled or scored.
    return await map_bounded(one, range(len(candidates)), at_once=worker.slots + 1, grows_with=worker)


async def evaluate_candidate(
    worker: Worker, plan: Plan, candidate: Candidate, budget: Budget | None = None
) -> Scored:
    """Evaluate one candidate; it fails by being invalid, never by an exception.

    Args:
        worker: Where to run it.
        plan: What to run.
        candidate: Whom.
        budget: What it may still use, if the evaluation is one of several; None for a fresh one.

    Cancellation: Its calls are stopped, and there is no result.
    """
    about = {"sandbox_id": candidate.sandbox_id, "generation": candidate.generation}
    with plan.observer.telemetry.span("sandbox.evaluate", about) as span:
        try:
            with candidate.in_use():
                scored = await _evaluate(worker, plan, candidate, budget)
        except SandboxNotFound:
            scored = destroyed(
                sandbox_id=candidate.sandbox_id,
                generation=candidate.generation,
                objectives=plan.evaluation.failure_objectives,
                directions=plan.evaluation.directions,
            )
        note_result(span, scored.result)
        plan.watch.look(plan.evaluation, hash(plan.payloads), scored.result)
        return scored


def note_result(span: Span, result: FitnessResult) -> None:
    """Have the span of an evaluation say at its end how it ended."""
    span.note(valid=result.valid, reason=result.reason)
    span.measure(fuel_used=result.fuel_used, peak_memory_bytes=result.peak_memory_bytes)


async def _evaluate(worker: Worker, plan: Plan, candidate: Candidate, budget: Budget | None) -> Scored:
    code: CompiledVersion | Outcome = deadline_outcome(plan.deadline.seconds)
    with plan.deadline.scope():
        try:
            code = await candidate.load()
        except CapacityError as error:
            code = _no_room(error)
        except WorkerDied as error:
            code = WorkerLost(reason=error.message, deterministic=False)
    if not isinstance(code, CompiledVersion):
        return Scored(_without_score(plan, candidate, code))
    image = await plan.choose_image(code, asked=candidate.image)
    candidate = evolve(candidate, image=image)
    started = trio.current_time()
    trail = _CaseResults()
    if budget is not None or plan.one_by_one:
        await _in_turn(worker, plan, candidate, code, trail=trail, budget=budget)
    else:
        await _at_once(worker, plan, candidate, code, trail)
    elapsed_ms = (trio.current_time() - started) * 1000

    def finish() -> Scored:
        return summarise(
            plan.evaluation,
            in_order(trail.judge(plan)),
            sandbox_id=candidate.sandbox_id,
            generation=candidate.generation,
            evaluation_time_ms=elapsed_ms,
            stop_raised=trail.stop_raised,
        )

    scored = await on_host(plan, finish, asks=trail.any_ok and plan.own_functions)
    if scored is None:
        why = deadline_outcome(plan.deadline.seconds)
        scored = Scored(_without_score(plan, candidate, why, trail))
    if trail.n_memoised or image.name != BASE:
        return evolve(scored, result=evolve(scored.result, n_memoised=trail.n_memoised, image=image.name))
    return scored


def refuse_broken_scoring(scored: Sequence[Scored], *, n_all: int | None = None) -> None:
    """Raise if the caller's own functions raised for every candidate they were asked about.

    One candidate among others that never came so far proves nothing: what it returned may have confused the
    function. It takes two, or one that is the whole batch.

    Args:
        scored: The candidates.
        n_all: How many are in the whole batch; None for these.

    Raises:
        ScoringError: Chained from the first exception.
    """
    asked = [one for one in scored if one.asked]
    raised = [one.raised for one in asked if one.raised is not None]
    if not raised or len(raised) < len(asked) or (len(asked) == 1 and (n_all or len(scored)) > 1):
        return
    sentences = tuple(dict.fromkeys(one.result.error or "" for one in asked))
    raise ScoringError(
        f"the scoring failed for every one of {len(asked)} candidates, so it is the scoring that is broken: "
        f"{sentences[0]}",
        sentences,
    ) from raised[0]


@define(eq=False)
class _CaseResults:
    """What a candidate's cases gave so far.

    Attributes:
        outcomes: How each call ended, by the case's place, in the order in which they were run.
        judged: The scores of the first of them; the rest is scored at the end.
        stop_raised: What the stop predicate raised; None if it did not.
        n_memoised: How many of the calls were made before.
    """

    outcomes: dict[int, Outcome] = field(factory=dict)
    judged: list[Judged] = field(factory=list)
    n_memoised: int = 0
    stop_raised: Exception | None = None

    @property
    def any_ok(self) -> bool:
        return any(outcome.ok for outcome in self.outcomes.values())

    def judge(self, plan: Plan) -> list[Judged]:
        """Score what is not scored yet, and return all scores."""
        for index, outcome in list(self.outcomes.items())[len(self.judged) :]:
            self.judged.append(judge(plan.evaluation, index, outcome))
        return self.judged

    def enough(self, plan: Plan) -> bool:
        """Score what is not scored yet, and say whether to stop."""
        stop, self.stop_raised = should_stop(plan.evaluation, self.judge(plan))
        return stop


async def _at_once(
    worker: Worker, plan: Plan, candidate: Candidate, code: CompiledVersion, trail: _CaseResults
) -> None:
    """Run cases that do not depend on each other: the public ones, and when they are scored the hidden ones.

    So nothing that a hidden case does, to a worker or to the deadline, changes what is told of a public one.
    """

    async def one(index: int) -> Outcome:
        report = await _call(worker, plan, candidate, code, index, limits=plan.limits)
        trail.n_memoised += report.memoised
        return report.outcome

    for indices in plan.phases:
        if trail.outcomes and not await _scored_so_far(plan, trail):
            return
        if len(indices) == 1:
            trail.outcomes[indices[0]] = await one(indices[0])
        else:
            found = await map_bounded(one, indices, at_once=worker.slots, grows_with=worker)
            trail.outcomes |= zip(indices, found, strict=True)


async def _scored_so_far(plan: Plan, trail: _CaseResults) -> bool:
    """Score the public cases before the first hidden one is called; False if the deadline passed."""
    asks = trail.any_ok and plan.own_functions
    return await on_host(plan, partial(trail.judge, plan), asks=asks) is not None


async def _in_turn(
    worker: Worker,
    plan: Plan,
    candidate: Candidate,
    code: CompiledVersion,
    *,
    trail: _CaseResults,
    budget: Budget | None,
) -> None:
    """Run cases one after the other, as long as there is reason to go on."""
    shares_fork = plan.evaluation.isolation == "candidate"
    fork = _SharedFork(worker, plan, candidate, code) if shares_fork else None
    if budget is None:
        budget = Budget(plan.limits, plan.evaluation.total_limits)
    budget.enter(plan.limits)
    first_hidden = plan.phases[-1][0]
    try:
        for index in chain.from_iterable(plan.phases):
            public = plan.evaluation.cases[index].public
            if index == first_hidden and trail.outcomes and not await _scored_so_far(plan, trail):
                return
            limits = budget.next_limits(public=public)
            if isinstance(limits, LimitExceeded):
                trail.outcomes[index] = limits
                return
            if fork is None:
                report = await _call(worker, plan, candidate, code, index, limits=limits)
            else:
                report = await fork.call(index, limits)
            trail.n_memoised += report.memoised
            trail.outcomes[index] = budget.spend(report.outcome, limits, public=public)
            if fork is not None and (not report.session_alive or report.outcome.kind in KILLING):
                return
            if plan.evaluation.stop is None:
                continue
            if await on_host(plan, lambda: trail.enough(plan), asks=plan.own_functions) is not False:
                return
    finally:
        if fork is not None:
            await fork.end()


class _SharedFork:
    """The fork in which all cases of a candidate run, one after the other.

    If it is lost with its worker, the cases before are run again in another one, which is then as the first
    one was: the same calls in the same order leave the same state. Their outcomes are known already.
    """

    def __init__(self, worker: Worker, plan: Plan, candidate: Candidate, code: CompiledVersion) -> None:
        self._worker = worker
        self._plan = plan
        self._candidate = candidate
        self._code = code
        self._session = _new_session()
        self._made: list[tuple[int, Limits]] = []

    async def call(self, index: int, limits: Limits) -> CallReport:
        """Run the next case."""
        report = await self._call(index, limits, fresh=not self._made)
        for _ in range(_MOST_FORKS - 1):
            if report is not None and not report.lost:
                break
            await self.end()
            self._session = _new_session()
            report = await self._again(index, limits)
        self._made.append((index, limits))
        if report is None:
            reason = "the worker that held what its cases share is gone, again and again"
            report = CallReport(outcome=WorkerLost(reason=reason, deterministic=False), lost=True)
        return report

    async def end(self) -> None:
        """End it."""
        with trio.CancelScope(shield=True):
            await self._worker.host.end_session(self._session)

    async def _again(self, index: int, limits: Limits) -> CallReport | None:
        for number, (earlier, bounds) in enumerate(self._made):
            report = await self._call(earlier, bounds, fresh=number == 0)
            if report is None or report.lost:
                return report
        return await self._call(index, limits, fresh=not self._made)

    async def _call(self, index: int, limits: Limits, *, fresh: bool) -> CallReport | None:
        """Run a case; None if the fork is a new one and should not be."""
        report = await _call(
            self._worker,
            self._plan,
            self._candidate,
            self._code,
            index,
            limits=limits,
            session=self._session,
        )
        return None if report.session_fresh and not fresh and not report.lost else report


def _new_session() -> str:
    return f"candidate-{next(_session_numbers)}"


async def _call(
    worker: Worker,
    plan: Plan,
    candidate: Candidate,
    code: CompiledVersion,
    index: int,
    *,
    limits: Limits,
    session: str | None = None,
) -> CallReport:
    job = CallJob(
        session=session,
        image=None if candidate.image is None else candidate.image.id,
        code=code,
        entry=plan.evaluation.entry,
        payload=plan.payloads[index],
        seed=plan.seeds[index],
        limits=limits,
        harness=plan.harness,
        sandbox_id=candidate.sandbox_id,
        passing=session is not None,
    )
    began = False
    with plan.deadline.scope():
        async with plan.calls:
            began = True
            try:
                report = await plan.pure.call(
                    job,
                    partial(plan.room.wait_for, partial(worker.call, job)),
                    memoise=plan.memoise,
                    security=candidate.security or plan.security,
                )
            except CapacityError as error:
                report = CallReport(outcome=_no_room(error))
            if not report.memoised:
                report_kill(plan.observer, candidate.sandbox_id, report.outcome, version=code.digest)
            return report
    if began:
        report_deadline(plan.observer, candidate.sandbox_id, plan.deadline.seconds)
    return CallReport(outcome=deadline_outcome(plan.deadline.seconds))


def _no_room(error: CapacityError) -> Outcome:
    """The outcome of a call without room within `CAPACITY_TIMEOUT_S`; it says nothing of the program."""
    return WorkerLost(
        reason=f"out of capacity for {CAPACITY_TIMEOUT_S:g} s: {error.message}", deterministic=False
    )


def _without_score(
    plan: Plan, candidate: Candidate, why: Outcome, trail: _CaseResults | None = None
) -> FitnessResult:
    ran = {} if trail is None else trail.outcomes
    judged = [] if trail is None else list(trail.judged)  # a thread that was left behind may go on
    return unscored(
        plan.evaluation,
        why,
        ran,
        judged,
        sandbox_id=candidate.sandbox_id,
        generation=candidate.generation,
    )
