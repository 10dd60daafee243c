"""Lineage of a DEAP loop: parents and operators of individuals, for `engine.lineage` and the report.

DEAP does not record the origin of an individual: it clones, and changes the clones in place. `Family` wraps
the operators of a toolbox so that individuals carry their origin, and passes it to the engine with their
source::

    family = Family(population="regression")
    family.track(toolbox)  # clone, mate, mutate
    ev = engine.evaluator(task, prepare=family.prepare(program))
    toolbox.register("evaluate", ev)
    toolbox.register("map", ev.map)

DEAP is not imported here, and a loop is not affected: no random number is drawn.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from attrs import evolve, field, frozen

from evocell.errors import ConfigurationError
from evocell.models.references import Source
from evocell.models.specs import SandboxSpec

__all__ = ["Family"]

_ATTRIBUTE = "evocell_origin"
_MOST_PARENTS = 64


@frozen
class _Origin:
    """The origin of an individual.

    Attributes:
        id: Its id; None until it is evaluated.
        generation: The generation it belongs to.
        parents: Ids of its parents.
        operators: The operators applied to them, in order.
    """

    id: str | None = None
    generation: int = 0
    parents: tuple[str, ...] = ()
    operators: tuple[str, ...] = field(default=())


class Family:
    """Tracks the lineage of a DEAP loop.

    Args:
        population: The name of the individuals' population in reports; None keeps no sandboxes, but still the
            lineage.
        prefix: Prefix of ids; None for a unique one.
    """

    def __init__(self, population: str | None = None, *, prefix: str | None = None) -> None:
        self.population = population
        self._prefix = f"deap-{uuid.uuid4().hex[:8]}" if prefix is None else prefix
        self._numbers = count(1)

    def track(self, toolbox: Any, *, operators: Iterable[str] = ("mate", "mutate")) -> None:
        """Wrap a toolbox's operators to record origins; call it after they are registered.

        Args:
            toolbox: A ``deap.base.Toolbox``; ``clone`` is replaced as well.
            operators: Names of the functions that take individuals first, change them in place, and return
                them in a tuple.

        Raises:
            ConfigurationError: The toolbox has no function of a name.
        """
        for name in ("clone", *operators):
            inside = getattr(toolbox, name, None)
            if inside is None:
                raise ConfigurationError(f"the toolbox has no {name!r}; register it first", "operators")
            setattr(toolbox, name, self._cloning(inside) if name == "clone" else self._telling(name, inside))

    def prepare(self, source: Callable[[Any], Source]) -> Callable[[Any], SandboxSpec]:
        """Make the ``prepare`` of an evaluator.

        Args:
            source: Converts an individual to its source.
        """

        @functools.wraps(source)
        def prepared(individual: Any) -> SandboxSpec:
            origin = evolve(_origin_of(individual), id=f"{self._prefix}-{next(self._numbers)}")
            setattr(individual, _ATTRIBUTE, origin)
            return SandboxSpec(
                origin.id,
                source=source(individual),
                population=self.population,
                generation=origin.generation,
                parent_ids=origin.parents,
                mutation_type="+".join(dict.fromkeys(origin.operators)) or "seed",
            )

        return prepared

    def id_of(self, individual: Any) -> str | None:
        """Return the engine's id of an individual; None if it was not evaluated yet."""
        return _origin_of(individual).id

    def _cloning(self, clone: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(clone)
        def cloned(individual: Any, *args: Any, **kwargs: Any) -> Any:
            made = clone(individual, *args, **kwargs)
            if hasattr(individual, "__dict__"):
                setattr(made, _ATTRIBUTE, _origin_of(individual))
            return made

        return cloned

    def _telling(self, name: str, operator: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(operator)
        def told(*args: Any, **kwargs: Any) -> Any:
            before = [_origin_of(one) for one in args if hasattr(one, "fitness")]
            made = operator(*args, **kwargs)
            origin = _child_of(before, name)
            for one in made if isinstance(made, tuple | list) and not hasattr(made, "fitness") else (made,):
                setattr(one, _ATTRIBUTE, origin)
            return made

        return told


def _origin_of(individual: Any) -> _Origin:
    found = getattr(individual, _ATTRIBUTE, None)
    return found if isinstance(found, _Origin) else _Origin()


def _child_of(origins: Iterable[_Origin], operator: str) -> _Origin:
    """Return the origin of an operator's output: evaluated inputs are its parents, others pass on theirs."""
    parents: list[str] = []
    operators: list[str] = []
    generation = 0
    for one in origins:
        if one.id is None:
            parents += one.parents
            operators += one.operators
            generation = max(generation, one.generation)
        else:
            parents.append(one.id)
            generation = max(generation, one.generation + 1)
    unique = tuple(dict.fromkeys(parents))[:_MOST_PARENTS]
    return _Origin(None, generation if unique else 0, unique, (*operators, operator))
