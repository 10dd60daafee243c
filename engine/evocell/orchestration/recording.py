"""What becomes of results besides being returned: they are kept, told of, and counted for the caller."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from evocell.models.fitness import FitnessResult
from evocell.observability.observer import Observer
from evocell.orchestration.evaluator import Progress

__all__ = ["BatchRecord", "batch_record"]


class BatchRecord:
    """One batch under way.

    Args:
        observer: Where its results are kept.
        number: Its number in the store.
        total: How many results there will be.
        progress: The caller's.
    """

    def __init__(self, observer: Observer, number: int, total: int, progress: Progress | None) -> None:
        self._observer = observer
        self._number = number
        self._total = total
        self._progress = progress
        self.n_valid = 0
        self.n_invalid = 0

    def done(self, result: FitnessResult, *, number: int, version: str | None) -> None:
        """Keep the result of one individual, and report it."""
        if result.valid:
            self.n_valid += 1
        else:
            self.n_invalid += 1
        self._observer.fitness.record(result, number=number, version=version, batch=self._number)
        if self._progress is not None:
            self._progress(result, self.n_valid + self.n_invalid, self._total)


@asynccontextmanager
async def batch_record(
    observer: Observer, operation: str, entry: str, numbers: Sequence[int], progress: Progress | None
) -> AsyncIterator[BatchRecord]:
    """Keep the results of a batch for as long as it runs; what it returns is on disk when the block is over.

    Args:
        observer: Where they are kept.
        operation: ``"evaluate"`` or ``"evaluate_stages"``.
        entry: What is called.
        numbers: Of the individuals in it.
        progress: Called with each result, how many there are, and how many there will be.

    Raises:
        StoreError: The results cannot be written.
    """
    journal = observer.journal
    about = {"operation": operation, "count": len(numbers)}
    with observer.telemetry.span("sandbox.batch", about) as span:
        batch = journal.begin_batch(operation, entry, numbers)
        record = BatchRecord(observer, batch, len(numbers), progress)
        outcome = "failed"
        try:
            yield record
            outcome = "done"
        finally:
            journal.end_batch(batch, outcome)
        await observer.settle()
        span.measure(n_valid=record.n_valid, n_invalid=record.n_invalid)
