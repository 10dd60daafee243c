"""What the host and the code's metering have in common."""

from __future__ import annotations

import hashlib

from attrs import astuple, frozen

__all__ = ["CHARGE", "COSTS", "FUEL", "PAUSE_AT", "SLICE_FUEL", "Costs", "metering_key"]

VERSION = 3
"""Bump when what is charged changes in a way that no price shows."""

FUEL, PAUSE_AT, CHARGE = "evocell.fuel", "evocell.pause_at", "evocell.charge"
"""Exports of the metered code: what is left, what will be left at the next pause, the function that charges."""

SLICE_FUEL = 10_000_000
"""Fuel between two pauses: about a millisecond."""


@frozen(kw_only=True)
class Costs:
    """Static prices, in fuel.

    Attributes:
        least: The least that a turn of a loop costs.
        most: The most, whatever the length of its body.
        bytes_per_fuel: Bytes of a loop's body that cost one.
        call: What each call in a loop's body adds.
        entry: A function entry that is charged.
        bulk_shift: The binary logarithm of the bytes of a bulk operation that cost one.
    """

    least: int = 3
    most: int = 60
    bytes_per_fuel: int = 2
    call: int = 4
    entry: int = 16
    bulk_shift: int = 3


COSTS = Costs()
"""The prices of every image."""


def metering_key() -> str:
    """Names how code is metered: code metered otherwise is other code, and its fuel other fuel."""
    return hashlib.sha256(repr((VERSION, SLICE_FUEL, astuple(COSTS))).encode()).hexdigest()[:16]
