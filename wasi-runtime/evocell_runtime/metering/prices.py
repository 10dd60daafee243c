"""Static fuel prices of a loop's iterations and of function calls, from an estimate of the work in them."""

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
        imported: Number of imported functions, whose indices come first.
        entries: Indices in the code section of the functions that are charged on entry.
        costs: Prices of the kinds of instructions.
    """

    def __init__(self, found: list[Function], imported: int, entries: Container[int], costs: Costs) -> None:
        self.found = found
        self._imported = imported
        self._entries = entries
        self._costs = costs
        self._straight: dict[int, float] = {}

    def of_loops(self, number: int) -> list[int]:
        """Return the price of one iteration of each of a function's loops.

        It covers the code of the loop without its inner loops, and the functions called there that are not
        charged on entry.

        Args:
            number: The function's index in the code section.
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
        """Return the price of a call of a function that is charged on entry, without its loops."""
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
        """Return a callee's share in its caller's price: 0 if it is imported or charged on entry."""
        if call.indirect:
            return self._costs.indirect_call
        number = call.target - self._imported
        return 0.0 if number < 0 or number in self._entries else self._of_straight(number)

    def _of_straight(self, number: int) -> float:
        """Return the price of a call of a function without its loops.

        The recursion ends: each cycle of calls contains a function that is charged on entry, and the price of
        such a function is not part of its callers'.
        """
        known = self._straight.get(number)
        if known is None:
            function = self.found[number]
            all_of_it = self._of_work(function.work, (call for call in function.calls if call.loop < 0))
            known = self._straight[number] = min(self._costs.most, all_of_it)
        return known
