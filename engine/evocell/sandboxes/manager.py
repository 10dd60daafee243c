"""Sandbox manager: the registry of sandboxes and the state machine of their lifecycle.

``creating`` → ``running`` once its code is loaded, or ``error`` if the code was rejected; ``error`` →
``running`` when code that works is loaded; ``stopped`` when it is destroyed, after which the id is free
again. The death of a session is a step to ``error`` and back: the sandbox continues with a fresh fork.
`Manager.watch` detects sessions that die with their worker between calls.

A sandbox may be used from many tasks at once. Operations that change it, or run in its session, are
serialised in the order of arrival. Destruction does not queue: it cancels all users of the sandbox, whose
calls raise `SandboxNotFound`. An id is in use from the start of creation to the end of destruction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from typing import NoReturn

import trio
from attrs import evolve

from evocell.code.compiler import CompiledVersion
from evocell.code.module_versions import ModuleVersionManager
from evocell.concurrency import map_bounded
from evocell.config import Config
from evocell.errors import ConfigurationError, SandboxExists, SandboxNotFound
from evocell.execution.interface import Worker
from evocell.models.fitness import Direction, FitnessResult
from evocell.models.info import ImageInfo, WorkerKill
from evocell.models.outcome import Rejected
from evocell.models.references import Source
from evocell.models.specs import SandboxSpec
from evocell.models.state import SandboxState, SandboxStatus, Transition
from evocell.sandboxes.admission import Admission
from evocell.sandboxes.audit_events import record_refusal, report_worker_kill
from evocell.sandboxes.call_queue import CallQueue
from evocell.sandboxes.calls import SESSION_LOST, end_session
from evocell.sandboxes.code_versions import Versions
from evocell.sandboxes.package_images import PackageImages
from evocell.sandboxes.record import SandboxRecord
from evocell.store.fitness import FitnessEntry
from evocell.store.observer import Observer
from evocell.store.versions import VersionStore

__all__ = ["WATCH", "Manager"]

_ENDINGS_AT_ONCE = 16

WATCH = "session-watch"
"""Name of the task that detects the death of sessions."""

# One counter for the process: engines may share workers, and must not share sessions.
_session_numbers = count(1)


class Manager:
    """Creates, loads and destroys sandboxes.

    Args:
        worker: The worker that holds the sessions.
        versions: Compiles their code.
        config: Default limits and capacities.
        observer: Records changes and emits events.
        images: Has the images that code asks for.

    Attributes:
        images: The same.
        observer: Records changes and emits events.
        telemetry: Emits events.
        admission: Decides whether further sandboxes may be created.
        on_full: Called when there is no room for sandboxes, with a function that returns whether there is;
            destroys what may go, and returns whether anything was destroyed.
        on_scored: Called with the population of a newly evaluated sandbox, and the direction of the fitness.
        direction_of: Returns the direction of a population.
    """

    def __init__(
        self,
        worker: Worker,
        versions: Versions,
        config: Config,
        observer: Observer,
        images: PackageImages,
    ) -> None:
        self.observer = observer
        self.images = images
        self.telemetry = observer.telemetry
        self._worker = worker
        self._versions = versions
        self._config = config
        self._limits = config.limits()
        self.modules = ModuleVersionManager(versions.trees, keep=config.max_module_versions)
        self.kept_versions = VersionStore(observer.store, observer.journal.run)
        self.trees = versions.trees
        self.admission = Admission(config.default_max_processes)
        self.on_scored: Callable[[str, Direction], None] | None = None
        self.direction_of: Callable[[str | None], Direction] = lambda _: "maximize"
        self.on_full: Callable[[Callable[[], bool]], Awaitable[bool]] | None = None
        self._records: dict[str, SandboxRecord] = {}
        self._ids = count(observer.first_name)
        self._token = trio.lowlevel.current_trio_token()
        observer.fitness.on_adjusted = self._adjusted

    def get(self, sandbox_id: str) -> SandboxRecord:
        """Return a sandbox that is not being destroyed.

        Raises:
            SandboxNotFound: No such sandbox exists.
        """
        record = self._records.get(sandbox_id)
        if record is None or record.stopping:
            raise SandboxNotFound(sandbox_id)
        return record

    def get_all(self, sandbox_ids: Sequence[str]) -> list[SandboxRecord]:
        """Return several sandboxes; raises as `get` does."""
        return [self.get(sandbox_id) for sandbox_id in sandbox_ids]

    def records(self) -> list[SandboxRecord]:
        """Return every sandbox, in the order of their creation."""
        return list(self._records.values())

    def states(self) -> list[SandboxState]:
        """Return the state of every sandbox, in the order of their creation."""
        return [self.state(record) for record in self._records.values()]

    def members(self, population: str | None = None) -> list[SandboxRecord]:
        """Return the sandboxes of a population, or of all populations, that are not being destroyed."""
        return [
            record
            for record in self._records.values()
            if not record.stopping
            and (joined := record.state.population) is not None
            and population in {None, joined}
        ]

    def state(self, record: SandboxRecord) -> SandboxState:
        """Return the public state of a sandbox: its record, and the holder of its session."""
        if not record.session_live:
            return record.state
        return evolve(record.state, supervisor=self._worker.host.session_home(record.session), monitor=WATCH)

    async def watch(self) -> NoReturn:
        """Detect sessions that died with their worker, before the next call in them.

        It keeps no state between two checks, so it can be restarted at any time: live sessions continue, and
        those that died meanwhile are recorded.
        """
        async with trio.open_nursery() as nursery:
            n_losses = 0
            while True:
                for record in self._records.values():
                    if self._has_lost_session(record):
                        nursery.start_soon(self._notice_loss, record)
                n_losses = await self._worker.host.wait_session_losses(n_losses)

    def note_worker_kill(self, kill: WorkerKill) -> None:
        """Record each sandbox that lost its session or calls when a worker was killed for its memory."""
        at_rest = [
            record.id
            for record in self._records.values()
            if record.session_live and self._worker.host.session_home(record.session) == kill.worker
        ]
        report_worker_kill(self.observer, kill, at_rest)

    def new_id(self, taken: Collection[str | None] = ()) -> str:
        """Return an id that is neither a sandbox's nor among those taken."""
        while (made := f"sandbox-{next(self._ids)}") in self._records or made in taken:
            pass
        return made

    def reserve(self, specs: Sequence[SandboxSpec]) -> list[SandboxRecord]:
        """Register sandboxes, all or none, in status ``creating``; they have no code yet.

        Raises:
            SandboxExists: An id is in use, or given twice.
            CapacityError: The sandboxes exceed the capacity of the engine or of a population.
            ConfigurationError: A named image is not available to this engine.
        """
        images = {wanted: self.find_image(wanted) for wanted in {spec.image for spec in specs}}
        self._check_ids(specs)
        self.admission.check(specs, len(self._records))
        chosen = {spec.id for spec in specs}
        return [self._enter(spec, chosen, images[spec.image]) for spec in specs]

    def find_image(self, wanted: str | None) -> ImageInfo | None:
        """Find the image of a sandbox's forks, by its name or id.

        Returns:
            The image; None for the engine's own.

        Raises:
            ConfigurationError: There is none; the message names the existing ones.
        """
        if wanted is None or wanted == self._worker.image_id:
            return None
        found = self._worker.find_image(wanted)
        if found is None:
            known = ", ".join(repr(image.name) for image in self._worker.list_images() if image.name)
            hint = f"there are {known}" if known else "none has a name yet, freeze makes one"
            raise ConfigurationError(f"there is no image {wanted!r}; {hint}", "image")
        return None if found.id == self._worker.image_id else found

    async def load(self, record: SandboxRecord, source: Source | None) -> CompiledVersion | Rejected:
        """Give a reserved sandbox its first code.

        Args:
            record: The sandbox.
            source: Its code; None leaves it without code, and its calls rejected, until a reload.

        Raises:
            SandboxNotFound: It was destroyed meanwhile.

        Cancellation: The sandbox is destroyed, as after any failure of the engine.
        """
        state = record.state
        about: dict[str, object] = {
            "sandbox_id": state.id,
            "population": state.population,
            "generation": state.generation,
            "mutation_type": state.mutation_type,
            "parent_ids": state.parent_ids,
        }
        try:
            with self.telemetry.span("sandbox.create", about) as span, record.in_use():
                async with record.lock:
                    made = (
                        await self._resident(record)
                        if source is None
                        else await self._versions.load(
                            source, profile=record.security_profile, limits=record.limits
                        )
                    )
                    record.refuse_stopped()
                    self.record_refusal(record, made)
                    self.install(record, made, broken=source is not None)
                    record.loaded.set()
                    span.note(status=record.state.status.value, version=record.state.version)
                    return made
        except BaseException:
            if not record.stopping:  # else its destruction is under way
                await self.destroy_all([record])
            raise

    async def _resident(self, record: SandboxRecord) -> CompiledVersion | Rejected:
        """Return the code of a sandbox without a source: its image's code, or a rejection."""
        code = None if record.image is None else self._worker.resident_code(record.image)
        return _empty(record.id) if code is None else await self._versions.adopt(code)

    def record_refusal(self, record: SandboxRecord, made: CompiledVersion | Rejected) -> None:
        """Record in the audit log that the security gate refused a sandbox's code, if it did."""
        profile = record.security_profile or self._config.security_profile
        record_refusal(self.observer.audit, record.id, made, version="", profile=profile)

    def install(
        self,
        record: SandboxRecord,
        made: CompiledVersion | Rejected,
        *,
        broken: bool = True,
        **changes: object,
    ) -> None:
        """Store the result of a load in a sandbox, and register the versions of its modules.

        Args:
            record: The sandbox.
            made: Its new code, or the rejection.
            broken: Whether a rejection is an error.
            **changes: Further changes of its state.
        """
        if record.state.fitness is not None:
            self.observer.journal.unscored(record.number)
        changes |= {"fitness": None, "evaluated_at": None}
        if isinstance(made, Rejected):
            record.code, record.rejected = None, made
            status = SandboxStatus.ERROR if broken else SandboxStatus.RUNNING
            error = made.error if broken else None
            record.move(status, error or "created without code", error=error, version=None, **changes)
            return
        record.code, record.rejected = made, None
        changes |= {"image": record.image_name}
        record.move(SandboxStatus.RUNNING, "code loaded", error=None, version=made.digest, **changes)
        self.kept_versions.keep(
            self.modules.register(record.id, made, mutation_type=record.state.mutation_type)
        )

    async def held_code(self, record: SandboxRecord) -> CompiledVersion | Rejected:
        """Wait for a sandbox's first load; return its code, or why it has none."""
        await record.loaded.wait()
        return record.code or record.rejected or _empty(record.id)

    async def destroy(self, record: SandboxRecord) -> SandboxState:
        """Destroy a sandbox: cancel its users, end its session, free its id.

        Returns:
            Its last state, ``stopped``.

        Raises:
            SandboxNotFound: It is being destroyed already.

        Cancellation: The sandbox is destroyed all the same.
        """
        if record.stopping:
            raise SandboxNotFound(record.id)
        await self.destroy_all([record])
        return record.state

    async def destroy_all(self, records: Sequence[SandboxRecord]) -> None:
        """Destroy sandboxes, none of which is being destroyed yet; see `destroy`.

        Cancellation: The sandboxes are destroyed all the same.
        """
        bare = {record for record in records if record.is_idle and not record.session_opened}
        for record in records:
            record.stop()
        for record in bare:
            self._end(record)
        others = [record for record in records if record not in bare]
        with trio.CancelScope(shield=True):
            await map_bounded(self.take_apart, others, at_once=_ENDINGS_AT_ONCE)

    def record_fitness(self, record: SandboxRecord, result: FitnessResult) -> None:
        """Record a sandbox's latest fitness, if it still exists."""
        if record.stopping:
            return
        record.state = evolve(record.state, fitness=result.fitness_score, evaluated_at=result.evaluated_at)
        if self.on_scored is not None and record.state.population is not None:
            self.on_scored(record.state.population, result.directions[0])

    def inherit_fitness(self, record: SandboxRecord, entry: FitnessEntry) -> None:
        """Give a revived sandbox its fitness of an earlier run."""
        at = datetime.fromtimestamp(entry.at, UTC)
        record.state = evolve(record.state, fitness=entry.score, evaluated_at=at)
        self.observer.fitness.inherit(record.number, record.id, entry)

    def _adjusted(self, sandbox_id: str, entry: FitnessEntry) -> None:
        """Update a sandbox's state after an adjustment of its fitness; from any thread."""

        def note() -> None:
            record = self._records.get(sandbox_id)
            if record is not None and not record.stopping:
                record.state = evolve(record.state, fitness=entry.score)

        if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self._token:
            note()
        else:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(note)

    @asynccontextmanager
    async def reserved(self, specs: Sequence[SandboxSpec]) -> AsyncIterator[list[SandboxRecord]]:
        """Reserve sandboxes for a block; if it fails or is cancelled, none of them remains."""
        await self._make_room(specs)
        records = self.reserve(specs)
        try:
            yield records
        except BaseException:
            # Some may have been loaded, and be in use already.
            await self.destroy_all([record for record in records if not record.stopping])
            raise

    async def _make_room(self, specs: Sequence[SandboxSpec]) -> None:
        """Collect garbage until there is room, or a collection frees nothing."""

        def enough() -> bool:
            return self.admission.has_room(specs, len(self._records))

        while self.on_full is not None and not enough():
            if not await self.on_full(enough):
                return  # `reserve` refuses them unless others are destroyed first

    async def destroy_idle(self, records: Sequence[SandboxRecord]) -> list[SandboxRecord]:
        """Destroy those of the given sandboxes that are idle.

        Returns:
            The destroyed ones.

        Cancellation: Destructions that have begun complete all the same.
        """
        idle = [record for record in records if record.is_idle]
        await self.destroy_all(idle)
        return idle

    async def take_apart(self, record: SandboxRecord) -> None:
        """Wait for the users of a stopped sandbox, end its session and free its id.

        Cancellation: It completes all the same.
        """
        with trio.CancelScope(shield=True):
            try:
                async with record.lock:
                    await end_session(self._worker, record)
            finally:
                self._end(record)

    def _end(self, record: SandboxRecord) -> None:
        """Remove a sandbox without a session from the registry, and emit its end event, once."""
        if self._records.get(record.id) is not record:
            return
        self._forget(record)
        state = record.state
        self.telemetry.emit(
            "sandbox.destroyed",
            metadata={
                "sandbox_id": state.id,
                "population": state.population,
                "generation": state.generation,
            },
        )

    def _forget(self, record: SandboxRecord) -> None:
        del self._records[record.id]
        self.modules.forget(record.id)
        self.observer.lineage.release(record.id, record.number)
        record.code = None
        if record.state.population is not None:
            self.admission.leave(record.state.population)

    def _has_lost_session(self, record: SandboxRecord) -> bool:
        return record.session_live and self._worker.host.session_home(record.session) is None

    async def _notice_loss(self, record: SandboxRecord) -> None:
        async with record.lock:  # a call in the session detects it by itself
            if self._has_lost_session(record):
                record.note_restart(SESSION_LOST)

    def _check_ids(self, specs: Sequence[SandboxSpec]) -> None:
        seen: set[str] = set()
        for spec in specs:
            if spec.id is None:
                continue
            if spec.id in self._records:
                stopping = self._records[spec.id].stopping
                raise SandboxExists(spec.id, "it is being destroyed at this moment" if stopping else "")
            if spec.id in seen:
                raise SandboxExists(spec.id, "the batch holds the id twice")
            seen.add(spec.id)

    def _enter(
        self, spec: SandboxSpec, chosen: Collection[str | None], image: ImageInfo | None
    ) -> SandboxRecord:
        sandbox_id = self.new_id(chosen) if spec.id is None else spec.id
        number = self.observer.lineage.record(
            sandbox_id, spec.parent_ids, mutation_type=spec.mutation_type, generation=spec.generation
        )
        state = SandboxState(
            id=sandbox_id,
            config=evolve(spec.without_code(), id=sandbox_id),
            generation=spec.generation,
            parent_ids=spec.parent_ids,
            mutation_type=spec.mutation_type,
            lineage_depth=self.observer.lineage.depth(sandbox_id) or 0,
            population=spec.population,
            transitions=(Transition(None, SandboxStatus.CREATING),),
        )
        record = SandboxRecord(
            state=state,
            limits=spec.limits or self._limits,
            image=image,
            images=self.images,
            session=f"{sandbox_id}/{next(_session_numbers)}",
            backlog=CallQueue(
                sandbox_id, self._config.default_max_message_queue, self._config.backlog_policy
            ),
            number=number,
            changed=self.observer.journal.state,
        )
        self.observer.journal.state(number, state)
        self._records[sandbox_id] = record
        if spec.population is not None:
            self.admission.join(spec.population, spec.generation)
        return record


def _empty(sandbox_id: str) -> Rejected:
    return Rejected("load", f"sandbox {sandbox_id!r} holds no code yet; give it some with hot_reload_source")
