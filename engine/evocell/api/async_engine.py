"""`AsyncEngine`, the engine for trio programs: sandboxes, forks, populations and workers."""

from __future__ import annotations

import inspect
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial, update_wrapper
from itertools import count
from pathlib import Path
from typing import Any, cast

import trio

from evocell.api.arguments import (
    SandboxRef,
    check_count,
    check_generation,
    file_path,
    sandbox_id,
    sandbox_ids,
)
from evocell.api.async_history import AsyncHistory
from evocell.api.async_sandboxes import AsyncSandboxes
from evocell.api.evaluator import AsyncEvaluators
from evocell.api.portal import TokenPortal
from evocell.api.prompt_notes import guest_notes
from evocell.api.sandbox import AsyncFitness, AsyncSandbox, Fitness, Sandbox
from evocell.concurrency import map_bounded
from evocell.console.progress import Report, silent
from evocell.errors import ConfigurationError
from evocell.evaluation.batch import SandboxFunction
from evocell.evaluation.evaluator import Progress
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import Direction, FitnessResult
from evocell.models.info import WorkerInfo
from evocell.models.limits import Limits
from evocell.models.populations import GarbageReport, GenerationState, Offspring
from evocell.models.references import Source
from evocell.models.results import Results
from evocell.models.security import SecurityProfile
from evocell.models.specs import SandboxSpec
from evocell.models.state import PopulationState, SandboxState
from evocell.sandboxes.record import SandboxRecord

__all__ = ["AsyncEngine"]

_NAMES = ("__qualname__",)


class AsyncEngine(AsyncSandboxes, AsyncHistory, AsyncEvaluators):
    """Runs untrusted Python in sandboxes and scores it; an async context manager for trio.

    Entering it opens the worker, and builds its image if there is none yet (minutes, once). Leaving it
    stops all calls. Its methods may be called from many tasks at once; each call is an independent
    request, and cancelling one does not affect another.

    Args:
        config: Settings; None loads them from environment and file, see `Config.load`.
        progress: Called with each step of an image build, in a thread of its own. None shows it on standard
            error (a start that finds its image shows nothing); `evocell.silent` shows nothing at all.
        open_worker: Opens the worker that runs the guests.
        cluster: The cluster that runs guests, if any: a ``distributed.Client``, or a pool such as
            `evocell.integrations.dask.DaskCluster`. Scoring, expected answers, the store and sandboxes that
            keep state stay on this machine; ``workers`` counts its processes, started when first needed.
        telemetry: Receives its events; None makes one. Available as the attribute `telemetry`.

    Raises:
        ImageError: On entering: the image cannot be found, built or trusted.
        ClusterLost: On entering: the cluster cannot be reached, or none of its nodes can be used.
        EngineForked: On entering: this process was forked from one in which an engine has run.
    """

    async def create_sandbox(
        self,
        id: str | None = None,  # noqa: A002 - the name that the whole API uses for it
        *,
        source: Source | None = None,
        bundle: bytes | None = None,
        image: str | None = None,
        limits: Limits | None = None,
        population: str | None = None,
        generation: int = 0,
        parent_ids: Sequence[SandboxRef] = (),
        mutation_type: str = "seed",
        security_profile: SecurityProfile | None = None,
    ) -> AsyncSandbox:
        """Create a sandbox; see `SandboxSpec` for the arguments.

        Rejected code (for example a syntax error) gives a sandbox in status ``error``: `get_info` returns the
        reason, its calls return the `Rejected`, and `hot_reload_source` can replace the code.

        Raises:
            ConfigurationError: An argument cannot be used.
            SandboxExists: The id is taken.
            CapacityError: There would be too many sandboxes.

        Cancellation: No sandbox is created.
        """
        spec = SandboxSpec(
            id,
            source=source,
            bundle=bundle,
            image=image,
            limits=limits,
            population=population,
            generation=generation,
            parent_ids=tuple(sandbox_ids(parent_ids)),
            mutation_type=mutation_type,
            security_profile=security_profile,
        )
        return (await self.batch_create([spec], progress=silent))[0]

    async def batch_create(
        self, specs: Sequence[SandboxSpec], *, progress: Report | None = None
    ) -> list[AsyncSandbox]:
        """Create many sandboxes, all or none.

        Args:
            specs: The specifications.
            progress: Called in the engine's loop after each with its id, the number created so far, and the
                total. None shows a bar on a terminal after two seconds, `evocell.silent` nothing.

        Raises:
            SandboxExists: An id is in use or given twice; nothing has been created.
            CapacityError: There would be too many sandboxes; nothing has been created.

        Cancellation: None of them is created.
        """
        for spec in specs:
            if not isinstance(spec, SandboxSpec):
                raise ConfigurationError(
                    f"batch_create takes SandboxSpecs, not {type(spec).__name__}", "specs"
                )

        n_done = count(1)

        async def load(pair: tuple[SandboxRecord, SandboxSpec]) -> None:
            await self._manager.load(pair[0], pair[1].code)
            if report is not None:
                report(pair[0].id, next(n_done), len(specs))

        about = {"operation": "create", "count": len(specs)}
        shown = self._shown("creating", len(specs), progress)
        with self._request(), self.telemetry.span("sandbox.batch", about), shown as report:
            async with self._manager.reserved(specs) as records:
                pairs = list(zip(records, specs, strict=True))
                await map_bounded(load, pairs, at_once=self._worker.slots + 1, grows_with=self._worker)
                return [AsyncSandbox(self, record.id) for record in records]

    async def batch_evaluate(
        self,
        sandboxes: Sequence[SandboxRef],
        fitness: Evaluation | Fitness | AsyncFitness,
        *,
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[FitnessResult]:
        """Evaluate sandboxes, and record the results as their fitness.

        Args:
            sandboxes: The sandboxes.
            fitness: An `Evaluation`, run in fresh forks of their code; or a function that takes a
                sandbox and returns a number, named numbers, or a `FitnessResult`: a plain one runs in a
                thread with a `Sandbox`, an async one in the engine's loop with an `AsyncSandbox`.
            deadline_s: Overall deadline in seconds, as in `evaluate`.
            progress: As in `evaluate`.

        Returns:
            One result for each sandbox, in order. One that is destroyed meanwhile is invalid with the reason
            ``"destroyed"``; one that is reloaded meanwhile is evaluated in its old or in its new version,
            never in both.

        Raises:
            SandboxNotFound: One of them does not exist; nothing has been evaluated.
            ScoringError: The function raised for every sandbox.
        """
        wanted = sandbox_ids(sandboxes)
        with self._request(), self._shown("evaluating", len(wanted), progress) as report:
            records = self._manager.get_all(wanted)
            if isinstance(fitness, Evaluation):
                plan = await self._batches.plan(fitness, deadline_s=deadline_s)
                return Results(await self._batches.sandboxes(plan, records, progress=report))
            if not callable(fitness):
                raise ConfigurationError(
                    f"fitness must be an Evaluation or a function, not {type(fitness).__name__}", "fitness"
                )
            return Results(
                await self._batches.by_function(
                    self._asking(fitness), records, deadline_s=deadline_s, progress=report
                )
            )

    async def guest_notes(self) -> str:
        """Describe the guest's Python for the author of its code: version, packages, missing features."""
        with self._request():
            return guest_notes(await self._worker.info(), self.config)

    async def fork_sandbox(self, sandbox: SandboxRef, new_id: str | None = None) -> AsyncSandbox:
        """Copy a sandbox: its code and the current state of its session.

        The two share no mutable state: modules, objects, random state and scratch files are copies. The fork
        joins the population and generation of its parent, with the mutation type ``"fork"``, and lives in the
        same worker.

        Args:
            sandbox: The sandbox to copy. A call that runs in its session is waited for.
            new_id: Id of the fork; None generates one.

        Raises:
            SandboxBusy: Its code has files open, or the worker has no room for the copy.
            SandboxNotFound: The sandbox does not exist, or was destroyed meanwhile.
            SandboxExists: The new id is in use.
            CapacityError: There would be too many sandboxes.

        Cancellation: No sandbox is created.
        """
        with self._request():
            made = await self._copies.fork(self._manager.get(sandbox_id(sandbox)), [new_id])
            return AsyncSandbox(self, made[0].id)

    async def batch_fork(self, sandbox: SandboxRef, count: int) -> list[AsyncSandbox]:
        """Fork a sandbox many times, all from the same state; see `fork_sandbox`.

        Args:
            sandbox: The sandbox.
            count: Number of forks, from 1.

        Raises:
            ConfigurationError: The count is not a positive integer.

        Cancellation: No fork remains.
        """
        n_forks = check_count(count, "count")
        with self._request():
            made = await self._copies.fork(self._manager.get(sandbox_id(sandbox)), [None] * n_forks)
            return [AsyncSandbox(self, record.id) for record in made]

    async def import_sandbox(
        self, path: str | Path, new_id: str | None = None, *, limits: Limits | None = None
    ) -> AsyncSandbox:
        """Create a sandbox from a file that `export_sandbox` wrote; the file is untrusted.

        Its session continues from its exported state. The code is recompiled here; byte code and native code
        are never taken from the file.

        Args:
            path: The file.
            new_id: The sandbox's id; None for its former one.
            limits: Its limits; None for its former ones, which the file's author chose.

        Raises:
            ProtocolError: The file is not an exported sandbox, is damaged, or holds an impossible state.
            ConfigurationError: The file does not exist, or the sandbox's image is not available here.
            SandboxExists: The id is taken.
            CapacityError: There would be too many sandboxes.

        Cancellation: No sandbox remains.
        """
        with self._request():
            record = await self._copies.take(file_path(path), new_id, limits)
            return AsyncSandbox(self, record.id)

    async def migrate_sandbox(
        self,
        sandbox: SandboxRef,
        target: object,
        *,
        new_id: str | None = None,
        path: str | Path | None = None,
    ) -> object:
        """Move a sandbox to another engine: write it to a file, recreate it there, destroy it here.

        Calls of the sandbox wait meanwhile, and then raise `SandboxNotFound`. If either engine's process dies
        during the migration, nothing is lost: the sandbox is destroyed here only after it exists there, and
        the file, from which `import_sandbox` recreates it, is removed last.

        Args:
            sandbox: The sandbox.
            target: An `AsyncEngine` of this loop, an `Engine` (whose work is waited for in a thread), or a
                function of the file's path, async or not, that makes some other engine import it and
                    returns when that is done.
            new_id: Its id there; None keeps its id.
            path: The intermediate file, removed at the end; None makes one in the temporary directory.

        Returns:
            The sandbox as returned by the target's `import_sandbox`, or the value of the function.

        Raises:
            SandboxBusy: Its code has files open; nothing has changed.
            Exception: The failure of the target; the sandbox is unchanged.

        Cancellation: The sandbox stays here; it may exist at the target as well.
        """
        with self._request():
            record = self._manager.get(sandbox_id(sandbox))
            name = f"evocell-{uuid.uuid4().hex}.sandbox"
            file = file_path(Path(tempfile.gettempdir()) / name if path is None else path)
            return await self._copies.migrate(record, file, recreation(target, new_id))

    async def create_population(
        self, population: str, *, parent_population_id: str | None = None, direction: Direction | None = None
    ) -> PopulationState:
        """Register an empty population.

        A population is a name shared by sandboxes. Creating its first member registers it as well. It
        outlives its members, and with a ``state_dir`` the engine.

        Args:
            population: Its name.
            parent_population_id: The population it descends from.
            direction: ``"maximize"`` or ``"minimize"``; decides which members are the elite. None takes the
                direction of the first evaluation of its members.

        Raises:
            ConfigurationError: A population of that name exists, or a name cannot be used.
        """
        with self._request():
            return self._populations.create(
                population, parent_population_id=parent_population_id, direction=direction
            )

    async def resume_population(
        self, population: str, *, direction: Direction | None = None
    ) -> list[AsyncSandbox]:
        """Register a population, or resume that of an earlier engine with the same ``state_dir``.

        Members of the earlier engine that retention keeps (the latest ``gc_retain_generations`` generations
        and the ``gc_elites`` fittest) are recreated with their ids, code and fitness, without evaluation.
        Their sessions' state is lost. Members that were destroyed, or that another engine holds, are not
        recreated. See docs/resuming.md.

        Args:
            population: Its name.
            direction: As in `create_population`, if it does not exist yet.

        Returns:
            The recreated sandboxes, oldest first; empty if the population is new, or all exist.

        Raises:
            ConfigurationError: The name cannot be used.
            CapacityError: The sandboxes would exceed the capacity; none has been recreated.
            StoreError: The store cannot be read.

        Cancellation: None of them is recreated.
        """
        with self._request():
            lost = self._populations.resume(population, direction)
            made = await self._populations.bring_back(lost)
            await self._observer.settle()
            return [AsyncSandbox(self, record.id) for record in made]

    async def get_population(self, population: str) -> PopulationState:
        """Return the state of a population: its current members, their fitness, its latest generation.

        Args:
            population: Its name.

        Raises:
            ConfigurationError: There is no such population.
        """
        with self._request():
            return self._populations.state(population)

    async def list_populations(self) -> list[PopulationState]:
        """Return the state of every population, oldest first."""
        with self._request():
            return self._populations.states()

    async def get_members(self, population: str, generation: int | None = None) -> list[str]:
        """Return the ids of a population's sandboxes, or of one generation's, oldest first.

        Args:
            population: The population.
            generation: Only of this one; None for all.

        Raises:
            ConfigurationError: There is no such population.
        """
        with self._request():
            return [
                record.id for record in self._populations.members(population, check_generation(generation))
            ]

    async def list_generations(self, population: str, generation: int | None = None) -> list[GenerationState]:
        """Return the generations of a population, or one, with former members and all lineage edges.

        Args:
            population: The population.
            generation: Only this one; None for all.

        Raises:
            ConfigurationError: There is no such population.
            StoreError: The store cannot be used.
        """
        with self._request():
            return await self._populations.generations(population, check_generation(generation))

    async def best(
        self, population: str, most: int = 1, *, generation: int | None = None
    ) -> list[AsyncSandbox]:
        """Return the fittest valid sandboxes of a population, best first.

        Args:
            population: The population, whose direction determines the order.
            most: Most sandboxes returned.
            generation: Only of this one.

        Raises:
            ConfigurationError: There is no such population.
        """
        n_best = check_count(most, "most")
        with self._request():
            found = self._populations.elite(population, n_best, check_generation(generation))
            return [AsyncSandbox(self, record.id) for record in found]

    async def next_generation(
        self, population: str, offspring: Sequence[Offspring], *, into: str | None = None
    ) -> list[AsyncSandbox]:
        """Create a population's next generation, all or none, and record the parents.

        Args:
            population: The population.
            offspring: The individuals. Rejected code gives a sandbox in status ``error``.
            into: A population for them, registered as a descendant of the other if it does not exist; None
                for the same.

        Returns:
            The sandboxes, in order.

        Raises:
            ConfigurationError: There is no such population, or an argument cannot be used.
            SandboxNotFound: A parent never existed. Destroyed parents are allowed.
            SandboxExists: An id is in use or given twice; none has been created.
            CapacityError: There would be too many sandboxes; none of them has been created.

        Cancellation: None of them is created.
        """
        with self._request():
            specs = self._populations.offspring(population, offspring, into=into)
            made = await self.batch_create(specs)
            for sandbox, one in zip(made, offspring, strict=True):
                if one.metadata is not None:
                    self._observer.lineage.annotate(sandbox.id, one.metadata)
            return made

    async def evaluate_generation(
        self,
        population: str,
        fitness: Evaluation | Fitness | AsyncFitness,
        *,
        generation: int | None = None,
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[FitnessResult]:
        """Evaluate a generation's sandboxes, as `batch_evaluate` does.

        Args:
            population: The population.
            fitness: An `Evaluation` or a function, as in `batch_evaluate`.
            generation: Which one; None for the latest.
            deadline_s: As in `batch_evaluate`.
            progress: As in `batch_evaluate`.

        Returns:
            One result for each of `get_members`, in order.

        Raises:
            ConfigurationError: There is no such population, or an argument cannot be used.
            ScoringError: The caller's own functions raised for every sandbox.
        """
        with self._request():
            members = self._populations.members(population, self._generation(population, generation))
            return await self.batch_evaluate(
                [record.id for record in members], fitness, deadline_s=deadline_s, progress=progress
            )

    async def destroy_generation(
        self, population: str, *, generation: int | None = None, keep: Sequence[SandboxRef] = ()
    ) -> list[SandboxState]:
        """Destroy a generation's sandboxes, also those in use.

        Args:
            population: The population.
            generation: Which one; None for the latest.
            keep: Sandboxes to spare.

        Returns:
            The last states of the destroyed sandboxes.

        Raises:
            ConfigurationError: There is no such population.
        """
        kept = set(sandbox_ids(keep))
        with self._request():
            members = self._populations.members(population, self._generation(population, generation))
            doomed = [record.id for record in members if record.id not in kept]
            return await self.batch_destroy(doomed, missing_ok=True)

    async def pin(self, sandboxes: Sequence[SandboxRef]) -> None:
        """Exempt sandboxes from garbage collection until they are unpinned or destroyed.

        Args:
            sandboxes: The sandboxes; they may be pinned already.

        Raises:
            SandboxNotFound: One of them does not exist; none has been pinned.
        """
        with self._request():
            self._populations.pin(sandbox_ids(sandboxes))

    async def unpin(self, sandboxes: Sequence[SandboxRef]) -> None:
        """Unpin sandboxes, which makes them subject to garbage collection again.

        Args:
            sandboxes: The sandboxes; they need not be pinned, nor exist any more.
        """
        with self._request():
            self._populations.unpin(sandbox_ids(sandboxes))

    async def list_pinned(self) -> list[str]:
        """Return the ids of the pinned sandboxes, sorted."""
        with self._request():
            return self._populations.pinned()

    async def collect_garbage(self) -> GarbageReport:
        """Collect garbage now: members of former generations, unused version trees, orphaned directories.

        The engine does so by itself every ``gc_interval_ms``, and when memory runs short; docs/populations.md
        describes what is kept.

        Cancellation: Sandboxes destroyed by then stay destroyed.
        """
        with self._request():
            return await self._garbage.collect("demand")

    async def workers(self) -> list[WorkerInfo]:
        """Return the state of each worker process; with ``workers=0`` that of this process."""
        with self._request():
            return self._worker.host.workers()

    async def drain_worker(self, name: str) -> None:
        """Replace a worker by a new process, without loss of calls or state.

        The new process is started first. Calls under way finish in the old one; sandboxes with a session in
        it move to the new one, each after its current call. A session with open files cannot move: it loses
        its state, as when a worker dies. Returns when the old process has ended, which takes as long as its
        longest call.

        Args:
            name: The worker, as `workers` names it.

        Raises:
            ConfigurationError: No such worker exists; with ``workers=0`` there are none.
            EvocellError: No new process could be started; the old one keeps running.

        Cancellation: The worker is replaced all the same.
        """
        if not isinstance(name, str):
            raise ConfigurationError(f"a worker is named by a string, not {type(name).__name__}", "name")
        with self._request():
            await self._worker.host.drain(name)

    def _asking(self, fitness: Fitness | AsyncFitness) -> SandboxFunction:
        if inspect.iscoroutinefunction(fitness) or inspect.iscoroutinefunction(type(fitness).__call__):
            ask_async = cast("AsyncFitness", fitness)

            async def ask(record: SandboxRecord) -> object:
                return await ask_async(AsyncSandbox(self, record.id))

            return update_wrapper(ask, fitness, _NAMES, ())
        portal = TokenPortal(trio.lowlevel.current_trio_token())
        threads = trio.CapacityLimiter(self._worker.slots)

        async def ask_in_thread(record: SandboxRecord) -> object:
            handle = Sandbox(portal, AsyncSandbox(self, record.id))
            return await trio.to_thread.run_sync(
                partial(cast("Fitness", fitness), handle), abandon_on_cancel=True, limiter=threads
            )

        return update_wrapper(ask_in_thread, fitness, _NAMES, ())

    def _generation(self, population: str, generation: int | None) -> int:
        return (
            self._populations.latest(population) if generation is None else check_generation(generation) or 0
        )


def recreation(target: object, new_id: str | None) -> Callable[[Path], Awaitable[object]]:
    """Return a function that makes a target import a sandbox from a file.

    Args:
        target: An engine of either kind, or a function.
        new_id: The sandbox's id there; None keeps its id.

    Raises:
        ConfigurationError: It is neither.
    """
    function: Any = target
    if isinstance(target, AsyncEngine):
        return partial(_import_there, target, new_id)
    if (method := getattr(target, "import_sandbox", None)) is not None:
        function = partial(_call_import, method, new_id)
    elif not callable(target):
        raise ConfigurationError(
            f"target must be an engine or a function, not {type(target).__name__}", "target"
        )
    if inspect.iscoroutinefunction(function):
        return cast("Callable[[Path], Awaitable[object]]", function)
    return partial(trio.to_thread.run_sync, function)


async def _import_there(target: AsyncEngine, new_id: str | None, path: Path) -> object:
    return await target.import_sandbox(path, new_id)


def _call_import(method: Callable[..., object], new_id: str | None, path: Path) -> object:
    return method(path, new_id)
