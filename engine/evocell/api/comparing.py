"""The engine as most programs use it: measuring programs, alone and against each other."""

from __future__ import annotations

from functools import partial

from evocell.api.async_comparing import REPEATS, AsyncComparing, RepeatDone
from evocell.api.portal import Portal
from evocell.models.evaluation import Evaluation
from evocell.models.measurement import Comparison, Measurement
from evocell.models.references import Source

__all__ = ["Comparing"]


class Comparing:
    """The part of `Engine` that measures and compares programs; see there."""

    _thread: Portal
    _engine: AsyncComparing

    def measure(
        self,
        source: Source,
        evaluation: Evaluation,
        *,
        repeats: int = REPEATS,
        progress: RepeatDone | None = None,
    ) -> Measurement:
        """Measure what a program costs; see `AsyncEngine.measure`."""
        return self._thread.call(
            partial(self._engine.measure, source, evaluation, repeats=repeats, progress=progress)
        )

    def compare(
        self,
        first: Source,
        second: Source,
        evaluation: Evaluation,
        *,
        repeats: int = REPEATS,
        progress: RepeatDone | None = None,
    ) -> Comparison:
        """Compare what two programs cost on the same cases; see `AsyncEngine.compare`."""
        return self._thread.call(
            partial(self._engine.compare, first, second, evaluation, repeats=repeats, progress=progress)
        )
