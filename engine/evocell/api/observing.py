"""The engine as most programs use it: watching what happens in it."""

from __future__ import annotations

from evocell.api.async_engine import AsyncEngine
from evocell.observability.telemetry import Telemetry

__all__ = ["Observing"]


class Observing:
    """The part of `Engine` that shows what happens; what it hands out may be used from any thread."""

    _engine: AsyncEngine

    @property
    def telemetry(self) -> Telemetry:
        """The engine's events, see `evocell.observability.telemetry`; handlers run in the engine's thread."""
        return self._engine.telemetry
