"""What a turn of a loop and a call of a function cost: a static estimate of the work in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping

from evocell_runtime.metering.names import Costs
from evocell_runtime.metering.scan import CallSite, Function, Work

__all__ = ["Prices"]


class Prices:
    """Prices of a module's loops and functions.

    Args:
        found: Its functions, in order.
        imported: How many functions it imports, which come before them.
        entries: Functions that are charged when they are entered, by their place in the code section.
        costs: Prices of the parts.
    """

    def __init__(self, found: list[Function], imported: int, entries: Container[int], costs: Costs) -> None:
        self.found = found
        self._imported = imported
        self._entries = entries
        self._costs = costs
        self._straight: dict[int, float] = {}

    def of_loops(self, number: int) -> list[int]:
        """A turn of each of a function's loops: the code in it without the loops in it, and what that calls.

        Args:
            number: The function's place in the code section.
        """
        function = self.found[number]
        calls: Mapping[int, list[CallSite]] = defaultdict(list)
        for call in function.calls:
            calls[call.loop].append(call)
        return [
            self._costs.turn + round(self._of_work(loop.work, calls[index]))
            for index, loop in enumerate(function.loops)
        ]

    def of_entry(self, number: int) -> int:
        """A call of a function that is charged when it is entered, without its loops."""
        return self._costs.entry + round(self._of_straight(number))

    def _of_work(self, work: Work, calls: Iterable[CallSite]) -> float:
        costs = self._costs
        return (
            costs.operation * work.operations
            + costs.branch * work.branches
            + costs.quotient * work.quotients
            + costs.vector_store * work.vector_stores
            + sum(call.times * self._of_call(call) for call in calls)
        )

    def _of_call(self, call: CallSite) -> float:
        """What is called is part of what calls it, unless it is charged when it is entered."""
        if call.indirect:
            return self._costs.indirect_call
        number = call.target - self._imported
        return 0.0 if number < 0 or number in self._entries else self._of_straight(number)

    def _of_straight(self, number: int) -> float:
        """A call of a function without its loops.

        It ends, because each circle of calls passes a charged entry, which is no part of what calls it.
        """
        known = self._straight.get(number)
        if known is None:
            function = self.found[number]
            all_of_it = self._of_work(function.work, (call for call in function.calls if call.loop < 0))
            known = self._straight[number] = min(self._costs.most, all_of_it)
        return known
