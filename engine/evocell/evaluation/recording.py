"""What becomes of results besides being returned: they are kept, told of, and counted for the caller."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen

from evocell.errors import StoreError
from evocell.evaluation.evaluator import Progress
from evocell.evaluation.plan import Plan
from evocell.models.fitness import FitnessResult
from evocell.store.journal import Journal
from evocell.store.observer import Observer

__all__ = ["BatchRecord", "Task", "batch_record"]


@frozen
class Task:
    """What a batch evaluates, as the store knows it.

    Attributes:
        entry: What is called.
        digest: The same for evaluations whose scores can be compared.
        direction: ``"maximize"`` or ``"minimize"``, of the first objective.
    """

    entry: str
    digest: str
    direction: str = "maximize"

    @classmethod
    def of_plan(cls, plan: Plan) -> Task:
        """Describe an evaluation that is ready to be run."""
        evaluation = plan.evaluation
        digest = hashlib.sha256(evaluation.entry.encode())
        for payload in plan.payloads:
            digest.update(hashlib.sha256(payload).digest())
        for function in (evaluation.score, evaluation.aggregate):
            digest.update(function_name(function).encode())
        return cls(evaluation.entry, digest.hexdigest(), evaluation.directions[0])

    @classmethod
    def of_function(cls, function: object, direction: str = "maximize") -> Task:
        """Describe a fitness function of the caller's."""
        name = function_name(function)
        return cls(name, hashlib.sha256(name.encode()).hexdigest(), direction)

    def begin(self, journal: Journal, operation: str, numbers: Sequence[int]) -> int:
        """Keep that a batch has begun; return its number."""
        return journal.begin_batch(
            operation, numbers, entry=self.entry, task=self.digest, direction=self.direction
        )


def function_name(function: object) -> str:
    """Name a function of the caller's, or a word that stands for one."""
    if isinstance(function, str):
        return function
    return str(getattr(function, "__qualname__", type(function).__qualname__))


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
        self.results: list[Any] = [None] * total

    def done(self, index: int, result: FitnessResult, *, number: int, version: str | None) -> None:
        """Keep the result of one individual, and report it.

        Args:
            index: Its place among what was given.
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
    """Keep the results of a batch for as long as it runs; what it returns is on disk when the block is over.

    Args:
        observer: Where they are kept.
        operation: ``"evaluate"`` or ``"evaluate_stages"``.
        task: What is evaluated.
        numbers: Of the individuals in it.
        progress: Called with each result, how many there are, and how many there will be.

    Raises:
        StoreError: The results cannot be written, or code cannot be kept; it has the results.
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
