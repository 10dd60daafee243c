"""What the host and the code's metering have in common."""

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
"""Bump when what is charged changes in a way that no price shows."""

FUEL, PAUSE_AT, SLICE, CHARGE = "evocell.fuel", "evocell.pause_at", "evocell.slice", "evocell.charge"
"""Exports of the metered code: what is left, what will be left at the next pause, the fuel from one pause
to the next, and the function that charges."""

SIGNAL = "evocell.signal"
"""Another export: `raise` of the C library, by which the membrane tells the guest of an alarm."""

STACK = "evocell.stack"
"""Another export: the interpreter's own global, where its stack in memory ends. It is at its start between
calls; a copy of a guest in the middle of one goes on below."""

SLICE_FUEL = 10_000_000
"""Fuel between two pauses: about a millisecond."""


@frozen(kw_only=True)
class Costs:
    """Static prices, in fuel. A unit is about a tenth of a nanosecond of a processor of 2026.

    Fitted to the processor time of 122 kernels, 17 of them with more weight; see docs/decisions/0025.

    Attributes:
        turn: A turn of any loop.
        operation: A load, a store, an operation on numbers or vectors.
        branch: A branch: what it costs on the average that some are not foreseen.
        quotient: A quotient, a remainder or a square root, in addition.
        vector_store: A store of a vector: as a bulk operation on as many bytes.
        indirect_call: A call through the table, with what the function does that it leads to if that is not
            charged by itself.
        most: The most that a call of a function costs without its loops: in what would cost more, by half of
            all branches, most is done seldom.
        dispatch: An instruction of the interpreter.
        entry: A function entry that is charged.
        bulk_shift: The binary logarithm of the bytes of a bulk operation that cost one.
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
    """Names how code is metered: code metered otherwise is other code, and its fuel other fuel."""
    return hashlib.sha256(repr((VERSION, SLICE_FUEL, astuple(COSTS))).encode()).hexdigest()[:16]
