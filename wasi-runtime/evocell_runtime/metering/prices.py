"""What a turn of a loop costs: a static estimate of the work in it."""

from __future__ import annotations

from evocell_runtime.metering.names import Costs
from evocell_runtime.metering.scan import CallSite, Function

__all__ = ["Prices"]


class Prices:
    """Prices of a module's loops.

    Args:
        found: Its functions, in order.
        imported: How many functions it imports, which come before them.
        costs: Prices of the parts.
    """

    def __init__(self, found: list[Function], imported: int, costs: Costs) -> None:
        self.found = found
        self._imported = imported
        self._costs = costs
        self._straight: dict[tuple[int, int], int] = {}

    def of_loop(self, number: int, loop_number: int) -> int:
        """A turn of a loop: the code in it without the loops in it, and what it calls.

        Args:
            number: The function's place in the code section.
            loop_number: The loop's place among the function's.
        """
        function, costs = self.found[number], self._costs
        loop = function.loops[loop_number]
        tight = not loop.calls_inside and not loop.loops_inside
        rate = costs.tight_bytes_per_fuel if tight else costs.bytes_per_fuel
        price = costs.turn + min(costs.most, loop.own_bytes // rate)
        if loop.calls:
            calls = (call for call in function.calls if call.loop == loop_number)
            every = min(costs.most_calls, sum(self._of_call(call, costs.call_depth) for call in calls))
            price += every * min(costs.whole_bytes, loop.own_bytes) // max(1, loop.own_bytes)
        return price

    def _of_call(self, call: CallSite, depth: int) -> int:
        if call.indirect or call.target < self._imported:
            return self._costs.call
        return max(self._costs.call, self._of_function(call.target - self._imported, depth))

    def _of_function(self, number: int, depth: int) -> int:
        """A call of a function without its loops, which are charged by themselves; half of its branches."""
        known = self._straight.get((number, depth))
        if known is None:
            function, costs = self.found[number], self._costs
            known = min(costs.most, function.straight_bytes // (2 * costs.bytes_per_fuel))
            if depth > 1:
                outside = (call for call in function.calls if call.loop < 0)
                known += min(costs.most_calls, sum(self._of_call(call, depth - 1) for call in outside) // 2)
            self._straight[number, depth] = known
        return known
