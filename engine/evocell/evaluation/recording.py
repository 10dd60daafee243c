"""Recording of results: writes them to the store, emits telemetry, reports progress."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen

from evocell.errors import StoreError
from evocell.evaluation.individuals import Progress
from evocell.evaluation.plan import Plan
from evocell.models.fitness import FitnessResult
from evocell.store.journal import Journal
from evocell.store.observer import Observer

__all__ = ["BatchRecord", "Task", "batch_record"]


@frozen
class Task:
    """Identification of an evaluation in the store.

    Attributes:
        entry: The entry.
        digest: Equal for evaluations with comparable scores.
        direction: ``"maximize"`` or ``"minimize"``, of the first objective.
    """

    entry: str
    digest: str
    direction: str = "maximize"

    @classmethod
    def of_plan(cls, plan: Plan) -> Task:
        """Describe a prepared evaluation."""
        evaluation = plan.evaluation
        digest = hashlib.sha256(evaluation.entry.encode())
        for payload in plan.payloads:
            digest.update(hashlib.sha256(payload).digest())
        for function in (evaluation.score, evaluation.aggregate):
            digest.update(function_name(function).encode())
        return cls(evaluation.entry, digest.hexdigest(), evaluation.directions[0])

    @classmethod
    def of_function(cls, function: object, direction: str = "maximize") -> Task:
        """Describe a custom fitness function."""
        name = function_name(function)
        return cls(name, hashlib.sha256(name.encode()).hexdigest(), direction)

    def begin(self, journal: Journal, operation: str, numbers: Sequence[int]) -> int:
        """Record the start of a batch; return its number."""
        return journal.begin_batch(
            operation, numbers, entry=self.entry, task=self.digest, direction=self.direction
        )


def function_name(function: object) -> str:
    """Return the name of the caller's function, or a placeholder."""
    if isinstance(function, str):
        return function
    return str(getattr(function, "__qualname__", type(function).__qualname__))


class BatchRecord:
    """One batch under way.

    Args:
        observer: Records its results.
        number: Its number in the store.
        total: Total number of results.
        progress: The caller's progress callback.
    """

    def __init__(self, observer: Observer, number: int, total: int, progress: Progress | None) -> None:
        self._observer = observer
        self._number = number
        self._total = total
        self._progress = progress
        self.n_valid = 0
        self.n_invalid = 0
        self.results: list[Any] = [None] * total

    def done(self, index: int, result: FitnessResult, *, number: int, version: str | None) -> None:
        """Record the result of one individual, and report progress.

        Args:
            index: Its index in the input.
            result: The result.
            number: Its number in the store.
            version: Digest of its code.
        """
        self.results[index] = result
        if result.valid:
            self.n_valid += 1
        else:
            self.n_invalid += 1
        self._observer.fitness.record(result, number=number, version=version, batch=self._number)
        if self._progress is not None:
            self._progress(result, self.n_valid + self.n_invalid, self._total)


@asynccontextmanager
async def batch_record(
    observer: Observer, operation: str, task: Task, numbers: Sequence[int], progress: Progress | None
) -> AsyncIterator[BatchRecord]:
    """Record the results of a batch during a block; they are on disk when the block ends.

    Args:
        observer: Records the results.
        operation: ``"evaluate"`` or ``"evaluate_stages"``.
        task: The evaluation.
        numbers: The numbers of its individuals.
        progress: Called with each result, the number of results so far, and the total.

    Raises:
        StoreError: The results or the code cannot be written; the error has the results.
    """
    journal = observer.journal
    about = {"operation": operation, "count": len(numbers)}
    since = observer.store.losses
    with observer.telemetry.span("sandbox.batch", about) as span:
        batch = task.begin(journal, operation, numbers)
        record = BatchRecord(observer, batch, len(numbers), progress)
        outcome = "failed"
        try:
            try:
                yield record
                outcome = "done"
            finally:
                journal.end_batch(batch, outcome)
            await observer.settle(since=since)
        except StoreError as error:
            if error.results:
                raise
            raise error.with_results(record.results) from error
        span.measure(n_valid=record.n_valid, n_invalid=record.n_invalid)
