"""The list of a batch's results, shown as a table in notebooks."""

from __future__ import annotations

from typing import Any

from evocell.models.fitness import FitnessResult
from evocell.models.html import table
from evocell.models.tables import FrameLibrary, to_dataframe

__all__ = ["Results"]

_SHOWN = 50


class Results(list[FitnessResult]):
    """A list of results, as `Engine.evaluate` returns it, with all methods of a list."""

    __slots__ = ()

    def to_dataframe(self, *, library: FrameLibrary | None = None) -> Any:
        """Return the results as a data frame; see `evocell.to_dataframe`.

        Args:
            library: ``"pandas"`` or ``"polars"``; None for the first of them that is installed.
        """
        return to_dataframe(self, library=library)

    def _repr_html_(self) -> str:
        rows = [
            (
                result.sandbox_id,
                result.generation,
                result.fitness_score,
                result.valid,
                result.reason or "",
                result.fuel_used,
                result.evaluation_time_ms,
                result.error or "",
            )
            for result in self[:_SHOWN]
        ]
        n_valid = sum(result.valid for result in self)
        left = f", the first {_SHOWN} of them below" if len(self) > _SHOWN else ""
        head = ("sandbox", "generation", "fitness", "valid", "reason", "fuel", "ms", "error")
        return table(head, rows, caption=f"{len(self):,} results, {n_valid:,} valid{left}")
