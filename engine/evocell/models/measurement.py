"""Measurements, their comparison, and duels of two versions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import comb
from typing import Literal

from attrs import field, frozen

from evocell.models.fitness import CaseResult, FitnessResult
from evocell.models.html import table

__all__ = ["Duel", "HeadToHead", "Side"]

CONFIDENCE = 0.95
"""Least confidence level of a median's interval."""

Verdict = Literal["first", "second", "equal", "undecided"]
"""Verdict on the cheaper of two programs."""


@frozen
class Interval:
    """A confidence interval of at least 95 % for the median of the distribution behind the samples.

    Attributes:
        median: The middle of the samples.
        low: Its lower bound.
        high: Its upper bound.
        n: Number of samples.

    Source: the order statistics of a sample bound its median, whatever its distribution (the sign test).
    """

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Interval:
        """Return the interval of samples; infinite for fewer than six.

        Args:
            samples: At least one.
        """
        ordered = sorted(samples)
        n = len(ordered)
        skipped, tail = -1, 0.0  # number of samples that may be excluded at either end
        while (tail := tail + 2 * comb(n, skipped + 1) / 2**n) <= 1 - CONFIDENCE:
            skipped += 1
        middle = statistics.median(ordered)
        if skipped < 0:
            return cls(middle, -float("inf"), float("inf"), n)
        return cls(middle, ordered[skipped], ordered[n - 1 - skipped], n)

    @property
    def excludes_one(self) -> bool:
        """Whether the interval excludes a ratio of 1."""
        return self.low > 1 or self.high < 1


@frozen
class Measurement:
    """The cost of one program over all cases.

    Attributes:
        result: Its fitness, and each case's outcome, from the first repeat.
        wall_s: Run time of the calls in seconds, a sum for each repeat.
        case_wall_s: For each case that ran, its seconds in each repeat.
        repeatable: Whether fuel, memory and outcomes were the same in every repeat.
        overhead_fuel: Fuel of the same calls to an empty function: decoding the arguments, loading the
            code, answering. 0 if unknown.
    """

    result: FitnessResult
    wall_s: tuple[float, ...]
    case_wall_s: tuple[tuple[float, ...], ...] = ()
    repeatable: bool = True
    overhead_fuel: int = 0

    @property
    def fuel(self) -> int:
        """Total fuel of all cases."""
        return self.result.fuel_used

    @property
    def own_fuel(self) -> int:
        """Fuel above that of the same calls to an empty function."""
        return max(0, self.fuel - self.overhead_fuel)

    @property
    def peak_memory_bytes(self) -> int:
        """Peak memory of any case above the image."""
        return self.result.peak_memory_bytes

    @classmethod
    def of(cls, results: Sequence[FitnessResult], *, overhead_fuel: int = 0) -> Measurement:
        """Combine repeats of one program's evaluation.

        Args:
            results: One result per repeat, at least one.
            overhead_fuel: Fuel of the same calls to an empty function.
        """
        first = results[0]
        n_cases = min(len(result.test_results) for result in results)
        walls = tuple(
            tuple(result.test_results[index].outcome.wall_s for result in results) for index in range(n_cases)
        )
        totals = tuple(sum(case.outcome.wall_s for case in result.test_results) for result in results)
        return cls(
            first,
            totals,
            walls,
            repeatable=all(_same(first, other) for other in results),
            overhead_fuel=overhead_fuel,
        )


@frozen
class Comparison:
    """The comparison of two programs on the same cases. Ratios are the second's over the first's.

    Attributes:
        first: The cost of the first.
        second: The cost of the second.
    """

    first: Measurement
    second: Measurement

    def _repr_html_(self) -> str:
        wall = self.wall_ratio
        return table(
            ("", "first", "second", "ratio"),
            [
                ("own fuel", self.first.own_fuel, self.second.own_fuel, self.fuel_ratio or ""),
                (
                    "peak memory, bytes",
                    self.first.peak_memory_bytes,
                    self.second.peak_memory_bytes,
                    self.memory_ratio or "",
                ),
                ("time", "", "", "" if wall is None else f"{wall.low:.3g} to {wall.high:.3g}"),
            ],
            caption="the second beside the first",
        )

    @property
    def fuel_ratio(self) -> float | None:
        """Own fuel of the second over that of the first; exact. None where the first used none."""
        return self.second.own_fuel / self.first.own_fuel if self.first.own_fuel else None

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory of the second over that of the first; None where the first took none."""
        before = self.first.peak_memory_bytes
        return self.second.peak_memory_bytes / before if before else None

    @property
    def wall_ratio(self) -> Interval | None:
        """Time of the second over that of the first, paired by repeat; None where one of them took none."""
        pairs = list(zip(self.first.wall_s, self.second.wall_s, strict=True))
        if not pairs or any(one <= 0 or other <= 0 for one, other in pairs):
            return None
        return Interval.of([other / one for one, other in pairs])

    @property
    def by_fuel(self) -> Verdict:
        """Which program uses less fuel. A failed program never wins; of two failed ones, neither does."""
        return self._judge(self.first.fuel, self.second.fuel)

    @property
    def by_memory(self) -> Verdict:
        """Which program uses less memory; failures as in `by_fuel`."""
        return self._judge(self.first.peak_memory_bytes, self.second.peak_memory_bytes)

    @property
    def by_time(self) -> Verdict:
        """Which program is faster; ``"undecided"`` if noise may explain it. Failures as in `by_fuel`."""
        failed = self._failed()
        if failed is not None:
            return failed
        ratio = self.wall_ratio
        if ratio is None or not ratio.excludes_one:
            return "undecided"
        return "first" if ratio.low > 1 else "second"

    def _judge(self, first: int, second: int) -> Verdict:
        failed = self._failed()
        if failed is not None:
            return failed
        if not (self.first.repeatable and self.second.repeatable):
            return "undecided"
        if first == second:
            return "equal"
        return "first" if first < second else "second"

    def _failed(self) -> Verdict | None:
        valid = self.first.result.valid, self.second.result.valid
        verdicts: dict[tuple[bool, bool], Verdict] = {
            (False, False): "undecided",
            (True, False): "first",
            (False, True): "second",
        }
        return verdicts.get(valid)


def _same(one: FitnessResult, other: FitnessResult) -> bool:
    """Return whether two evaluations agree in everything that noise does not affect."""
    return (one.fuel_used, one.peak_memory_bytes, one.valid, one.fitness_score, one.objectives) == (
        other.fuel_used,
        other.peak_memory_bytes,
        other.valid,
        other.fitness_score,
        other.objectives,
    ) and [case.outcome.kind for case in one.test_results] == [
        case.outcome.kind for case in other.test_results
    ]


Side = Literal["first", "second", "draw"]


@frozen(kw_only=True)
class Duel:
    """The results of two versions for one case, run in one guest.

    Attributes:
        first: The result of the first version.
        second: The result of the second one.
        same: Whether both returned the same value.
    """

    first: CaseResult
    second: CaseResult
    same: bool


@frozen(kw_only=True)
class HeadToHead:
    """The comparison of two versions that were scored on the same cases in the same guests.

    Attributes:
        first: Fitness of the first version.
        second: Fitness of the second one.
        duels: Each case, in order.
        winner: The version with the better fitness: ``"first"``, ``"second"``, or ``"draw"``. A valid one
            wins against an invalid one; with several objectives only a dominating one wins (better in one
            and worse in none).
    """

    first: FitnessResult
    second: FitnessResult
    duels: tuple[Duel, ...] = field(repr=False)
    winner: Side

    @property
    def agree(self) -> bool:
        """Whether both returned the same value in every case."""
        return all(duel.same for duel in self.duels)
