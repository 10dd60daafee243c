"""Admission of new sandboxes, bounded by number, in all and in each population, and by free memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from evocell.errors import CapacityError
from evocell.models.specs import SandboxSpec

__all__ = ["Admission"]


class Admission:
    """Counts sandboxes, and refuses those over capacity.

    Args:
        capacity: Most sandboxes in the engine, and most in each population.

    Attributes:
        refusal: Why creation is suspended; None while it is not.
        on_join: Called with the population and generation of each sandbox that joins one.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._members: Counter[str] = Counter()
        self.refusal: CapacityError | None = None
        self.on_join: Callable[[str, int], None] | None = None

    def check(self, specs: Sequence[SandboxSpec], n_there: int) -> None:
        """Refuse sandboxes over capacity.

        Args:
            specs: The new ones.
            n_there: Number of existing sandboxes.

        Raises:
            CapacityError: The engine or a population would have too many, or there is no memory for more.
        """
        if specs and self.refusal is not None:
            raise CapacityError(*self.refusal.args)
        self._refuse_over("the engine", n_there + len(specs))
        joining = Counter(spec.population for spec in specs if spec.population is not None)
        for population, n_new in joining.items():
            self._refuse_over(f"population {population!r}", self._members[population] + n_new)

    def has_room(self, specs: Sequence[SandboxSpec], n_there: int) -> bool:
        """Return whether the number is within capacity, regardless of memory; arguments as for `check`."""
        joining = Counter(spec.population for spec in specs if spec.population is not None)
        most = max((self._members[one] + n_new for one, n_new in joining.items()), default=0)
        return max(most, n_there + len(specs)) <= self._capacity

    def join(self, population: str, generation: int) -> None:
        """Count a sandbox into a population."""
        self._members[population] += 1
        if self.on_join is not None:
            self.on_join(population, generation)

    def leave(self, population: str) -> None:
        """Count a sandbox out of a population."""
        self._members[population] -= 1
        if not self._members[population]:
            del self._members[population]

    def _refuse_over(self, place: str, requested: int) -> None:
        if requested > self._capacity:
            raise CapacityError(
                f"{place} would have {requested:,} live sandboxes, and {self._capacity:,} are allowed; "
                "destroy some, or raise default_max_processes",
                "sandboxes",
                self._capacity,
                requested,
            )
