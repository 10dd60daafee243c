"""Two versions on the same cases, in one sandbox."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

from evocell.models.fitness import CaseResult, FitnessResult

__all__ = ["Duel", "HeadToHead", "Side"]

Side = Literal["first", "second", "draw"]


@frozen(kw_only=True)
class Duel:
    """One case, run by both versions in one guest.

    Attributes:
        first: What the first version made of it.
        second: What the second one made of it.
        same: Whether both returned the same value.
    """

    first: CaseResult
    second: CaseResult
    same: bool


@frozen(kw_only=True)
class HeadToHead:
    """Two versions, scored on the same cases in the same guests.

    Attributes:
        first: Fitness of the first version.
        second: Fitness of the second one.
        duels: Each case, in order.
        winner: Whose fitness is better: ``"first"``, ``"second"``, or ``"draw"``. One that is valid wins
            against one that is not; with several objectives only one that is better in one and worse in none
            wins.
    """

    first: FitnessResult
    second: FitnessResult
    duels: tuple[Duel, ...] = field(repr=False)
    winner: Side

    @property
    def agree(self) -> bool:
        """Whether both returned the same value in every case."""
        return all(duel.same for duel in self.duels)
