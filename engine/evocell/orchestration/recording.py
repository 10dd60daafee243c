"""What becomes of results besides being returned: events, and the caller's progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from evocell.models.fitness import FitnessResult
from evocell.observability.telemetry import Telemetry
from evocell.orchestration.evaluator import Progress

__all__ = ["BatchRecord", "Recording"]


class BatchRecord:
    """One batch under way.

    Args:
        recording: Where its results are noted.
        total: How many there will be.
        progress: The caller's.
    """

    def __init__(self, recording: Recording, total: int, progress: Progress | None) -> None:
        self._recording = recording
        self._total = total
        self._progress = progress
        self.n_valid = 0
        self.n_invalid = 0

    def done(self, result: FitnessResult) -> None:
        """Note the result of one individual, and report it."""
        if result.valid:
            self.n_valid += 1
        else:
            self.n_invalid += 1
        self._recording.computed(result)
        if self._progress is not None:
            self._progress(result, self.n_valid + self.n_invalid, self._total)


class Recording:
    """Notes results.

    Args:
        telemetry: Where events go.
        emit_fitness: Whether results become events.
    """

    def __init__(self, telemetry: Telemetry, *, emit_fitness: bool) -> None:
        self.telemetry = telemetry
        self._emit_fitness = emit_fitness

    @contextmanager
    def batch(self, operation: str, total: int, progress: Progress | None) -> Iterator[BatchRecord]:
        """Note the results of a batch for as long as it runs.

        Args:
            operation: ``"evaluate"`` or ``"evaluate_stages"``.
            total: How many results there will be.
            progress: Called with each result, how many there are, and how many there will be.
        """
        with self.telemetry.span("sandbox.batch", {"operation": operation, "count": total}) as span:
            record = BatchRecord(self, total, progress)
            yield record
            span.measure(n_valid=record.n_valid, n_invalid=record.n_invalid)

    def computed(self, result: FitnessResult) -> None:
        """Tell that an individual has a new result."""
        if not (self._emit_fitness and self.telemetry.active):
            return
        self.telemetry.emit(
            "sandbox.fitness.computed",
            {
                "score": result.fitness_score,
                "evaluation_time_ms": result.evaluation_time_ms,
                "fuel_used": result.fuel_used,
                "peak_memory_bytes": result.peak_memory_bytes,
            },
            {
                "sandbox_id": result.sandbox_id,
                "generation": result.generation,
                "valid": result.valid,
                "reason": result.reason,
            },
        )
