"""The engine as most programs use it: watching what happens in it."""

from __future__ import annotations

from pathlib import Path

from evocell.api.async_engine import AsyncEngine
from evocell.store.fitness import FitnessRecorder
from evocell.store.lineage import LineageTracker
from evocell.telemetry.events import Telemetry
from evocell.telemetry.stream import EventStream

__all__ = ["Observing"]


class Observing:
    """The part of `Engine` that shows what happens; what it hands out may be used from any thread."""

    _engine: AsyncEngine

    @property
    def telemetry(self) -> Telemetry:
        """The engine's events, see `evocell.telemetry.events`; handlers run in the engine's thread."""
        return self._engine.telemetry

    @property
    def event_stream(self) -> EventStream:
        """The engine's events as a numbered stream, for subscribers of any speed."""
        return self._engine.event_stream

    @property
    def fitness(self) -> FitnessRecorder:
        """The fitness of individuals: latest, history, best, and adjustments."""
        return self._engine.fitness

    @property
    def lineage(self) -> LineageTracker:
        """Who descends from whom."""
        return self._engine.lineage

    @property
    def repairs(self) -> tuple[str, ...]:
        """What the start found that killed engines had left in the state directory, a sentence each."""
        return self._engine.repairs

    @property
    def store_path(self) -> Path:
        """The database of this engine: in its ``state_dir``, or in a temporary one that goes with it."""
        return self._engine.store_path
