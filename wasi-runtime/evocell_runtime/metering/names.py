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

VERSION = 8
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

    Attributes:
        turn: A turn of any loop.
        bytes_per_fuel: Bytes of straight code that cost one.
        tight_bytes_per_fuel: The same in loops that neither call nor hold loops: processors overlap their
            turns.
        most: The most that the straight code of a loop or of a function called in it costs: longer code is
            a switch,
            of which a turn runs a part.
        call: The least that a call in a loop costs beside its turn, and what a call through the table does.
        most_calls: The most that all calls in a loop's body cost together.
        whole_bytes: Length of a loop's body of which one turn makes all calls; of a longer one it makes a
            part.
        call_depth: How deep calls are followed to see what they cost.
        dispatch: An instruction of the interpreter.
        entry: A function entry that is charged.
        bulk_shift: The binary logarithm of the bytes of a bulk operation that cost one.
    """

    turn: int = 2
    bytes_per_fuel: int = 2
    tight_bytes_per_fuel: int = 4
    most: int = 80
    call: int = 6
    most_calls: int = 240
    whole_bytes: int = 250
    call_depth: int = 4
    dispatch: int = 60
    entry: int = 20
    bulk_shift: int = 2


COSTS = Costs()
"""The prices of every image."""


def metering_key() -> str:
    """Names how code is metered: code metered otherwise is other code, and its fuel other fuel."""
    return hashlib.sha256(repr((VERSION, SLICE_FUEL, astuple(COSTS))).encode()).hexdigest()[:16]
