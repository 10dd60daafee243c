"""Tables of results: rows of plain data, data frames, and the list that notebooks show as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal, TypeAlias

from evocell.errors import ConfigurationError
from evocell.models.fitness import FitnessResult
from evocell.models.html import table
from evocell.models.stages import StagedResult

__all__ = ["FrameLibrary", "Results", "frame_of", "numbers_of", "row_of", "to_dataframe"]

FrameLibrary: TypeAlias = Literal["pandas", "polars"]
"""A library that makes data frames."""

_LIBRARIES: tuple[FrameLibrary, ...] = ("pandas", "polars")

_SHOWN = 50

_COLUMNS = (
    "sandbox_id",
    "generation",
    "fitness_score",
    "valid",
    "reason",
    "error",
    "fuel_used",
    "peak_memory_bytes",
    "evaluation_time_ms",
    "deterministic",
    "n_memoised",
    "evaluated_at",
)


def to_dataframe(results: Iterable[Any], *, library: FrameLibrary | None = None) -> Any:
    """Make a data frame of results, one row for each, whose numbers are columns.

    Parts of the score are the columns ``component_<name>``, and several objectives are ``objective_1`` and so
    on. Values that a result lacks are missing in its row.

    Args:
        results: `FitnessResult`, `StagedResult` (its last stage) or `FitnessEntry` objects.
        library: ``"pandas"`` or ``"polars"``; None for the first of them that is installed.

    Returns:
        A ``pandas.DataFrame`` or a ``polars.DataFrame``.

    Raises:
        ConfigurationError: The library is not installed, or an item is not a result.
    """
    rows: list[Mapping[str, Any]] = []
    for one in results:
        if isinstance(one, StagedResult):
            one = one.results[-1]  # noqa: PLW2901 - the result of the last stage stands for it
        rows.append(row_of(one))
    return frame_of(rows, _COLUMNS, library=library)


def row_of(result: object) -> dict[str, Any]:
    """Return a result as one row.

    Raises:
        ConfigurationError: It is not a result.
    """
    if isinstance(result, FitnessResult):
        row = {name: getattr(result, name) for name in _COLUMNS}
        row |= numbers_of(result.objectives, result.components)
        row["n_cases"] = len(result.test_results)
        row["n_passed"] = sum(case.passed for case in result.test_results)
        return row
    names = getattr(type(result), "COLUMNS", None)
    if not isinstance(names, tuple):
        raise ConfigurationError(f"results must be FitnessResults, not {result!r:.60}", "results")
    return {name: getattr(result, name) for name in names}


def numbers_of(objectives: Sequence[float], components: Mapping[str, float]) -> dict[str, float]:
    """Return objectives, if there are several, and parts of a score as columns."""
    found = {f"component_{name}": value for name, value in components.items()}
    if len(objectives) > 1:
        found |= {f"objective_{place}": value for place, value in enumerate(objectives, 1)}
    return found


def frame_of(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, library: FrameLibrary | None = None
) -> Any:
    """Make a data frame of rows, each of which may lack some columns.

    Args:
        rows: The rows.
        columns: Columns that are always present, in order; others follow in order of appearance.
        library: As in `to_dataframe`.

    Raises:
        ConfigurationError: The library is not installed.
    """
    found = _library(library)
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    data = {name: [row.get(name) for row in rows] for name in names}
    return found.DataFrame(data)


def _library(wanted: FrameLibrary | None) -> Any:
    if wanted is not None and wanted not in _LIBRARIES:
        raise ConfigurationError(f'library must be "pandas" or "polars", not {wanted!r}', "library")
    for name in _LIBRARIES if wanted is None else (wanted,):
        try:
            return import_module(name)
        except ImportError:
            continue
    missing = "pandas nor polars is" if wanted is None else f"{wanted} is not"
    raise ConfigurationError(
        f"{'neither ' if wanted is None else ''}{missing} installed here, and a data frame needs one; "
        "pip install evocell[tables] brings pandas, and result.to_dict() needs neither",
        "library",
    )


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
