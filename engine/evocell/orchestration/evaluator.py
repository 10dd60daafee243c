"""Evaluate candidates: cases in forks, scores on the host, one's failure no business of the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import TypeVar

import trio
from attrs import define, field, frozen

from evocell.code.compiler import CompiledVersion
from evocell.errors import ScoringError
from evocell.execution.worker import CallJob, CallReport, Worker
from evocell.models.fitness import FitnessResult
from evocell.models.limits import Limits
from evocell.models.outcome import LimitExceeded, Outcome, Rejected
from evocell.orchestration.calls import KILLING, deadline_outcome
from evocell.orchestration.concurrency import map_bounded
from evocell.orchestration.plan import Budget, Plan
from evocell.orchestration.scoring import Judged, Scored, judge, should_stop, summarise, unscored

__all__ = ["Candidate", "Progress", "evaluate_all", "evaluate_candidate", "refuse_broken_scoring"]

Progress = Callable[[FitnessResult, int, int], None]
"""Called with each result as it is there, how many are there now, and how many there will be."""

R = TypeVar("R")

_session_numbers = count(1)


@frozen(kw_only=True)
class Candidate:
    """An individual to evaluate.

    Attributes:
        sandbox_id: Its name in the result.
        generation: The generation it belongs to.
        load: Makes its code ready; called once.
    """

    sandbox_id: str
    generation: int
    load: Callable[[], Awaitable[CompiledVersion | Rejected]]


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

    async def one(place: tuple[int, Candidate]) -> Scored:
        index, candidate = place
        scored = await evaluate_candidate(worker, plan, candidate)
        done(index, scored.result)
        return scored

    # One more than there are calls at once, so that none waits while a candidate is compiled or scored.
    at_once = worker.slots + 1
    scored = await map_bounded(one, list(enumerate(candidates)), at_once=at_once)
    refuse_broken_scoring(scored)
    return [one.result for one in scored]


async def evaluate_candidate(worker: Worker, plan: Plan, candidate: Candidate) -> Scored:
    """Evaluate one candidate; it fails by being invalid, never by an exception.

    Cancellation: Its calls are stopped, and there is no result.
    """
    code: CompiledVersion | Rejected | None = None
    with trio.CancelScope(deadline=plan.ends_at):
        code = await candidate.load()
    if not isinstance(code, CompiledVersion):
        why = deadline_outcome(plan.deadline_s) if code is None else code
        return Scored(_without_score(plan, candidate, why))
    started = trio.current_time()
    trail = _Trail()
    if plan.one_by_one:
        await _in_turn(worker, plan, code, trail)
    else:
        trail.outcomes = await _at_once(worker, plan, code)
    elapsed_ms = (trio.current_time() - started) * 1000

    def finish() -> Scored:
        return summarise(
            plan.evaluation,
            trail.judge(plan),
            sandbox_id=candidate.sandbox_id,
            generation=candidate.generation,
            evaluation_time_ms=elapsed_ms,
            stop_raised=trail.stop_raised,
        )

    scored = await _on_host(plan, finish, asks=trail.any_ok)
    if scored is None:
        why = deadline_outcome(plan.deadline_s)
        return Scored(_without_score(plan, candidate, why, trail.outcomes))
    return scored


def refuse_broken_scoring(scored: Sequence[Scored]) -> None:
    """Raise if the caller's own functions raised for every candidate they were asked about.

    One candidate among others that never came so far proves nothing: what it returned may have confused the
    function. It takes two, or one that is the whole batch.

    Raises:
        ScoringError: Chained from the first exception.
    """
    asked = [one for one in scored if one.asked]
    raised = [one.raised for one in asked if one.raised is not None]
    if not raised or len(raised) < len(asked) or (len(asked) == 1 and len(scored) > 1):
        return
    sentences = tuple(dict.fromkeys(one.result.error or "" for one in asked))
    raise ScoringError(
        f"the scoring failed for every one of {len(asked)} candidates, so it is the scoring that is broken: "
        f"{sentences[0]}",
        sentences,
    ) from raised[0]


@define(eq=False)
class _Trail:
    """What a candidate's cases gave so far.

    Attributes:
        outcomes: How each call ended, in order.
        judged: The scores of the first of them; the rest is scored at the end.
        stop_raised: What the stop predicate raised; None if it did not.
    """

    outcomes: list[Outcome] = field(factory=list)
    judged: list[Judged] = field(factory=list)
    stop_raised: Exception | None = None

    @property
    def any_ok(self) -> bool:
        return any(outcome.ok for outcome in self.outcomes)

    def judge(self, plan: Plan) -> list[Judged]:
        """Score what is not scored yet, and return all scores."""
        for index in range(len(self.judged), len(self.outcomes)):
            self.judged.append(judge(plan.evaluation, index, self.outcomes[index]))
        return self.judged

    def enough(self, plan: Plan) -> bool:
        """Score what is not scored yet, and say whether to stop."""
        stop, self.stop_raised = should_stop(plan.evaluation, self.judge(plan))
        return stop


async def _at_once(worker: Worker, plan: Plan, code: CompiledVersion) -> list[Outcome]:
    """Run cases that do not depend on each other."""

    async def one(index: int) -> Outcome:
        report = await _call(worker, plan, code, index, plan.limits)
        return report.outcome

    indices = range(len(plan.payloads))
    if len(indices) == 1:
        return [await one(0)]
    return await map_bounded(one, indices, at_once=worker.slots)


async def _in_turn(worker: Worker, plan: Plan, code: CompiledVersion, trail: _Trail) -> None:
    """Run cases one after the other, as long as there is reason to go on."""
    shares_fork = plan.evaluation.isolation == "candidate"
    session = f"candidate-{next(_session_numbers)}" if shares_fork else None
    budget = Budget(plan.limits, plan.evaluation.total_limits)
    try:
        for index in range(len(plan.payloads)):
            limits = budget.next_limits()
            if isinstance(limits, LimitExceeded):
                trail.outcomes.append(limits)
                return
            report = await _call(worker, plan, code, index, limits, session=session)
            trail.outcomes.append(budget.spend(report.outcome, limits))
            if shares_fork and (not report.session_alive or report.outcome.kind in KILLING):
                return
            if plan.evaluation.stop is None:
                continue
            if await _on_host(plan, lambda: trail.enough(plan), asks=True) is not False:
                return
    finally:
        if session is not None:
            with trio.CancelScope(shield=True):
                await worker.end_session(session)


async def _call(
    worker: Worker,
    plan: Plan,
    code: CompiledVersion,
    index: int,
    limits: Limits,
    *,
    session: str | None = None,
) -> CallReport:
    job = CallJob(
        session=session,
        code=code,
        entry=plan.evaluation.entry,
        payload=plan.payloads[index],
        seed=plan.seeds[index],
        limits=limits,
        harness=plan.harness,
    )
    with trio.CancelScope(deadline=plan.ends_at):
        async with plan.calls:
            return await worker.call(job)
    return CallReport(outcome=deadline_outcome(plan.deadline_s))


async def _on_host(plan: Plan, function: Callable[[], R], *, asks: bool) -> R | None:
    """Run a function that may ask the caller's own ones, which are kept out of the loop.

    Args:
        plan: Whose functions.
        function: What to run.
        asks: Whether it comes to asking any at all.

    Returns:
        What it returned; None if the deadline passed first. The thread is then left to itself.
    """
    if not (asks and plan.own_functions):
        return function()
    with trio.CancelScope(deadline=plan.ends_at):
        return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=plan.scoring)
    return None


def _without_score(
    plan: Plan, candidate: Candidate, why: Outcome, ran: Sequence[Outcome] = ()
) -> FitnessResult:
    return unscored(
        plan.evaluation,
        why,
        ran,
        sandbox_id=candidate.sandbox_id,
        generation=candidate.generation,
    )
