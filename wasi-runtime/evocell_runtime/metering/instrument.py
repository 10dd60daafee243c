"""Fuel of our own, written into a module's code: a counter that is charged where code can repeat.

wasmtime's fuel is checked at every loop and every function by a branch to a call, and a call that is possible
keeps Cranelift from holding values in registers. Here the counter is a global of the module that is charged
at loop headers, at the entries of functions that close a recursion, and by the length of bulk memory
operations; when it runs out the code traps, without a call. See docs/decisions/0020.

What the module gains:

- three mutable globals, exported: `fuel`, what is left of a call's, `pause_at`, what will be left at the
  next pause, and `slice`, the fuel between two pauses. No instruction of the original code can name them.
- a function `charge`, exported: takes fuel for work that was done outside of the code, and gives what is
  left.
- pauses, so that a long call can be set aside between two slices: where the interpreter's dispatch loop finds
  the counter below `pause_at` it sets a bit of the eval breaker, and where
  CPython handles that bit it calls out. Both are in places where CPython has a call that is seldom made, so
  it costs the dispatch loop nothing. Loops that call in any case, outside of the dispatch loop, call out by
  themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from evocell_runtime.leb128 import read_unsigned, write_signed, write_unsigned
from evocell_runtime.metering.names import COSTS, Costs
from evocell_runtime.metering.prices import Prices
from evocell_runtime.metering.scan import Function

__all__ = ["Plan", "instrumented"]


@frozen(kw_only=True)
class Plan:
    """What is charged and where the code pauses.

    Attributes:
        fuel: Index of the global that counts.
        pause_at: Index of the global with the next pause.
        slice: Index of the global with the fuel between two pauses.
        charge: Index of the appended function that charges.
        pause: Index of the imported function that pauses.
        charged_yield: Index of the appended function that stands in for `pause` where the original code
            calls it.
        entries: Functions that are charged when they are entered, by their place in the code section.
        dispatch: The dispatch loop: the function, and the loop's number in it.
        handler: The function that handles the eval breaker.
        breaker: Offset of the eval breaker in the thread state, which both take as their first parameter.
        parameters: For each function how many parameters it has.
        prices: What each loop and entry costs.
        costs: Prices of the parts.
    """

    fuel: int
    pause_at: int
    slice: int
    charge: int
    pause: int
    charged_yield: int
    entries: frozenset[int]
    dispatch: tuple[int, int]
    handler: int
    breaker: int
    parameters: Sequence[int]
    prices: Prices
    costs: Costs = COSTS


def instrumented(code: bytes, plan: Plan) -> list[bytes]:
    """Write the charges into each function.

    Args:
        code: The code section's contents.
        plan: What is charged.

    Returns:
        The functions' code, each with its length before it.
    """
    out: list[bytes] = []
    for number, function in enumerate(plan.prices.found):
        body = _function(code, function, number, plan)
        out.append(write_unsigned(len(body)) + body)
    return out


def _function(code: bytes, function: Function, number: int, plan: Plan) -> bytes:
    inserts: list[tuple[int, int, bytes]] = []  # where, up to where the original is left out, what instead
    if number in plan.entries:
        inserts.append((function.code, function.code, _charge(plan, plan.prices.of_entry(number))))
    if number == plan.handler:
        inserts.append((function.code, function.code, _handle_pause(plan)))
    for index, (loop, cost) in enumerate(
        zip(function.loops, plan.prices.of_loops(number) if function.loops else (), strict=True)
    ):
        if (number, index) == plan.dispatch:
            text = _charge_and_ask(plan, plan.costs.dispatch)
        elif loop.calls_inside and number != plan.dispatch[0]:
            text = _charge_and_pause(plan, cost)
        else:
            text = _charge(plan, cost)
        inserts.append((loop.start, loop.start, text))
    inserts += [
        (call.at, call.end, bytes([code[call.at]]) + write_unsigned(plan.charged_yield))
        for call in function.calls
        if not call.indirect and call.target == plan.pause
    ]
    length = b""
    if function.bulk:
        length = write_unsigned(plan.parameters[number] + function.locals_count)
        inserts += [(bulk.at, bulk.at, _charge_bulk(plan, length)) for bulk in function.bulk]
    inserts.sort(key=lambda row: row[0])
    parts = [_locals(code, function, one_more=bool(length))]
    at = function.code
    for start, end, text in inserts:
        parts += (code[at:start], text)
        at = end
    parts.append(code[at : function.end])
    return b"".join(parts)


def _locals(code: bytes, function: Function, *, one_more: bool) -> bytes:
    """A function's declaration of locals, with one of 32 bits more at the end if one is needed."""
    original = code[function.begin : function.code]
    if not one_more:
        return original
    groups, at = read_unsigned(original, 0)
    return write_unsigned(groups + 1) + original[at:] + b"\x01\x7f"


def _get(index: int) -> bytes:
    return b"\x23" + write_unsigned(index)


def _set(index: int) -> bytes:
    return b"\x24" + write_unsigned(index)


def _i64(value: int) -> bytes:
    return b"\x42" + write_signed(value)


def _i32(value: int) -> bytes:
    return b"\x41" + write_signed(value)


_BREAKER_BIT = 64
"""The bit of the eval breaker that CPython with an interpreter lock does not use.

Source: CPython 3.15, Include/internal/pycore_ceval.h, `_PY_EVAL_EXPLICIT_MERGE_BIT`: of builds without the
    lock.
"""

_LESS = b"\x53"  # i64.lt_s
_IF, _UNREACHABLE, _END = b"\x04\x40", b"\x00", b"\x0b"


def _take(plan: Plan, cost: int) -> bytes:
    return _get(plan.fuel) + _i64(cost) + b"\x7d" + _set(plan.fuel)


def _trap(plan: Plan) -> bytes:
    return _get(plan.fuel) + _i64(0) + _LESS + _IF + _UNREACHABLE + _END


def _charge(plan: Plan, cost: int) -> bytes:
    return _take(plan, cost) + _trap(plan)


def _charge_bulk(plan: Plan, local: bytes) -> bytes:
    """The length is on the stack and stays there."""
    return (
        b"\x22" + local + _get(plan.fuel) + b"\x20" + local + b"\xad"  # i64.extend_i32_u
        + _i64(plan.costs.bulk_shift) + b"\x88\x7d" + _set(plan.fuel) + _trap(plan)
    )  # fmt: skip


def _below_pause(plan: Plan) -> bytes:
    return _get(plan.fuel) + _get(plan.pause_at) + _LESS


def _charge_and_ask(plan: Plan, cost: int) -> bytes:
    """In the dispatch loop: below `pause_at`, which is never below 0, trap or set the breaker's bit."""
    breaker = write_unsigned(plan.breaker)
    ask = (
        b"\x20\x00\x20\x00\x28\x02" + breaker  # local.get 0, twice; i32.load
        + _i32(_BREAKER_BIT) + b"\x72\x36\x02" + breaker  # i32.or, i32.store
    )  # fmt: skip
    return _take(plan, cost) + _below_pause(plan) + _IF + _trap(plan) + ask + _END


def _pause(plan: Plan) -> bytes:
    """Set the next pause and call out."""
    return (
        _get(plan.fuel) + _get(plan.slice) + b"\x7d" + _set(plan.pause_at)
        + _get(plan.pause_at) + _i64(0) + _LESS + _IF + _i64(0) + _set(plan.pause_at) + _END
        + b"\x10" + write_unsigned(plan.pause) + b"\x1a"
    )  # fmt: skip


def _handle_pause(plan: Plan) -> bytes:
    """Where the eval breaker is handled: take the bit back, pause, and return if nothing else is asked for.

    A loop may have paused since the bit was set; then there is nothing to do.
    """
    breaker = write_unsigned(plan.breaker)
    load = b"\x20\x00\x28\x02" + breaker
    return (
        load + _i32(_BREAKER_BIT) + b"\x71" + _IF
        + b"\x20\x00" + load + _i32(~_BREAKER_BIT) + b"\x71\x36\x02" + breaker
        + _below_pause(plan) + _IF + _pause(plan) + _END
        + load + b"\x41\xff\x01\x71\x45" + _IF  # its low eight bits are 0
        + b"\x41\x00\x0f" + _END + _END
    )  # fmt: skip


def _charge_and_pause(plan: Plan, cost: int) -> bytes:
    return _take(plan, cost) + _below_pause(plan) + _IF + _trap(plan) + _pause(plan) + _END


def charge_function(plan: Plan) -> bytes:
    """The body of `charge`: an i64 of fuel in, an i64 of what is left out."""
    body = (
        b"\x00" + _get(plan.fuel) + b"\x20\x00\x7d" + _set(plan.fuel) + _trap(plan) + _get(plan.fuel) + _END
    )
    return write_unsigned(len(body)) + body


def yield_function(plan: Plan, cost: int) -> bytes:
    """The body of what stands in for the imported `sched_yield`: it costs, and does nothing."""
    body = b"\x00" + _charge(plan, cost) + b"\x41\x00" + _END
    return write_unsigned(len(body)) + body
