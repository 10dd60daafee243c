"""The engine as most programs use it: populations, their generations, and the garbage collector."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from evocell.api.asking import AsyncFitness, Fitness
from evocell.api.async_populations import AsyncPopulations
from evocell.api.options import SandboxRef
from evocell.api.portal import Portal
from evocell.api.sandbox import Sandbox
from evocell.evaluation.evaluator import Progress
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import Direction, FitnessResult
from evocell.models.populations import GarbageReport, GenerationState, Offspring
from evocell.models.state import PopulationState, SandboxState

__all__ = ["Populations"]


class Populations:
    """The part of `Engine` that tracks populations; see there."""

    _thread: Portal
    _engine: AsyncPopulations

    def create_population(
        self, population: str, *, parent_population_id: str | None = None, direction: Direction | None = None
    ) -> PopulationState:
        """Enter a population that has no members yet; see `AsyncEngine.create_population`."""
        return self._thread.call(
            partial(
                self._engine.create_population,
                population,
                parent_population_id=parent_population_id,
                direction=direction,
            )
        )

    def resume_population(self, population: str, *, direction: Direction | None = None) -> list[Sandbox]:
        """Enter a population, or go on with it; see `AsyncEngine.resume_population`."""
        twins = self._thread.call(partial(self._engine.resume_population, population, direction=direction))
        return [Sandbox(self._thread, twin) for twin in twins]

    def get_population(self, population: str) -> PopulationState:
        """Return what is known of a population; see `AsyncEngine.get_population`."""
        return self._thread.call(partial(self._engine.get_population, population))

    def list_populations(self) -> list[PopulationState]:
        """Return the state of every population, oldest first; see `AsyncEngine.list_populations`."""
        return self._thread.call(self._engine.list_populations)

    def get_members(self, population: str, generation: int | None = None) -> list[str]:
        """Return the ids of a population's sandboxes; see `AsyncEngine.get_members`."""
        return self._thread.call(partial(self._engine.get_members, population, generation))

    def list_generations(self, population: str, generation: int | None = None) -> list[GenerationState]:
        """Return the generations of a population; see `AsyncEngine.list_generations`."""
        return self._thread.call(partial(self._engine.list_generations, population, generation))

    def best(self, population: str, most: int = 1, *, generation: int | None = None) -> list[Sandbox]:
        """Return the fittest sandboxes of a population; see `AsyncEngine.best`."""
        twins = self._thread.call(partial(self._engine.best, population, most, generation=generation))
        return [Sandbox(self._thread, twin) for twin in twins]

    def next_generation(
        self, population: str, offspring: Sequence[Offspring], *, into: str | None = None
    ) -> list[Sandbox]:
        """Create the generation after the latest one; see `AsyncEngine.next_generation`."""
        twins = self._thread.call(partial(self._engine.next_generation, population, offspring, into=into))
        return [Sandbox(self._thread, twin) for twin in twins]

    def evaluate_generation(
        self,
        population: str,
        fitness: Evaluation | Fitness | AsyncFitness,
        *,
        generation: int | None = None,
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[FitnessResult]:
        """Find the fitness of a generation's sandboxes; see `AsyncEngine.evaluate_generation`."""
        return self._thread.call(
            partial(
                self._engine.evaluate_generation,
                population,
                fitness,
                generation=generation,
                deadline_s=deadline_s,
                progress=progress,
            )
        )

    def destroy_generation(
        self, population: str, *, generation: int | None = None, keep: Sequence[SandboxRef] = ()
    ) -> list[SandboxState]:
        """Destroy a generation's sandboxes; see `AsyncEngine.destroy_generation`."""
        return self._thread.call(
            partial(self._engine.destroy_generation, population, generation=generation, keep=keep)
        )

    def pin(self, sandboxes: Sequence[SandboxRef]) -> None:
        """Keep sandboxes from the garbage collector; see `AsyncEngine.pin`."""
        self._thread.call(partial(self._engine.pin, sandboxes))

    def unpin(self, sandboxes: Sequence[SandboxRef]) -> None:
        """Let the garbage collector have sandboxes again; see `AsyncEngine.unpin`."""
        self._thread.call(partial(self._engine.unpin, sandboxes))

    def list_pinned(self) -> list[str]:
        """Return the ids of the sandboxes that are pinned, sorted."""
        return self._thread.call(self._engine.list_pinned)

    def collect_garbage(self) -> GarbageReport:
        """Collect now; see `AsyncEngine.collect_garbage`."""
        return self._thread.call(self._engine.collect_garbage)
