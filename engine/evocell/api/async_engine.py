"""`AsyncEngine`, the engine for trio programs; here populations and garbage collection."""

from __future__ import annotations

from collections.abc import Sequence

from evocell.api.arguments import SandboxRef, check_count, check_generation, sandbox_ids
from evocell.api.async_handles import AsyncHandles
from evocell.api.async_history import AsyncHistory
from evocell.api.evaluator import AsyncEvaluators
from evocell.api.prompt_notes import guest_notes
from evocell.api.sandbox import AsyncFitness, AsyncSandbox, Fitness
from evocell.evaluation.individuals import Progress
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import Direction, FitnessResult
from evocell.models.populations import GarbageReport, GenerationState, Offspring
from evocell.models.state import PopulationState, SandboxState

__all__ = ["AsyncEngine"]


class AsyncEngine(AsyncHandles, AsyncHistory, AsyncEvaluators):
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

    async def guest_notes(self) -> str:
        """Describe the guest's Python for the author of its code: version, packages, missing features."""
        with self._request():
            return guest_notes(await self._worker.info(), self.config)

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

    def _generation(self, population: str, generation: int | None) -> int:
        return (
            self._populations.latest(population) if generation is None else check_generation(generation) or 0
        )
