"""The engine as trio programs use it: populations, their generations, and the garbage collector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from evocell.api.asking import AsyncFitness, Fitness
from evocell.api.async_sandbox import AsyncSandbox
from evocell.api.lifecycle import EngineLifecycle
from evocell.api.options import SandboxRef, check_count, sandbox_ids
from evocell.errors import ConfigurationError
from evocell.evaluation.evaluator import Progress
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import Direction, FitnessResult
from evocell.models.populations import GarbageReport, GenerationState, Offspring
from evocell.models.state import PopulationState, SandboxState

if TYPE_CHECKING:
    from evocell.api.async_engine import AsyncEngine

__all__ = ["AsyncPopulations"]


class AsyncPopulations(EngineLifecycle):
    """The part of `AsyncEngine` that tracks populations; see there.

    A population is a name that sandboxes are created with. It is entered by its first member, or by
    `create_population`; it outlives its members, and with a ``state_dir`` the engine.
    """

    async def create_population(
        self, population: str, *, parent_population_id: str | None = None, direction: Direction | None = None
    ) -> PopulationState:
        """Enter a population that has no members yet.

        Args:
            population: Its name.
            parent_population_id: The population it descends from.
            direction: ``"maximize"`` or ``"minimize"``: which of its members are its elite. None for what the
                first evaluation of its members says.

        Raises:
            ConfigurationError: There is one of that name, or a name cannot be used.
        """
        with self._request():
            return self._populations.create(
                population, parent_population_id=parent_population_id, direction=direction
            )

    async def resume_population(
        self, population: str, *, direction: Direction | None = None
    ) -> list[AsyncSandbox]:
        """Enter a population, or go on with it where an earlier engine with the same ``state_dir`` ended.

        Members that the earlier engine held and that retention keeps (the latest ``gc_retain_generations``
        generations and the ``gc_elites`` fittest) are created again, under their ids, with their code and
        their fitness, and nobody is evaluated again. What their sessions held is gone. Members that somebody
        had destroyed stay so, as do those that another engine holds. See docs/resuming.md.

        Args:
            population: Its name.
            direction: As in `create_population`, if it is not there yet.

        Returns:
            Those that have been brought back, oldest first; none if the population is new, or all are there.

        Raises:
            ConfigurationError: The name cannot be used.
            CapacityError: There would be too many sandboxes; none has been brought back.
            StoreError: The store cannot be read.

        Cancellation: None of them is brought back.
        """
        with self._request():
            lost = self._populations.resume(population, direction)
            made = await self._populations.bring_back(lost)
            await self._observer.settle()
            return [AsyncSandbox(cast("AsyncEngine", self), record.id) for record in made]

    async def get_population(self, population: str) -> PopulationState:
        """Return what is known of a population: its members now, their fitness, its latest generation.

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
            return [record.id for record in self._populations.members(population, _checked(generation))]

    async def list_generations(self, population: str, generation: int | None = None) -> list[GenerationState]:
        """Return the generations of a population, or one, with members who are gone and all descents.

        Args:
            population: The population.
            generation: Only this one; None for all.

        Raises:
            ConfigurationError: There is no such population.
            StoreError: The store cannot be used.
        """
        with self._request():
            return await self._populations.generations(population, _checked(generation))

    async def best(
        self, population: str, most: int = 1, *, generation: int | None = None
    ) -> list[AsyncSandbox]:
        """Return the fittest sandboxes of a population that are valid, the best first.

        Args:
            population: The population, whose direction says what is better.
            most: How many at most.
            generation: Only of this one.

        Raises:
            ConfigurationError: There is no such population.
        """
        n_best = check_count(most, "most")
        with self._request():
            found = self._populations.elite(population, n_best, _checked(generation))
            return [AsyncSandbox(cast("AsyncEngine", self), record.id) for record in found]

    async def next_generation(
        self, population: str, offspring: Sequence[Offspring], *, into: str | None = None
    ) -> list[AsyncSandbox]:
        """Create the generation after the latest one, all or none, and record who descends from whom.

        Args:
            population: The population.
            offspring: The individuals. One whose code is rejected is a sandbox in status ``error``.
            into: A population for them, which is entered as a descendant of the other if it is not there;
                None for the same.

        Returns:
            The sandboxes, in order.

        Raises:
            ConfigurationError: There is no such population, or an argument cannot be used.
            SandboxNotFound: Nobody has ever heard of a parent. One that is gone is no error.
            SandboxExists: An id is taken or is there twice; none of them has been created.
            CapacityError: There would be too many sandboxes; none of them has been created.

        Cancellation: None of them is created.
        """
        engine = cast("AsyncEngine", self)
        with self._request():
            specs = self._populations.offspring(population, offspring, into=into)
            made = await engine.batch_create(specs)
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
        """Find the fitness of a generation's sandboxes, as `batch_evaluate` does.

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
        engine = cast("AsyncEngine", self)
        with self._request():
            members = self._populations.members(population, self._generation(population, generation))
            return await engine.batch_evaluate(
                [record.id for record in members], fitness, deadline_s=deadline_s, progress=progress
            )

    async def destroy_generation(
        self, population: str, *, generation: int | None = None, keep: Sequence[SandboxRef] = ()
    ) -> list[SandboxState]:
        """Destroy a generation's sandboxes, whoever uses them.

        Args:
            population: The population.
            generation: Which one; None for the latest.
            keep: Those who stay.

        Returns:
            The last states of those that were destroyed.

        Raises:
            ConfigurationError: There is no such population.
        """
        engine = cast("AsyncEngine", self)
        kept = set(sandbox_ids(keep))
        with self._request():
            members = self._populations.members(population, self._generation(population, generation))
            doomed = [record.id for record in members if record.id not in kept]
            return await engine.batch_destroy(doomed, missing_ok=True)

    async def pin(self, sandboxes: Sequence[SandboxRef]) -> None:
        """Keep sandboxes from the garbage collector until they are unpinned or destroyed.

        Args:
            sandboxes: Which ones; one that is pinned already stays so.

        Raises:
            SandboxNotFound: One of them is not there; none has been pinned.
        """
        with self._request():
            self._populations.pin(sandbox_ids(sandboxes))

    async def unpin(self, sandboxes: Sequence[SandboxRef]) -> None:
        """Let the garbage collector have sandboxes that were pinned; others are left alone.

        Args:
            sandboxes: Which ones; they need not be pinned, nor be there any more.
        """
        with self._request():
            self._populations.unpin(sandbox_ids(sandboxes))

    async def list_pinned(self) -> list[str]:
        """Return the ids of the sandboxes that are pinned, sorted."""
        with self._request():
            return self._populations.pinned()

    async def collect_garbage(self) -> GarbageReport:
        """Collect now: members of generations that are over, unused version trees, orphaned directories.

        The same happens by itself every ``gc_interval_ms``, and when memory runs short; see
        docs/populations.md for what stays.

        Cancellation: What has been destroyed is destroyed.
        """
        with self._request():
            return await self._garbage.collect("demand")

    def _generation(self, population: str, generation: int | None) -> int:
        return self._populations.latest(population) if generation is None else _checked(generation) or 0


def _checked(generation: object) -> int | None:
    if generation is None:
        return None
    if not isinstance(generation, int) or isinstance(generation, bool) or generation < 0:
        raise ConfigurationError(
            f"generation must be a whole number from 0, not {generation!r}", "generation"
        )
    return generation
