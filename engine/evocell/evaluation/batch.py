"""Evaluation of batches of sources or sandboxes; results are in input order and recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

import trio
from attrs import evolve

from evocell.code.compiler import CompiledVersion
from evocell.concurrency import CapacityRetry, Deadline, Turns, map_bounded
from evocell.config import Config
from evocell.errors import (
    CapacityError,
    ConfigurationError,
    EngineClosed,
    SandboxNotFound,
    StoreError,
    WorkerDied,
)
from evocell.evaluation.ahead import CompileAhead
from evocell.evaluation.evaluator import (
    evaluate_all,
    evaluate_candidate,
    note_result,
    refuse_broken_scoring,
)
from evocell.evaluation.individuals import (
    Candidate,
    NewIndividual,
    Progress,
    SandboxIndividual,
    TransientIndividual,
)
from evocell.evaluation.memo import MemoisingCaller
from evocell.evaluation.plan import FailureWatch, Plan, check_functions, compile_harness, encode_cases
from evocell.evaluation.recording import BatchRecord, Task, batch_record, function_name
from evocell.evaluation.scoring import Scored, destroyed, from_function
from evocell.evaluation.stages import PlannedStage, evaluate_in_stages
from evocell.evaluation.together import check_batch, evaluate_together
from evocell.execution.interface import FollowUpJob, Worker
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.limits import Limits
from evocell.models.outcome import Rejected
from evocell.models.references import Source
from evocell.models.stages import Stage, StagedResult
from evocell.models.state import SandboxState
from evocell.sandboxes.audit_events import record_refusal
from evocell.sandboxes.calls import check_deadline, deadline_outcome
from evocell.sandboxes.code_versions import Versions, read_source
from evocell.sandboxes.manager import Manager
from evocell.sandboxes.normal_forms import NormalForms
from evocell.sandboxes.package_images import OWN, ChosenImage
from evocell.sandboxes.record import SandboxRecord

__all__ = ["Batches", "SandboxFunction"]

SandboxFunction = Callable[[SandboxRecord], Awaitable[object]]
"""A custom function that returns the fitness of a sandbox."""


class Batches:
    """Evaluates batches.

    Args:
        worker: Runs the calls.
        versions: Compiles the code.
        manager: The manager of the sandboxes.
        pure: Makes the calls, or returns memoised outcomes.
        config: Default limits and settings.
        is_alone: Returns whether the engine has no other request under way.
    """

    def __init__(
        self,
        worker: Worker,
        versions: Versions,
        manager: Manager,
        pure: MemoisingCaller,
        config: Config,
        *,
        is_alone: Callable[[], bool] = bool,
    ) -> None:
        self._is_alone = is_alone
        self._worker = worker
        self._versions = versions
        self._manager = manager
        self._observer = manager.observer
        self._pure = pure
        self._memoise = config.memoise
        self._profile = config.profile
        self._limits = config.limits()
        self._normal_forms = NormalForms(worker, versions)
        self._room = CapacityRetry()
        self._watch = FailureWatch()

    async def plan(
        self, evaluation: Evaluation, *, deadline_s: float | None, calls: int | None = None
    ) -> Plan:
        """Prepare an evaluation.

        Args:
            evaluation: The evaluation.
            deadline_s: Seconds from now in which everything must be over; None for no deadline.
            calls: Most concurrent calls in the worker; None for as many as it can use.

        Raises:
            ConfigurationError: Part of it is invalid.
        """
        deadline = Deadline(check_deadline(deadline_s))
        limits = evaluation.limits or self._limits
        found, asked = self._manager.find_image(evaluation.image), evaluation.image
        if evaluation.isolation == "batch":
            check_batch(limits, profile=self._profile, image=found)
        check_functions(evaluation)
        return Plan(
            evaluation=evaluation,
            payloads=encode_cases(evaluation, limits),
            limits=limits,
            image=None if asked is None else OWN if found is None else ChosenImage(found.id, asked),
            images=self._manager.images,
            harness=await compile_harness(evaluation, self._versions),
            deadline=deadline,
            calls=Turns(calls or self._worker.host),
            room=self._room,
            observer=self._observer,
            pure=self._pure,
            memoise=self._memoise if evaluation.memoise is None else evaluation.memoise,
            normal_forms=self._normal_forms,
            security=self._versions.profile,
            watch=self._watch,
        )

    async def new(
        self, plan: Plan, individuals: Sequence[NewIndividual], *, progress: Progress | None = None
    ) -> list[FitnessResult]:
        """Evaluate sources; those to be kept become sandboxes.

        Raises:
            CapacityError: The sandboxes would exceed the capacity.
            ScoringError: The caller's own functions raised for every one.

        Cancellation: Every call is stopped, and none of the sandboxes remains.
        """
        if individuals and individuals[0].keep:
            _refuse_batch(plan, "what is kept is evaluated in forks of its own, so leave population out")
        async with (
            self._candidates(individuals, plan) as (candidates, members),
            self._record("evaluate", Task.of_plan(plan), members, progress) as record,
        ):
            sources = [one.source for one in individuals]
            ahead = CompileAhead(self._versions, sources, plan.limits, self._worker.host)
            if plan.evaluation.isolation == "batch":
                return await evaluate_together(
                    self._worker,
                    plan,
                    candidates,
                    compile_ahead=ahead.compile,
                    done=partial(self._done, record, members),
                )

            def done(index: int, result: FitnessResult) -> None:
                self._done(record, members, index, result)
                ahead.note_done()

            return await ahead.beside(partial(evaluate_all, self._worker, plan, candidates, done=done))

    async def staged(
        self,
        stages: Sequence[Stage],
        individuals: Sequence[NewIndividual],
        *,
        total_limits: Limits | None,
        deadline_s: float | None,
        progress: Progress | None = None,
    ) -> list[StagedResult]:
        """Evaluate sources in stages; those to be kept become sandboxes, however far they come.

        Args:
            stages: The stages.
            individuals: The individuals.
            total_limits: Limits of all calls of one individual together; None for none.
            deadline_s: Seconds from now in which everything must be over; None for no deadline.
            progress: Called with the last result of each individual that is dropped.

        Raises:
            ConfigurationError: Part of a stage is invalid.
            CapacityError: The sandboxes would exceed the capacity.
            ScoringError: The caller's own functions raised for every individual of a stage.

        Cancellation: Every call is stopped, and none of the sandboxes remains.
        """
        plans = [await self.plan(stage.evaluation, deadline_s=deadline_s) for stage in stages]
        for plan in plans:
            _refuse_batch(plan, "the candidates of a stage are evaluated in forks of their own")
        ready = [
            PlannedStage(stage, evolve(plan, deadline=plans[0].deadline))
            for stage, plan in zip(stages, plans, strict=True)
        ]
        task = Task.of_plan(ready[-1].plan)
        async with (
            self._candidates(individuals, plans[0]) as (candidates, members),
            self._record("evaluate_stages", task, members, progress) as record,
        ):
            sources = [one.source for one in individuals]
            ahead = CompileAhead(self._versions, sources, plans[0].limits, self._worker.host)
            evaluate = partial(
                evaluate_in_stages,
                self._worker,
                ready,
                candidates,
                load_again=[candidate.load for candidate in candidates],
                total_limits=total_limits,
                evaluated=ahead.note_done,
                done=partial(self._done, record, members),
            )
            staged = await ahead.beside(evaluate)
            record.results = list(staged)
            return staged

    async def one(self, plan: Plan, individual: NewIndividual) -> FitnessResult:
        """Evaluate one source; if a function of the caller's raises, the result is invalid."""
        follow_up = None if individual.keep else plan.follow_up()
        async with self._candidates([individual], plan, follow_up) as (candidates, members):
            member = members[0]
            since = self._observer.store.losses
            batch = Task.of_plan(plan).begin(self._observer.journal, "evaluate_one", [member.number])
            outcome = "failed"
            try:
                scored = await evaluate_candidate(self._worker, plan, candidates[0])
                self._note(member, scored.result)
                self._observer.fitness.record(
                    scored.result, number=member.number, version=member.version, batch=batch
                )
                outcome = "done"
            finally:
                if follow_up is not None:
                    await follow_up.close()
                self._observer.journal.end_batch(batch, outcome)
            try:
                await self._observer.settle(since=since, alone=self._is_alone())
            except StoreError as error:
                raise error.with_results([scored.result]) from error
            return scored.result

    async def sandboxes(
        self, plan: Plan, records: Sequence[SandboxRecord], *, progress: Progress | None = None
    ) -> list[FitnessResult]:
        """Evaluate the code of sandboxes in separate forks, without touching their sessions.

        Raises:
            ConfigurationError: The evaluation names an image, and one of them starts from another.
            ScoringError: The caller's own functions raised for every one.
        """
        _refuse_batch(plan, "sandboxes are evaluated in forks of their own")
        for record in records:
            named = None if plan.image is None else plan.image.id
            if named is not None and record.image_id not in (None, named):
                raise ConfigurationError(
                    f"the evaluation names the image {plan.evaluation.image!r}, and sandbox {record.id!r} "
                    f"starts from {record.state.config.image!r}; leave image out of the evaluation",
                    "image",
                )
        members = [SandboxIndividual(record, partial(self._manager.held_code, record)) for record in records]
        candidates = [member.candidate() for member in members]
        async with self._record("evaluate", Task.of_plan(plan), members, progress) as batch:
            done = partial(self._done, batch, members)
            return await evaluate_all(self._worker, plan, candidates, done=done)

    async def by_function(
        self,
        function: SandboxFunction,
        records: Sequence[SandboxRecord],
        *,
        deadline_s: float | None,
        progress: Progress | None = None,
    ) -> list[FitnessResult]:
        """Evaluate sandboxes with a custom fitness function.

        Raises:
            ScoringError: It raised for every one.
        """
        deadline = Deadline(check_deadline(deadline_s))
        populations = {record.state.population for record in records}
        direction = self._manager.direction_of(populations.pop()) if len(populations) == 1 else "maximize"

        async def find(record: SandboxRecord) -> Scored:
            value, raised = None, None
            with suppress(SandboxNotFound), record.in_use():
                await record.loaded.wait()
                await record.choose_image(deadline)  # here, where no deadline counts its build
            started = trio.current_time()
            with deadline.scope() as scope:
                try:
                    value = await function(record)
                except EngineClosed:
                    raise
                except Exception as error:  # noqa: BLE001 - the caller's function may raise anything
                    raised = error
            if scope.cancelled_caught:
                why = deadline_outcome(deadline.seconds)
                return Scored(evolve(_out_of_time(record, why.error or why.kind), directions=(direction,)))
            if isinstance(raised, SandboxNotFound) and raised.sandbox_id == record.id and record.stopping:
                scored = destroyed(
                    sandbox_id=record.id, generation=record.state.generation, directions=(direction,)
                )
            else:
                scored = from_function(
                    value,
                    raised,
                    sandbox_id=record.id,
                    generation=record.state.generation,
                    evaluation_time_ms=(trio.current_time() - started) * 1000,
                    direction=direction,
                )
            scored = evolve(scored, result=evolve(scored.result, image=record.image_name))
            self._watch.look_at(function_name(function), scored.result)
            self._manager.record_fitness(record, scored.result)
            return scored

        async def one(index: int) -> Scored:
            record = records[index]
            about = {"sandbox_id": record.id, "generation": record.state.generation}
            with self._observer.telemetry.span("sandbox.evaluate", about) as span:
                found = await find(record)
                note_result(span, found.result)
            batch.done(index, found.result, number=record.number, version=record.state.version)
            return found

        async with self._record(
            "evaluate", Task.of_function(function, direction), records, progress
        ) as batch:
            scored = await map_bounded(
                one, range(len(records)), at_once=self._worker.host.slots, grows_with=self._worker.host
            )
        refuse_broken_scoring(scored)
        return [one.result for one in scored]

    @asynccontextmanager
    async def _candidates(
        self, individuals: Sequence[NewIndividual], plan: Plan, follow_up: FollowUpJob | None = None
    ) -> AsyncIterator[tuple[list[Candidate], Sequence[SandboxIndividual | TransientIndividual]]]:
        """Turn individuals into candidates; either all are kept, as sandboxes of the image, or none is."""
        image = plan.evaluation.image
        if not (individuals and individuals[0].keep):
            passing = [self._passing(individual, plan.limits, follow_up) for individual in individuals]
            yield [candidate for candidate, _ in passing], [individual for _, individual in passing]
            return
        specs = [evolve(individual.spec, image=individual.spec.image or image) for individual in individuals]
        unwritten: StoreError | None = None
        async with self._manager.reserved(specs) as records:
            members = [
                self._member(record, individual.source, plan.limits)
                for record, individual in zip(records, individuals, strict=True)
            ]
            try:
                yield [member.candidate() for member in members], members
            except StoreError as error:
                if not error.results or None in error.results:
                    raise
                unwritten = error  # all were evaluated, and are kept
        if unwritten is not None:
            raise unwritten

    def _passing(
        self, individual: NewIndividual, limits: Limits, follow_up: FollowUpJob | None = None
    ) -> tuple[Candidate, TransientIndividual]:
        spec = individual.spec
        sandbox_id = spec.id or self._manager.new_id()
        lineage = self._observer.lineage
        number = lineage.record(
            sandbox_id,
            spec.parent_ids,
            mutation_type=spec.mutation_type,
            generation=spec.generation,
            kept=False,
        )
        state = SandboxState(
            id=sandbox_id,
            generation=spec.generation,
            parent_ids=spec.parent_ids,
            mutation_type=spec.mutation_type,
            lineage_depth=lineage.depth(sandbox_id) or 0,
        )
        self._observer.journal.state(number, state, kept=False)
        passing = TransientIndividual(sandbox_id, spec.generation, number)
        load = partial(self._load, passing, individual.source, limits, follow_up)
        if follow_up is not None:
            follow_up.sandbox_id = sandbox_id
        candidate = Candidate(
            sandbox_id=sandbox_id, generation=spec.generation, load=load, follow_up=follow_up
        )
        return candidate, passing

    def _record(
        self,
        operation: str,
        task: Task,
        members: Sequence[SandboxIndividual | TransientIndividual | SandboxRecord],
        progress: Progress | None,
    ) -> AbstractAsyncContextManager[BatchRecord]:
        numbers = [member.number for member in members]
        return batch_record(self._observer, operation, task, numbers, progress)

    def _done(
        self,
        record: BatchRecord,
        members: Sequence[SandboxIndividual | TransientIndividual],
        index: int,
        result: FitnessResult,
    ) -> None:
        member = members[index]
        self._note(member, result)
        record.done(index, result, number=member.number, version=member.version)

    def _note(self, member: SandboxIndividual | TransientIndividual, result: FitnessResult) -> None:
        if isinstance(member, SandboxIndividual) and member.is_current:
            self._manager.record_fitness(member.record, result)

    async def _load(
        self,
        member: TransientIndividual | SandboxIndividual,
        source: Source,
        limits: Limits,
        follow_up: FollowUpJob | None = None,
    ) -> CompiledVersion | Rejected:
        try:
            tree = await read_source(source)
        except ConfigurationError as error:
            return Rejected("load", error.message)
        member.version = tree.digest
        compile_it = partial(self._versions.compiled, tree, limits=limits, follow_up=follow_up)
        made = await self._room.wait_for(compile_it)
        if follow_up is not None:
            self._observer.journal.prepare()  # the call is under way
        if isinstance(member, TransientIndividual):
            record_refusal(
                self._observer.audit,
                member.sandbox_id,
                made,
                version=tree.digest,
                profile=self._versions.profile,
            )
        return made

    async def _load_kept(
        self, member: SandboxIndividual, source: Source, limits: Limits
    ) -> CompiledVersion | Rejected:
        # A failed first load destroys the sandbox, so work that may wait for room comes before it.
        record = member.record
        try:
            made = await self._load(member, source, limits)
        except (CapacityError, WorkerDied):
            with suppress(SandboxNotFound):
                await self._manager.destroy(record)
            raise
        kept = await self._manager.load(record, source)
        return made if isinstance(made, Rejected) else kept

    def _member(self, record: SandboxRecord, source: Source, limits: Limits) -> SandboxIndividual:
        member = SandboxIndividual(record)
        member.load_first = partial(self._load_kept, member, source, limits)
        return member


def _refuse_batch(plan: Plan, why: str) -> None:
    if plan.evaluation.isolation == "batch":
        raise ConfigurationError(f'{why}; isolation="batch" is for new sources in evaluate', "isolation")


def _out_of_time(record: SandboxRecord, sentence: str) -> FitnessResult:
    return FitnessResult(
        record.id, record.state.generation, 0.0, error=sentence, reason="timeout", deterministic=False
    )
