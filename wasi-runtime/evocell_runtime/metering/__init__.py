"""Fuel that the interpreter's code counts by itself."""

from evocell_runtime.metering.names import (
    CHARGE,
    FUEL,
    PAUSE_AT,
    SIGNAL,
    SLICE,
    SLICE_FUEL,
    STACK,
    metering_key,
)

__all__ = ["CHARGE", "FUEL", "PAUSE_AT", "SIGNAL", "SLICE", "SLICE_FUEL", "STACK", "metering_key"]
