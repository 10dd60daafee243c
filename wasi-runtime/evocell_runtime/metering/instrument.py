"""Instrumentation of a module's code: it decrements a fuel counter wherever code can repeat.

wasmtime's own fuel is checked at every loop and function by a branch to a call, and a possible call keeps
Cranelift from holding values in registers. Here the counter is a global of the module. It is charged at loop
headers, on entry of the functions that break all recursion (`recursion`), and by the length of bulk memory
operations. When it is exhausted the code traps, without a call. See docs/decisions/0020.

The module is extended by:

- three exported mutable globals: `fuel`, the remaining fuel of the call; `pause_at`, the remaining fuel at
  which the next pause is due; `slice`, the fuel between two pauses. No instruction of the original code can
  refer to them.
- an exported function `charge`, which takes fuel for work done outside of the code and returns what remains.
- pauses, at which the host may suspend a long call between two slices. When the interpreter's dispatch loop
  finds the counter below `pause_at` it sets a bit of the eval breaker; where CPython handles that bit, the
  code calls an import that suspends it. CPython has rarely made calls in both places already, so this does
  not slow the dispatch loop down. Loops outside of the dispatch loop that contain calls pause by themselves.
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
    """Where code is charged and where it pauses; functions are given by their index in the code section.

    Attributes:
        fuel: Index of the global `fuel`.
        pause_at: Index of the global `pause_at`.
        slice: Index of the global `slice`.
        charge: Index of the appended function `charge`.
        pause: Index of the imported function that suspends the call.
        charged_yield: Index of the appended function that replaces `pause` where the original code calls it.
        entries: Functions that are charged on entry.
        dispatch: The dispatch loop: its function, and the loop's index in that.
        handler: The function that handles the eval breaker.
        breaker: Offset of the eval breaker in the thread state, which both functions take as first parameter.
        parameters: The number of parameters of each function.
        prices: Prices of loops and entries.
        costs: Prices of the kinds of instructions.
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
    """Return the code of all functions with the charges inserted.

    Args:
        code: The contents of the code section.
        plan: Where to charge and pause.

    Returns:
        The code of each function, prefixed by its length.
    """
    out: list[bytes] = []
    for number, function in enumerate(plan.prices.found):
        body = _function(code, function, number, plan)
        out.append(write_unsigned(len(body)) + body)
    return out


def _function(code: bytes, function: Function, number: int, plan: Plan) -> bytes:
    inserts: list[tuple[int, int, bytes]] = []  # start and end of the replaced code, and its replacement
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
    """Return a function's declaration of locals, with an additional i32 at the end if needed."""
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
"""A bit of the eval breaker that CPython with an interpreter lock does not use.

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
    """Charge for a bulk operation by its length, which is on top of the stack and stays there."""
    return (
        b"\x22" + local + _get(plan.fuel) + b"\x20" + local + b"\xad"  # i64.extend_i32_u
        + _i64(plan.costs.bulk_shift) + b"\x88\x7d" + _set(plan.fuel) + _trap(plan)
    )  # fmt: skip


def _below_pause(plan: Plan) -> bytes:
    return _get(plan.fuel) + _get(plan.pause_at) + _LESS


def _charge_and_ask(plan: Plan, cost: int) -> bytes:
    """Charge in the dispatch loop; below `pause_at` (never negative), trap or set the breaker's bit."""
    breaker = write_unsigned(plan.breaker)
    ask = (
        b"\x20\x00\x20\x00\x28\x02" + breaker  # local.get 0, twice; i32.load
        + _i32(_BREAKER_BIT) + b"\x72\x36\x02" + breaker  # i32.or, i32.store
    )  # fmt: skip
    return _take(plan, cost) + _below_pause(plan) + _IF + _trap(plan) + ask + _END


def _pause(plan: Plan) -> bytes:
    """Set `pause_at` for the next pause, and call the import that suspends the call."""
    return (
        _get(plan.fuel) + _get(plan.slice) + b"\x7d" + _set(plan.pause_at)
        + _get(plan.pause_at) + _i64(0) + _LESS + _IF + _i64(0) + _set(plan.pause_at) + _END
        + b"\x10" + write_unsigned(plan.pause) + b"\x1a"
    )  # fmt: skip


def _handle_pause(plan: Plan) -> bytes:
    """Handle the eval breaker: clear the bit, pause, and return 0 if no other bit is set.

    It does not pause if a loop has done so since the bit was set.
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
    """Return the body of `charge`, which takes fuel as i64 and returns the remaining fuel as i64."""
    body = (
        b"\x00" + _get(plan.fuel) + b"\x20\x00\x7d" + _set(plan.fuel) + _trap(plan) + _get(plan.fuel) + _END
    )
    return write_unsigned(len(body)) + body


def yield_function(plan: Plan, cost: int) -> bytes:
    """Return the body of the replacement of the imported `sched_yield`, which only charges."""
    body = b"\x00" + _charge(plan, cost) + b"\x41\x00" + _END
    return write_unsigned(len(body)) + body
