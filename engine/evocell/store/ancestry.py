"""The ancestry graph in memory: ancestors and descendants of an individual, by topological position.

Positions are assigned in topological order, parents before children. The ancestors of an individual are
therefore found in one pass over the positions downwards, with one mark byte each, and its descendants in one
pass upwards; neither needs a set, a queue, or lists of children.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

__all__ = ["AncestryGraph"]


class AncestryGraph:
    """Parents of individuals: two numbers each, and a tuple for the few with more than two parents."""

    def __init__(self) -> None:
        self._first: list[int] = []  # an individual without a parent has its own position here
        self._second: list[int] = []
        self._more: dict[int, tuple[int, ...]] = {}
        self._depths: list[int] = []
        self._with_children: set[int] = set()

    def __len__(self) -> int:
        return len(self._first)

    def add(self, parents: Sequence[int]) -> int:
        """Add an individual and return its position.

        Args:
            parents: Positions of its parents, without repetition.
        """
        place = len(self._first)
        self._first.append(parents[0] if parents else place)
        self._second.append(parents[1] if len(parents) > 1 else place)
        if len(parents) > 2:  # noqa: PLR2004 - the first two have lists of their own
            self._more[place] = tuple(parents[2:])
        self._depths.append(1 + max(self._depths[parent] for parent in parents) if parents else 0)
        self._with_children.update(parents)
        return place

    def parents(self, place: int) -> tuple[int, ...]:
        """Return the positions of an individual's parents."""
        first, second = self._first[place], self._second[place]
        if first == place:
            return ()
        known = (first,) if second == place else (first, second)
        return known + self._more.get(place, ())

    def depth(self, place: int) -> int:
        """Return the steps to the farthest seed it descends from."""
        return self._depths[place]

    def has_children(self, place: int) -> bool:
        """Return whether an individual has children."""
        return place in self._with_children

    def line(self, place: int) -> list[int]:
        """Return the line along first parents, from the seed to the individual."""
        line = [place]
        while self._first[place] != place:
            place = self._first[place]
            line.append(place)
        line.reverse()
        return line

    def above(self, starts: Sequence[int]) -> bytearray:
        """Mark some individuals and all their ancestors.

        Returns:
            A byte per position up to the highest of `starts`: 1 if marked.
        """
        top = max(starts)
        marks = bytearray(top + 1)
        for start in starts:
            marks[start] = 1
        first, second, more = self._first, self._second, self._more
        # The marks are read while they are written: a marked individual has a lower position and comes later.
        if not more:
            firsts = compress(reversed(first[: top + 1]), reversed(marks))
            seconds = compress(reversed(second[: top + 1]), reversed(marks))
            for one, other in zip(firsts, seconds, strict=True):
                marks[one] = marks[other] = 1
            return marks
        for place in compress(range(top, -1, -1), reversed(marks)):
            marks[first[place]] = marks[second[place]] = 1
            for parent in more.get(place, ()):
                marks[parent] = 1
        return marks

    def below(self, start: int) -> bytearray:
        """Mark all descendants of an individual.

        Returns:
            A byte per position above `start`: 1 if marked.
        """
        end = len(self._first)
        marks = bytearray(end)
        marks[start] = 1
        if start in self._with_children:
            if self._more:
                for place in range(start + 1, end):
                    marks[place] = any(marks[parent] for parent in self.parents(place))
            else:
                first, second = self._first[start + 1 :], self._second[start + 1 :]
                for place, one, other in zip(range(start + 1, end), first, second, strict=True):
                    if marks[one] or marks[other]:
                        marks[place] = 1
        return marks[start + 1 :]

    def youngest_common(self, one: int, other: int) -> int | None:
        """Return the youngest common ancestor of two individuals, which may be one of them, or None."""
        if one == other:
            return one
        top = max(one, other)
        marks = bytearray(top + 1)
        marks[one], marks[other] = 1, 2
        for place in compress(range(top, -1, -1), reversed(marks)):
            mark = marks[place]
            if mark == 3:  # noqa: PLR2004 - reached from both
                return place
            for parent in self.parents(place):
                marks[parent] |= mark
        return None
