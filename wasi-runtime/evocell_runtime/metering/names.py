"""Names of exports and prices that the host and the metered code share."""

from __future__ import annotations

import hashlib

from attrs import astuple, frozen

__all__ = [
    "CHARGE",
    "COSTS",
    "FUEL",
    "PAUSE_AT",
    "SIGNAL",
    "SLICE",
    "SLICE_FUEL",
    "STACK",
    "Costs",
    "metering_key",
]

VERSION = 9
"""Bump when charging changes in a way that no price reflects."""

FUEL, PAUSE_AT, SLICE, CHARGE = "evocell.fuel", "evocell.pause_at", "evocell.slice", "evocell.charge"
"""Exports of the metered code: three globals (the remaining fuel, the remaining fuel at which the next pause
is due, the fuel between two pauses) and the function that charges fuel."""

SIGNAL = "evocell.signal"
"""Export of the C library's `raise`, which the membrane calls to deliver an alarm to the guest."""

STACK = "evocell.stack"
"""Export of the interpreter's stack pointer, a global. Between calls the stack is empty; a copy of a guest
that is in the middle of a call must continue below that call's frames."""

SLICE_FUEL = 10_000_000
"""Fuel between two pauses: about a millisecond."""


@frozen(kw_only=True)
class Costs:
    """Static prices, in fuel. A unit is about a tenth of a nanosecond of a processor of 2026.

    Fitted to the processor time of 122 kernels, 17 of them with more weight; see docs/decisions/0025.

    Attributes:
        turn: One iteration of any loop.
        operation: A load, a store, or an operation on numbers or vectors.
        branch: A branch, including the average cost of mispredictions.
        quotient: A division, a remainder or a square root, in addition to ``operation``.
        vector_store: A store of a vector, priced as a bulk operation on as many bytes.
        indirect_call: A call through the table, including the callee if that is not charged on entry.
        most: Upper bound of the price of a call without its loops. A function whose estimate exceeds it, with
            half of all branches taken, executes most of its code rarely.
        dispatch: One bytecode instruction of the interpreter.
        entry: Entry of a function that is charged on entry.
        bulk_shift: A bulk operation on ``2**bulk_shift`` bytes costs one unit.
    """

    turn: int = 4
    operation: float = 0.5
    branch: int = 5
    quotient: int = 12
    vector_store: int = 4
    indirect_call: int = 60
    most: int = 4_000
    dispatch: int = 38
    entry: int = 20
    bulk_shift: int = 2


COSTS = Costs()
"""The prices of every image."""


def metering_key() -> str:
    """Return a digest of how code is metered; part of the cache key of the compiled interpreter."""
    return hashlib.sha256(repr((VERSION, SLICE_FUEL, astuple(COSTS))).encode()).hexdigest()[:16]
