"""Head-to-head comparison of two versions, loaded side by side in one sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain, count, islice

import trio
from attrs import define, evolve, field

from evocell.code.compiler import CompiledVersion
from evocell.code.sources import FileTree
from evocell.concurrency import map_bounded
from evocell.errors import CapacityError, ConfigurationError
from evocell.evaluation.difference import difference
from evocell.evaluation.plan import Plan, on_host
from evocell.evaluation.scoring import Judged, in_order, judge, summarise, unscored
from evocell.execution.interface import CallJob, CallReport, Worker
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.measurement import Duel, HeadToHead, Side
from evocell.models.outcome import Outcome, Rejected, WorkerLost
from evocell.sandboxes.calls import KILLING, deadline_outcome
from evocell.sandboxes.code_versions import Versions
from evocell.sandboxes.package_images import ChosenImage
from evocell_guest.values import encode

__all__ = ["PREFIXES", "SIDES", "check_duel", "head_to_head"]

SIDES = ("first", "second")
PREFIXES = ("first_", "second_")
"""Prefixes of the names of the two versions' modules in the guest."""

_NO_ARGUMENTS = encode([[], {}])
_numbers = count(1)


def check_duel(evaluation: Evaluation) -> None:
    """Refuse an evaluation that two versions in one guest cannot share.

    Raises:
        ConfigurationError: It has a harness, a stop predicate or total limits.
    """
    for name in ("harness", "stop", "total_limits"):
        if getattr(evaluation, name) is not None:
            raise ConfigurationError(
                f"an evaluation with {name} is for one version at a time; leave {name} out, or evaluate both",
                name,
            )


async def head_to_head(
    worker: Worker, versions: Versions, plan: Plan, trees: Sequence[FileTree]
) -> HeadToHead:
    """Run two versions on the same cases, in the same guests.

    Each case has a fork (with ``isolation="candidate"`` all cases share one) into which both are loaded,
    under prefixed names, before either is called; they alternate in being called first. If one has to be
    killed, the fork ends with it, and the other is called in a new one.

    Args:
        worker: The worker.
        versions: Compiles them.
        plan: The evaluation.
        trees: The first version and the second.

    Raises:
        StoreError: The snapshot store cannot be used.
        CapacityError: There is no room for a fork.

    Cancellation: Every call is stopped, and there is no result.
    """
    if plan.evaluation.isolation == "batch":
        raise ConfigurationError(
            'isolation="batch" is for many candidates of one evaluate; two that meet share a fork as it is',
            "isolation",
        )
    code = await versions.side_by_side(dict(zip(PREFIXES, trees, strict=True)), limits=plan.limits)
    if isinstance(code, Rejected):
        return await _rejected(versions, plan, trees, code)
    image = await plan.choose_image(code)
    score = _Score(plan.evaluation, image.name)
    shared = _Ring(worker, plan, code, image) if plan.evaluation.isolation == "candidate" else None
    turns = enumerate(chain.from_iterable(plan.phases))
    try:
        for phase in plan.phases:
            now = list(islice(turns, len(phase)))
            if shared is None:
                each = partial(_in_own_fork, worker, plan, code, image)
                found = await map_bounded(each, now, at_once=worker.host.slots, grows_with=worker.host)
            else:
                found = [await shared.duel(turn) for turn in now]
            score.outcomes |= zip(phase, found, strict=True)
            if plan.awaited.wanted and not await score.await_scores(plan):
                return score.out_of_time(plan)
            if await on_host(plan, score.judge, asks=plan.own_functions) is None:
                return score.out_of_time(plan)
    finally:
        if shared is not None:
            await shared.close()
    done = await on_host(plan, score.finish, asks=plan.own_functions)
    return score.out_of_time(plan) if done is None else done


async def _rejected(versions: Versions, plan: Plan, trees: Sequence[FileTree], why: Rejected) -> HeadToHead:
    """Attribute a failed load to one version, or to both together."""
    alone = [await versions.compiled(tree, limits=plan.limits) for tree in trees]
    blamed = [one if isinstance(one, Rejected) else None for one in alone]
    reasons = blamed if any(blamed) else [why, why]
    results = [
        unscored(
            plan.evaluation,
            reason or Rejected("load", "the other version was rejected, so there was no head-to-head"),
            sandbox_id=side,
            generation=0,
        )
        for side, reason in zip(SIDES, reasons, strict=True)
    ]
    return HeadToHead(first=results[0], second=results[1], duels=(), winner="draw")


async def _in_own_fork(
    worker: Worker, plan: Plan, code: CompiledVersion, image: ChosenImage, turn: tuple[int, int]
) -> tuple[Outcome, Outcome]:
    ring = _Ring(worker, plan, code, image)
    try:
        return await ring.duel(turn)
    finally:
        await ring.close()


class _Ring:
    """A guest into which both versions are loaded."""

    def __init__(self, worker: Worker, plan: Plan, code: CompiledVersion, image: ChosenImage) -> None:
        self.session = f"head-to-head-{next(_numbers)}"
        self._worker = worker
        self._plan = plan
        self._code = code
        self._image = image
        self._loaded = False

    async def duel(self, turn: tuple[int, int]) -> tuple[Outcome, Outcome]:
        """Call both versions.

        Args:
            turn: Position in the order of execution, which decides the first version, and the case's index.
        """
        number, index = turn
        order = (0, 1) if number % 2 == 0 else (1, 0)
        pair = {side: await self.call(index, side) for side in order}
        return pair[0], pair[1]

    async def close(self) -> None:
        """End the guest."""
        with trio.CancelScope(shield=True):
            await self._worker.host.end_session(self.session)

    async def call(self, index: int, side: int) -> Outcome:
        """Call one version; the code is loaded before, so that neither is charged for it."""
        plan = self._plan
        with plan.deadline.scope():
            async with plan.calls:
                try:
                    if not self._loaded:
                        self._loaded = (await self._run("", _NO_ARGUMENTS, 0)).session_alive
                    entry = PREFIXES[side] + plan.evaluation.entry
                    report = await self._run(entry, plan.payloads[index], plan.seeds[index])
                except CapacityError as error:
                    return WorkerLost(reason=error.message, deterministic=False)
                if report.outcome.kind in KILLING:
                    await self._worker.host.end_session(self.session)
                    self._loaded = False
                return report.outcome
        return deadline_outcome(plan.deadline.seconds)

    async def _run(self, entry: str, payload: bytes, seed: int) -> CallReport:
        job = CallJob(
            session=self.session,
            image=self._image.id,
            code=self._code,
            entry=entry,
            payload=payload,
            seed=seed,
            limits=self._plan.limits,
            passing=True,
        )
        return await self._plan.room.wait_for(partial(self._worker.call, job))


@define(eq=False)
class _Score:
    """Outcomes and scores of both versions so far.

    Attributes:
        outcomes: The outcomes of both, by case index.
        judged: The scores of both, by case index.
        image: What the image is called in which they ran.
    """

    evaluation: Evaluation
    image: str
    outcomes: dict[int, tuple[Outcome, Outcome]] = field(factory=dict)
    judged: dict[int, tuple[Judged, Judged]] = field(factory=dict)

    def judge(self) -> bool:
        """Score the unscored cases."""
        for index, pair in self.outcomes.items():
            if index not in self.judged:
                first, second = (judge(self.evaluation, index, outcome) for outcome in pair)
                self.judged[index] = first, second
        return True

    async def await_scores(self, plan: Plan) -> bool:
        """Await the scores of what is not scored yet; False if the deadline passed first."""
        left = [index for index in self.outcomes if index not in self.judged]
        with plan.deadline.scope() as scope:
            flat = await plan.awaited.judge([(index, one) for index in left for one in self.outcomes[index]])
            pairs = zip(flat[::2], flat[1::2], strict=True)
            self.judged |= zip(left, pairs, strict=True)
        return not scope.cancelled_caught

    def finish(self) -> HeadToHead:
        """Score both versions as a whole."""
        results: list[FitnessResult] = []
        for side, name in enumerate(SIDES):
            elapsed_ms = sum(pair[side].wall_s for pair in self.outcomes.values()) * 1000
            judged = in_order([pair[side] for pair in self.judged.values()])
            scored = summarise(
                self.evaluation, judged, sandbox_id=name, generation=0, evaluation_time_ms=elapsed_ms
            )
            results.append(evolve(scored.result, image=self.image))
        return _matched(self.evaluation, *results)

    def out_of_time(self, plan: Plan) -> HeadToHead:
        """Record that the deadline passed during scoring."""
        why = deadline_outcome(plan.deadline.seconds)
        judged = list(self.judged.values())  # an abandoned thread may still change it
        results = [
            unscored(
                plan.evaluation,
                why,
                {index: pair[side] for index, pair in self.outcomes.items()},
                [pair[side] for pair in judged],
                sandbox_id=name,
                generation=0,
            )
            for side, name in enumerate(SIDES)
        ]
        return _matched(plan.evaluation, *results)


def _matched(evaluation: Evaluation, first: FitnessResult, second: FitnessResult) -> HeadToHead:
    """Pair the results of both versions."""
    duels = tuple(
        Duel(first=one, second=other, same=_same(one.outcome, other.outcome))
        for one, other in zip(first.test_results, second.test_results, strict=True)
    )
    return HeadToHead(first=first, second=second, duels=duels, winner=_winner(evaluation, first, second))


def _same(first: Outcome, second: Outcome) -> bool:
    return first.ok and second.ok and difference(first.unwrap(), second.unwrap(), same_kinds=True) is None


def _winner(evaluation: Evaluation, first: FitnessResult, second: FitnessResult) -> Side:
    if first.valid != second.valid:
        return "first" if first.valid else "second"
    if not first.valid:
        return "draw"
    better = worse = False
    for direction, one, other in zip(evaluation.directions, first.objectives, second.objectives, strict=True):
        ahead = one > other if direction == "maximize" else one < other
        better |= ahead
        worse |= not ahead and one != other
    return "draw" if better == worse else "first" if better else "second"
