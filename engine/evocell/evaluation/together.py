"""Evaluation of candidates in groups that share a fork: `Evaluation.isolation` ``"batch"``.

For a tiny candidate the fork and its request cost more than the call. So a group of candidates shares one
fork, for callers who accept that the members of a group share an interpreter. If a group's request fails, all
its members are evaluated again one by one, as with ``"case"``; so is a member whose outcome the others may
have influenced.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from attrs import evolve, frozen

from evocell.code.compiler import CompiledVersion
from evocell.concurrency import map_bounded
from evocell.errors import CapacityError, ConfigurationError, WorkerDied
from evocell.evaluation.evaluator import evaluate_candidate, refuse_broken_scoring
from evocell.evaluation.individuals import Candidate
from evocell.evaluation.plan import Plan
from evocell.evaluation.scoring import Scored
from evocell.execution.interface import TogetherJob, Worker
from evocell.models.fitness import FitnessResult
from evocell.models.info import ImageInfo
from evocell.models.limits import Limits
from evocell.models.outcome import Outcome, Rejected
from evocell.sandboxes.package_images import ChosenImage

__all__ = ["GROUP", "check_batch", "evaluate_together"]

GROUP = 32
"""Candidates in one fork. Groups depend only on the order of the candidates, so that a batch has the same
results on any number of workers."""
_SLOTS_OF_GROUP = 4
"""One more group is under way for each of this many slots of the worker."""


def check_batch(limits: Limits, *, profile: str, image: ImageInfo | None) -> None:
    """Check that an evaluation can be run by candidates that share an interpreter.

    Args:
        limits: Limits of a group.
        profile: The engine's profile.
        image: The image that the evaluation names, if any.

    Raises:
        ConfigurationError: One of them rules that out.
    """
    for refused, why in (
        (limits.scratch_bytes > 0, "a candidate would find the files of others in /tmp; set scratch_bytes=0"),
        (limits.processes > 0, "the processes of candidates could not be told apart; set processes=0"),
        (
            profile == "realtime",
            'fuel is counted for each by the virtual clock, which the profile "realtime" has not',
        ),
        (
            image is not None and image.version is not None,
            "the image was frozen with a version loaded, which each would find as the one before left it",
        ),
    ):
        if refused:
            raise ConfigurationError(f'isolation="batch" cannot be used here: {why}', "isolation")


@frozen
class _Loaded:
    """The compiled or rejected code of a candidate."""

    code: CompiledVersion | Rejected

    async def load(self) -> CompiledVersion | Rejected:
        """Return the code; takes the place of `Candidate.load`."""
        return self.code


async def evaluate_together(
    worker: Worker,
    plan: Plan,
    candidates: Sequence[Candidate],
    *,
    compile_ahead: Callable[[Sequence[int]], Awaitable[None]],
    done: Callable[[int, FitnessResult], None],
) -> list[FitnessResult]:
    """Evaluate candidates in groups.

    Args:
        worker: The worker.
        plan: The prepared evaluation; all its cases are public.
        candidates: The candidates.
        compile_ahead: Compiles the candidates with the given indices together, as far as possible.
        done: Called with the index and result of each, as it arrives.

    Returns:
        Their results, in order. A candidate that fails is an invalid result.

    Raises:
        ScoringError: The caller's own functions raised for every candidate they were asked about.

    Cancellation: Every call is stopped, and there is no result.
    """

    async def group(places: Sequence[int]) -> list[Scored]:
        with plan.deadline.scope():
            await compile_ahead(places)
        members, ran = await _run(worker, plan, [candidates[place] for place in places])

        async def one(number: int) -> Scored:
            scored = await evaluate_candidate(worker, plan, members[number], ran=ran[number])
            done(places[number], scored.result)
            return scored

        waits = plan.own_functions or None in ran
        return await map_bounded(one, range(len(members)), at_once=len(members) if waits else 1)

    places = range(len(candidates))
    groups = [places[at : at + GROUP] for at in places[::GROUP]]
    at_once = worker.host.slots // _SLOTS_OF_GROUP + 1
    found = await map_bounded(group, groups, at_once=at_once, grows_with=worker.host)
    scored = [one for ones in found for one in ones]
    refuse_broken_scoring(scored)
    return [one.result for one in scored]


async def _run(
    worker: Worker, plan: Plan, candidates: Sequence[Candidate]
) -> tuple[list[Candidate], list[Sequence[Outcome] | None]]:
    """Run the cases of a group in one fork.

    Returns:
        The candidates with their code loaded, and the outcomes of each one's cases; None instead of outcomes
        for a candidate that is to be evaluated by itself.
    """
    members = [await _loaded(plan, candidate) for candidate in candidates]
    shared: dict[int, CompiledVersion] = {}
    image: ChosenImage | None = None
    for number, (candidate, member) in enumerate(members):
        if member is None or not isinstance(member.code, CompiledVersion) or not _may_share(member.code):
            continue
        own = await plan.choose_image(member.code, asked=candidate.image)
        image = image or own
        if own == image:  # a candidate that needs another image is evaluated by itself
            shared[number] = member.code
    ran: list[Sequence[Outcome] | None] = [None] * len(candidates)
    if len(shared) > 1:
        job = TogetherJob(
            image=None if image is None else image.id,
            codes=tuple(shared.values()),
            entry=plan.evaluation.entry,
            payloads=plan.payloads,
            seeds=plan.seeds,
            limits=plan.limits,
            harness=plan.harness,
        )
        for number, outcomes in zip(shared, await _call(worker, plan, job), strict=True):
            ran[number] = outcomes
    return [candidate for candidate, _ in members], ran


async def _loaded(plan: Plan, candidate: Candidate) -> tuple[Candidate, _Loaded | None]:
    """Load a candidate's code; on failure return None, and leave the failure to its evaluation by itself."""
    with plan.deadline.scope():
        try:
            loaded = _Loaded(await candidate.load())
        except (CapacityError, WorkerDied):
            return candidate, None
        return evolve(candidate, load=loaded.load), loaded
    return candidate, None


def _may_share(code: CompiledVersion) -> bool:
    """Whether a candidate consists of Python files only; a shared fork offers no other files."""
    return bool(code.code) and all(path.endswith(".py") for path in code.files)


async def _call(worker: Worker, plan: Plan, job: TogetherJob) -> Sequence[Sequence[Outcome] | None]:
    nothing: Sequence[Sequence[Outcome] | None] = [None] * len(job.codes)
    with plan.deadline.scope():
        async with plan.calls:
            try:
                return await plan.room.wait_for(partial(worker.call_together, job)) or nothing
            except CapacityError:
                return nothing
    return nothing
