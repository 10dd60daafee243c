"""Metering: the interpreter's code is instrumented so that it counts its own fuel."""

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
