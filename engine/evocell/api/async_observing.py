"""The engine as trio programs use it: watching what happens in it."""

from __future__ import annotations

from pathlib import Path

from evocell.api.lifecycle import EngineLifecycle
from evocell.store.fitness import FitnessRecorder
from evocell.store.lineage import LineageTracker
from evocell.telemetry.stream import EventStream

__all__ = ["AsyncObserving"]


class AsyncObserving(EngineLifecycle):
    """The part of `AsyncEngine` that shows what happens; what it hands out may be used from any thread."""

    @property
    def event_stream(self) -> EventStream:
        """The engine's events as a numbered stream, for subscribers of any speed."""
        return self._observer.events

    @property
    def fitness(self) -> FitnessRecorder:
        """The fitness of individuals: latest, history, best, and adjustments."""
        return self._observer.fitness

    @property
    def lineage(self) -> LineageTracker:
        """Who descends from whom."""
        return self._observer.lineage

    @property
    def repairs(self) -> tuple[str, ...]:
        """What the start found that killed engines had left in the state directory, a sentence each."""
        return tuple(self._observer.repairs.sentences())

    @property
    def store_path(self) -> Path:
        """The database of this engine: in its ``state_dir``, or in a temporary one that goes with it."""
        return self._observer.store.path
