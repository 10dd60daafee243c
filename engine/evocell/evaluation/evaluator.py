"""Evaluation of candidates: cases run in forks, scores are computed on the host, failures are isolated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, count
from typing import TypeVar

import trio
from attrs import define, evolve, field

from evocell.code.compiler import CompiledVersion
from evocell.concurrency import CAPACITY_TIMEOUT_S, map_bounded
from evocell.errors import CapacityError, SandboxNotFound, ScoringError, WorkerDied
from evocell.evaluation.individuals import Candidate
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
from evocell.models.outcome import LimitExceeded, Outcome, WorkerLost
from evocell.sandboxes.audit_events import report_deadline, report_kill
from evocell.sandboxes.calls import KILLING, deadline_outcome
from evocell.telemetry.events import Span
from evocell_runtime.warm import BASE

__all__ = [
    "evaluate_all",
    "evaluate_candidate",
    "evaluate_each",
    "note_result",
    "refuse_broken_scoring",
]

R = TypeVar("R")

_session_numbers = count(1)
_MOST_FORKS = 3
"""Most losses of a candidate's shared fork with its worker, including the last one."""


async def evaluate_all(
    worker: Worker,
    plan: Plan,
    candidates: Sequence[Candidate],
    *,
    done: Callable[[int, FitnessResult], None],
) -> list[FitnessResult]:
    """Evaluate candidates, with as much concurrency as the worker can use.

    Args:
        worker: The worker.
        plan: The prepared evaluation.
        candidates: The candidates.
        done: Called with the index and result of each, as it arrives.

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
    """Evaluate candidates as `evaluate_all` does, but without the check for broken scoring.

    Args:
        worker: The worker.
        plan: The prepared evaluation.
        candidates: The candidates.
        budgets: The remaining budget of each, if the evaluation is one of several; None for fresh ones.
        done: Called with the index and result of each, as it arrives.
    """

    async def one(index: int) -> Scored:
        budget = None if budgets is None else budgets[index]
        scored = await evaluate_candidate(worker, plan, candidates[index], budget)
        done(index, scored.result)
        return scored

    # One more than there are calls at once if candidates are scored in a thread, and those whose scores are
    # awaited. Otherwise one more would only wait for its turn, at the cost of a task switch a candidate: a
    # worker's slots are more than what it runs at once.
    most = worker.host.slots + plan.own_functions + plan.awaited.most
    return await map_bounded(one, range(len(candidates)), at_once=most, grows_with=worker.host)


async def evaluate_candidate(
    worker: Worker,
    plan: Plan,
    candidate: Candidate,
    budget: Budget | None = None,
    *,
    ran: Sequence[Outcome] | None = None,
) -> Scored:
    """Evaluate one candidate; its failure is an invalid result, never an exception.

    Args:
        worker: The worker.
        plan: The prepared evaluation.
        candidate: The candidate.
        budget: Its remaining budget, if the evaluation is one of several; None for a fresh one.
        ran: How its cases ended, if they have run already; None to run them.

    Cancellation: Its calls are stopped, and there is no result.
    """
    about = {"sandbox_id": candidate.sandbox_id, "generation": candidate.generation}
    with plan.observer.telemetry.span("sandbox.evaluate", about) as span:
        try:
            with candidate.in_use():
                scored = await _evaluate(worker, plan, candidate, budget, ran)
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
    """Add an evaluation's result to its span, which ends next; nothing where nobody listens."""
    if not span.heard:
        return
    span.note(valid=result.valid, reason=result.reason)
    span.measure(fuel_used=result.fuel_used, peak_memory_bytes=result.peak_memory_bytes)


async def _evaluate(
    worker: Worker,
    plan: Plan,
    candidate: Candidate,
    budget: Budget | None,
    ran: Sequence[Outcome] | None,
) -> Scored:
    code: CompiledVersion | Outcome | None = None
    with plan.deadline.scope():
        try:
            code = await candidate.load()
            if plan.by_tree and isinstance(code, CompiledVersion):
                normal = await plan.normal_forms.of(code, profile=candidate.security, limits=plan.limits)
                code = evolve(code, normal=normal)
        except CapacityError as error:
            code = _no_room(error)
        except WorkerDied as error:
            code = WorkerLost(reason=error.message, deterministic=False)
    if not isinstance(code, CompiledVersion):
        why = code or deadline_outcome(plan.deadline.seconds)
        return Scored(_without_score(plan, candidate, why))
    image = await plan.choose_image(code, asked=candidate.image)
    if image.id is not None:
        candidate = evolve(candidate, image=image)
    started = trio.current_time()
    trail = _CaseResults()
    if ran is not None:
        trail.outcomes |= enumerate(ran)
    elif budget is not None or plan.one_by_one:
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

    scored = await _on_host(plan, trail, finish, asks=trail.any_ok and plan.own_functions)
    if scored is None:
        why = deadline_outcome(plan.deadline.seconds)
        scored = Scored(_without_score(plan, candidate, why, trail))
    if trail.n_memoised or image.name != BASE:
        return evolve(scored, result=evolve(scored.result, n_memoised=trail.n_memoised, image=image.name))
    return scored


def refuse_broken_scoring(scored: Sequence[Scored], *, n_all: int | None = None) -> None:
    """Raise if the caller's own functions raised for every candidate they were asked about.

    A single scored candidate in a larger batch proves nothing: its values may have confused the
    function. It takes two, or one that is the whole batch.

    Args:
        scored: The candidates.
        n_all: Size of the whole batch; None for the number of these.

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
    """Results of a candidate's cases so far.

    Attributes:
        outcomes: The outcome of each call by case index, in the order of execution.
        judged: The scores of the first of them; the others are scored at the end.
        stop_raised: The exception of the stop predicate, or None.
        n_memoised: Number of memoised calls.
    """

    outcomes: dict[int, Outcome] = field(factory=dict)
    judged: list[Judged] = field(factory=list)
    n_memoised: int = 0
    stop_raised: Exception | None = None

    @property
    def any_ok(self) -> bool:
        return any(outcome.ok for outcome in self.outcomes.values())

    def judge(self, plan: Plan) -> list[Judged]:
        """Score the unscored cases, and return all scores."""
        for index, outcome in list(self.outcomes.items())[len(self.judged) :]:
            self.judged.append(judge(plan.evaluation, index, outcome))
        return self.judged

    async def await_scores(self, plan: Plan) -> bool:
        """Await the scores of what is not scored yet; False if the deadline passed first."""
        with plan.deadline.scope() as scope:
            left = list(self.outcomes.items())[len(self.judged) :]
            self.judged += await plan.awaited.judge(left)
        return not scope.cancelled_caught

    def enough(self, plan: Plan) -> bool:
        """Score the unscored cases, and return whether to stop."""
        stop, self.stop_raised = should_stop(plan.evaluation, self.judge(plan))
        return stop


async def _on_host(plan: Plan, trail: _CaseResults, function: Callable[[], R], *, asks: bool) -> R | None:
    """Await what an async score says, then run a function that may ask the caller's others: `on_host`."""
    if asks and plan.awaited.wanted and not await trail.await_scores(plan):
        return None
    return await on_host(plan, function, asks=asks)


async def _at_once(
    worker: Worker, plan: Plan, candidate: Candidate, code: CompiledVersion, trail: _CaseResults
) -> None:
    """Run independent cases concurrently: the public ones, and after they are scored the hidden ones.

    So no effect of a hidden case, on a worker or on the deadline, can leak into the result of a public one.
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
            found = await map_bounded(one, indices, at_once=worker.host.slots, grows_with=worker.host)
            trail.outcomes |= zip(indices, found, strict=True)


async def _scored_so_far(plan: Plan, trail: _CaseResults) -> bool:
    """Score the public cases before the first hidden one is called; False if the deadline passed."""
    asks = trail.any_ok and plan.own_functions
    return await _on_host(plan, trail, partial(trail.judge, plan), asks=asks) is not None


async def _in_turn(
    worker: Worker,
    plan: Plan,
    candidate: Candidate,
    code: CompiledVersion,
    *,
    trail: _CaseResults,
    budget: Budget | None,
) -> None:
    """Run cases sequentially until one decides to stop."""
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
            enough = partial(trail.enough, plan)
            if await _on_host(plan, trail, enough, asks=plan.own_functions) is not False:
                return
    finally:
        if fork is not None:
            await fork.end()


class _SharedFork:
    """The fork in which all cases of a candidate run sequentially.

    If it is lost with its worker, the earlier cases are replayed in a new one, which restores the state: the
    same calls in the same order leave the same state. Their outcomes are known already.
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
        """End the fork."""
        with trio.CancelScope(shield=True):
            await self._worker.host.end_session(self._session)

    async def _again(self, index: int, limits: Limits) -> CallReport | None:
        for number, (earlier, bounds) in enumerate(self._made):
            report = await self._call(earlier, bounds, fresh=number == 0)
            if report is None or report.lost:
                return report
        return await self._call(index, limits, fresh=not self._made)

    async def _call(self, index: int, limits: Limits, *, fresh: bool) -> CallReport | None:
        """Run a case; None if the fork turned out to be a new one unexpectedly."""
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
        follow_up=candidate.follow_up,
    )
    began = False
    with plan.deadline.scope():
        async with plan.calls:
            began = True
            try:
                report = await plan.pure.call(
                    job,
                    lambda job: plan.room.wait_for(partial(worker.call, job)),
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
    """Return the outcome of a call without room within `CAPACITY_TIMEOUT_S`; not the program's fault."""
    return WorkerLost(
        reason=f"out of capacity for {CAPACITY_TIMEOUT_S:g} s: {error.message}", deterministic=False
    )


def _without_score(
    plan: Plan, candidate: Candidate, why: Outcome, trail: _CaseResults | None = None
) -> FitnessResult:
    ran = {} if trail is None else trail.outcomes
    judged = [] if trail is None else list(trail.judged)  # an abandoned thread may still change it
    return unscored(
        plan.evaluation,
        why,
        ran,
        judged,
        sandbox_id=candidate.sandbox_id,
        generation=candidate.generation,
    )
