"""Checks and conversions of the arguments of the engine's methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

from attrs import evolve

from evocell.errors import ConfigurationError
from evocell.evaluation.individuals import NewIndividual
from evocell.models.evaluation import Evaluation
from evocell.models.references import SandboxName, Source, sandbox_id, sandbox_ids
from evocell.models.specs import SandboxSpec

__all__ = [
    "Parents",
    "SandboxRef",
    "check_count",
    "check_evaluation",
    "check_generation",
    "check_iterable",
    "file_path",
    "individual",
    "individuals",
    "sandbox_id",
    "sandbox_ids",
    "source_list",
]

SandboxRef: TypeAlias = SandboxName
"""A sandbox, or its id."""

Parents: TypeAlias = "Sequence[SandboxRef | Sequence[SandboxRef] | None]"
"""Parents of each source: none, one, or several."""


def check_count(value: object, what: str) -> int:
    """Return a valid count.

    Raises:
        ConfigurationError: It is not a positive integer.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{what} must be a whole number from 1, not {value!r}", what)
    return value


def check_generation(generation: object) -> int | None:
    """Return a generation's number, or None for None.

    Raises:
        ConfigurationError: It is not a non-negative integer.
    """
    if generation is None:
        return None
    if not isinstance(generation, int) or isinstance(generation, bool) or generation < 0:
        raise ConfigurationError(
            f"generation must be a whole number from 0, not {generation!r}", "generation"
        )
    return generation


def file_path(path: object) -> Path:
    """Return a file's absolute path, which stays valid after a change of the working directory.

    Raises:
        ConfigurationError: It is not a path.
    """
    if not isinstance(path, str | Path) or not str(path):
        raise ConfigurationError(f"path must be the path of a file, not {path!r}", "path")
    return Path(path).expanduser().absolute()


def source_list(sources: object) -> list[Source]:
    """Return sources as a list; refuse a single source.

    Raises:
        ConfigurationError: It is a single source, or not a sequence.
    """
    check_iterable(sources)
    return list(cast("Iterable[Source]", sources))


def check_iterable(sources: object) -> None:
    """Refuse a single source in place of an iterable of sources.

    Raises:
        ConfigurationError: It is a single source, or not iterable.
    """
    if isinstance(sources, str | bytes | Path | Mapping) or not isinstance(sources, Iterable):
        raise ConfigurationError(
            f"sources must be a list of sources, not {type(sources).__name__}; "
            "use evaluate_one for a single one",
            "sources",
        )


def check_evaluation(evaluation: object) -> Evaluation:
    """Refuse anything but an `Evaluation`.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(evaluation, Evaluation):
        raise ConfigurationError(
            f"evaluation must be an evocell.Evaluation, not {type(evaluation).__name__}", "evaluation"
        )
    return evaluation


def individuals(
    sources: Sequence[Source | SandboxSpec], *, population: str | None, generation: int, parents: object
) -> list[NewIndividual]:
    """Combine sources with their metadata.

    Args:
        sources: The code of each.
        population: The population they join; None if they are not kept.
        generation: The generation they belong to.
        parents: None, or one entry for each source: None, a parent, or several.

    Raises:
        ConfigurationError: An argument is invalid.
    """
    if any(isinstance(source, SandboxSpec) for source in sources):
        if parents is not None and any(entry is not None for entry in cast("Sequence[object]", parents)):
            raise ConfigurationError("a SandboxSpec says who its parents are; leave parents out", "parents")
        return [individual(source, population=population, generation=generation) for source in sources]
    ids = _parent_ids(parents, len(sources))
    return [
        NewIndividual(
            source,
            SandboxSpec(
                population=population,
                generation=generation,
                parent_ids=parent_ids,
                mutation_type=_mutation_type(len(parent_ids)),
            ),
            keep=population is not None,
        )
        for source, parent_ids in zip(cast("Sequence[Source]", sources), ids, strict=True)
    ]


def individual(source: Source | SandboxSpec, *, population: str | None, generation: int) -> NewIndividual:
    """Combine a source, or a spec with its source, with its metadata.

    Args:
        source: The code; or a spec, whose id, parents, generation and mutation type then apply.
        population: The population it joins, if its spec names none; None if it is not kept.
        generation: The generation it belongs to, unless a spec is given.

    Raises:
        ConfigurationError: The spec holds no code.
    """
    if not isinstance(source, SandboxSpec):
        return individuals([source], population=population, generation=generation, parents=None)[0]
    code = source.code
    if code is None:
        raise ConfigurationError("a SandboxSpec to be evaluated must hold its source or bundle", "source")
    spec = evolve(source.without_code(), population=source.population or population)
    return NewIndividual(code, spec, keep=spec.population is not None)


def _parent_ids(parents: object, n_sources: int) -> list[tuple[str, ...]]:
    if parents is None:
        return [()] * n_sources
    if isinstance(parents, str) or not isinstance(parents, Sequence) or len(parents) != n_sources:
        raise ConfigurationError(
            f"parents must be a list with one entry for each of the {n_sources} sources (None, a parent, or "
            f"a tuple of parents), not {parents!r}",
            "parents",
        )
    return [_entry(entry) for entry in parents]


def _mutation_type(n_parents: int) -> str:
    """Return the default mutation type for a number of parents."""
    return ("seed", "mutation")[n_parents] if n_parents < 2 else "crossover"  # noqa: PLR2004


def _entry(entry: object) -> tuple[str, ...]:
    if entry is None:
        return ()
    if isinstance(entry, tuple | list | set | frozenset):
        return tuple(sandbox_id(one) for one in entry)
    return (sandbox_id(entry),)
