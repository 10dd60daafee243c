"""Figures of the page, updated with each evaluation: columns, failures, leaders and points.

A column summarises a generation or a range of individuals, a point is one individual in the scatter plot.
"""

from __future__ import annotations

import heapq
import math
import secrets
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from attrs import evolve

from evocell.page.rows import Member
from evocell.store.schema import NUMBER_BITS

__all__ = ["LEADERS", "MAX_COLUMNS", "MAX_POINTS", "WINDOWS", "Figures"]

WINDOWS = 40
"""Columns of the charts for a run without generations; up to twice as many while it is running."""

MAX_COLUMNS = 400
"""Most columns of a run with generations; beyond, neighbouring generations share one."""

MAX_POINTS = 40_000
"""Most points; beyond, only every second, fourth, ... individual is one."""

LEADERS = 10
"""Number of the fittest programs that are shown; equal programs count as one."""

_MOST_KINDS = 20
_OTHER = "other"


class Figures:
    """Data of the charts for the individuals evaluated in one task.

    A reader fetches only changes: columns since a revision, points since a cursor. Both are valid within an
    epoch, which ends when the columns are laid out again.

    Args:
        direction: ``"maximize"`` or ``"minimize"``.

    Attributes:
        members: All individuals, in the order of their first evaluation.
        epoch: Random name of the current layout.
        revision: Increases with each change of columns.
        n_evaluations: Number of evaluations; an individual may have several.
        fuel: Fuel of all evaluations.
        busy_s: Sum of the durations of all evaluations, in seconds.
        last_at: End of the latest evaluation of each run, as a Unix time.
    """

    def __init__(self, direction: str) -> None:
        self.direction = direction
        self.members: list[Member] = []
        self.n_evaluations = 0
        self.fuel = 0
        self.busy_s = 0.0
        self.last_at: dict[int, float] = {}
        self._place: dict[int, int] = {}
        self._generations: set[int] = set()
        self._ranked: list[Member] | None = []
        self._best_of: dict[str, Member] = {}
        self._copies: Counter[str] = Counter()
        self._lay_out()

    def add(self, member: Member) -> None:
        """Add an evaluation; it replaces an earlier one of the same individual."""
        self.n_evaluations += 1
        self.fuel += member.fuel
        self.busy_s += member.time_ms / 1000
        run = member.number >> NUMBER_BITS
        self.last_at[run] = max(member.at, self.last_at.get(run, 0.0))
        place = self._place.get(member.number)
        if place is not None:
            self._replace(place, member)
            return
        self._place[member.number] = len(self.members)
        self.members.append(member)
        self._generations.add(member.generation)
        if self._outgrown():
            self._lay_out()
        else:
            self._enter(len(self.members) - 1)
        self._copies[_program(member)] += 1
        if self._ranked is not None:
            self._consider(member)

    def adjust(self, number: int, score: float, at: float) -> None:
        """Change an individual's fitness, if it is known here and was not evaluated after the adjustment."""
        place = self._place.get(number)
        if place is None or not math.isfinite(score):
            return
        member = self.members[place]
        if member.score != score and member.at <= at:
            self._replace(place, evolve(member, score=score))

    def settle(self) -> None:
        """Lay the columns out for the present individuals, as for a run that has ended."""
        self._lay_out()

    @property
    def column_name(self) -> str:
        """Unit of the columns: ``"generation"``, or ``"evaluations"`` if there is only one generation."""
        return "generation" if len(self._generations) > 1 else "evaluations"

    @property
    def n_valid(self) -> int:
        """Number of valid individuals with a score."""
        return sum(one["n_valid"] for one in self.columns())

    @property
    def generation(self) -> int:
        """The latest generation."""
        return max(self._generations, default=0)

    @property
    def cursor(self) -> int:
        """Length of the log of new and changed points."""
        return len(self._log)

    @property
    def stride(self) -> int:
        """Every how many-th individual is a point."""
        return self._stride

    def columns(self, since: int = -1) -> list[dict[str, Any]]:
        """Return the columns that changed after a revision, in order; all of them by default."""
        if self._dirty:
            self._summarise()
        return [self._columns[label] for label in sorted(self._columns) if self._changed[label] > since]

    def deaths(self) -> list[tuple[str, int]]:
        """Return the number of invalid individuals for each reason, most frequent first."""
        total: Counter[str] = Counter()
        for column in self.columns():
            total.update(column["deaths"])
        return total.most_common()

    def leaders(self) -> list[tuple[Member, int]]:
        """Return the fittest individuals with distinct programs, and the number of individuals with each."""
        if self._ranked is None:
            self._best_of = {}
            self._ranked = []
            for member in self.members:
                self._consider(member)
        if len(self._ranked) != min(LEADERS, len(self._best_of)):
            self._ranked = heapq.nsmallest(LEADERS, self._best_of.values(), key=self._rank)
        return [(one, self._copies[_program(one)]) for one in self._ranked]

    def points(self, cursor: int = 0, most: int | None = None) -> tuple[dict[str, list[Any]], int]:
        """Return the points that are new or have changed since a cursor, and the next cursor.

        They are given as one list per attribute, which is shorter as JSON than one object per point.

        Args:
            cursor: Position in the log up to which it has been read.
            most: Most entries of the log to read; None for all.
        """
        end = len(self._log) if most is None else min(len(self._log), cursor + most)
        places = list(dict.fromkeys(self._log[cursor:end]))
        members = [self.members[place] for place in places]
        return {
            "place": [place // self._stride for place in places],
            "number": [one.number for one in members],
            "id": [one.id for one in members],
            "column": [self._label[place] for place in places],
            "score": [one.score if one.valid else None for one in members],
            "fuel": [one.fuel for one in members],
        }, end

    def _replace(self, place: int, member: Member) -> None:
        before = self.members[place]
        self.members[place] = member
        self._copies[_program(before)] -= 1
        self._copies[_program(member)] += 1
        self._ranked = None
        self._generations.add(member.generation)
        if self._outgrown():
            self._lay_out()
            return
        label, old = self._label_of(place), self._label[place]
        if label != old:
            self._inside[old].remove(place)
            self._inside.setdefault(label, []).append(place)
            self._label[place] = label
        self._dirty.update((label, old))
        self._note(place)

    def _outgrown(self) -> bool:
        if self.column_name != self._laid_out:
            return True
        if len(self.members) > MAX_POINTS * self._stride:
            return True
        if self._laid_out == "generation":
            return len(self._inside) > 2 * MAX_COLUMNS
        return len(self.members) > 2 * WINDOWS * self._width

    def _lay_out(self) -> None:
        self.epoch = secrets.token_hex(8)
        self.revision = 0
        self._laid_out = self.column_name
        self._width = 1
        if self._laid_out == "generation":
            while len({one // self._width for one in self._generations}) > MAX_COLUMNS:
                self._width *= 2
        else:
            self._width = max(1, -(-len(self.members) // WINDOWS))
        self._stride = 1
        while len(self.members) > MAX_POINTS * self._stride:
            self._stride *= 2
        self._label: list[int] = []
        self._inside: dict[int, list[int]] = {}
        self._dirty: set[int] = set()
        self._columns: dict[int, dict[str, Any]] = {}
        self._changed: dict[int, int] = {}
        self._log: list[int] = []
        for place in range(len(self.members)):
            self._enter(place)

    def _enter(self, place: int) -> None:
        label = self._label_of(place)
        self._label.append(label)
        self._inside.setdefault(label, []).append(place)
        self._dirty.add(label)
        self._note(place)

    def _label_of(self, place: int) -> int:
        position = self.members[place].generation if self._laid_out == "generation" else place
        return position // self._width * self._width

    def _note(self, place: int) -> None:
        if place % self._stride == 0:
            self._log.append(place)

    def _consider(self, member: Member) -> None:
        if not member.valid or member.score is None:
            return
        program = _program(member)
        known = self._best_of.get(program)
        if known is not None and self._rank(known) <= self._rank(member):
            return
        self._best_of[program] = member
        ranked = self._ranked or []
        if len(ranked) < LEADERS or self._rank(member) < self._rank(ranked[-1]):
            self._ranked = []  # chosen again when they are asked for

    def _rank(self, member: Member) -> tuple[float, int]:
        score = member.score or 0.0
        return (score if self.direction == "minimize" else -score), self._place[member.number]

    def _summarise(self) -> None:
        for label in self._dirty:
            inside = [self.members[place] for place in self._inside[label]]
            self._columns[label] = {**_summary(label, self._width, inside), "best": None}
            self._changed[label] = self.revision + 1
        self._dirty = set()
        best: float | None = None
        better = min if self.direction == "minimize" else max
        for label in sorted(self._columns):
            column = self._columns[label]
            leader = column["low"] if self.direction == "minimize" else column["high"]
            if leader is not None:
                best = leader if best is None else better(best, leader)
            if column["best"] != best:
                column["best"] = best
                self._changed[label] = self.revision + 1
        self.revision += 1


def _program(member: Member) -> str:
    """Return a key that equal programs share."""
    return member.version or f"#{member.number}"


def _summary(label: int, width: int, inside: Sequence[Member]) -> dict[str, Any]:
    scores = sorted(one.score for one in inside if one.valid and one.score is not None)
    reasons = Counter(one.reason for one in inside if one.reason)
    deaths = dict(reasons.most_common(_MOST_KINDS))
    if len(reasons) > _MOST_KINDS:
        deaths[_OTHER] = sum(reasons.values()) - sum(deaths.values())
    return {
        "label": label,
        "width": width,
        "n": len(inside),
        "n_valid": len(scores),
        "low": scores[0] if scores else None,
        "high": scores[-1] if scores else None,
        "quartiles": _quartiles(scores),
        "mean": _mean(scores),
        "deaths": deaths,
        "fuel": sum(one.fuel for one in inside),
        "busy_s": sum(one.time_ms for one in inside) / 1000,
    }


def _quartiles(scores: Sequence[float]) -> list[float] | None:
    if not scores:
        return None
    found = []
    for quarter in (1, 2, 3):
        whole, part = divmod(quarter * (len(scores) - 1), 4)
        above = scores[min(whole + 1, len(scores) - 1)]
        # A weighted sum, since the difference of two large numbers may overflow.
        found.append(scores[whole] if not part else scores[whole] * (1 - part / 4) + above * (part / 4))
    return found


def _mean(scores: Sequence[float]) -> float | None:
    try:
        return statistics.fmean(scores) if scores else None
    except OverflowError:
        return None
