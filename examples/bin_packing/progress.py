"""Where a run is, for whoever watches it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeAlias

from attrs import field, frozen

from .evolve import Generation, Individual, Verdict
from .saboteurs import SABOTEURS


@frozen(kw_only=True)
class Progress:
    """Where a run is.

    Attributes:
        number: The generation it is in, from 0.
        judged: Programs of that generation that have been evaluated.
        population: Programs in each generation.
        complete: Whether the generation is over.
        history: Best excess after each generation that is over; None where nobody lived.
        mean_excess: Mean over the survivors of the last of them; None before the first.
        best_source: Program of the best so far; None before there is one.
        baseline: Excess of best-fit on the same instances.
        deaths: Programs that died so far, by kind.
        saboteurs: What each saboteur died of, by label, None while it is not known.
        evaluations: Programs evaluated so far.
        wall_s: Seconds since the first evaluation began.
    """

    number: int
    judged: int
    population: int
    complete: bool
    history: tuple[float | None, ...]
    mean_excess: float | None
    best_source: str | None
    baseline: float
    deaths: Mapping[str, int]
    saboteurs: Mapping[str, str | None]
    evaluations: int
    wall_s: float = field(eq=False)


Watch: TypeAlias = Callable[[Progress], None]


class Reporter:
    """Keeps count of what happens in a run and tells it to whoever watches.

    Args:
        watch: Called after each verdict and each generation; None if nobody watches.
        population: Programs in each generation.
        baseline: Excess of best-fit on the training instances.
    """

    def __init__(self, watch: Watch | None, population: int, baseline: float) -> None:
        self._watch = watch
        self._population = population
        self._baseline = baseline
        self._began = time.perf_counter()
        self._number = 0
        self._judged = 0
        self._history: list[float | None] = []
        self._latest: Generation | None = None
        self._saboteurs: dict[str, str | None] = dict.fromkeys(one.label for one in SABOTEURS)
        self.deaths: Counter[str] = Counter()
        self.evaluations = 0

    @property
    def wall_s(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    def judged(self, individual: Individual, verdict: Verdict) -> None:
        """Note a verdict."""
        self._number = individual.generation
        self._judged += 1
        self.evaluations += 1
        if verdict.death is not None:
            self.deaths[verdict.death] += 1
        for one in SABOTEURS:
            if individual.tree is None and one.source == individual.source:
                self._saboteurs[one.label] = verdict.death
        self._tell(complete=False)

    def over(self, generation: Generation) -> None:
        """Note the end of a generation."""
        self._latest = generation
        self._history.append(generation.best.verdict.excess if generation.best else None)
        self._tell(complete=True)
        self._judged = 0

    def _tell(self, *, complete: bool) -> None:
        if self._watch is None:
            return
        best = self._latest.best if self._latest is not None else None
        self._watch(
            Progress(
                number=self._number,
                judged=self._judged,
                population=self._population,
                complete=complete,
                history=tuple(self._history),
                mean_excess=self._latest.mean_excess if self._latest is not None else None,
                best_source=best.individual.source if best is not None else None,
                baseline=self._baseline,
                deaths=dict(sorted(self.deaths.items())),
                saboteurs=dict(self._saboteurs),
                evaluations=self.evaluations,
                wall_s=self.wall_s,
            )
        )
