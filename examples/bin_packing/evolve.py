"""The evolutionary loop: which programs to try next, and who descended from whom.

Evaluation is handed in as a function, so the loop itself knows nothing of sandboxes; ``arena.py``
supplies the real one. Everything is decided by the seed and the verdicts: no clock, no hash order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

from attrs import field, frozen

from .expressions import Tree, render, size
from .operators import offspring, random_program, tournament
from .saboteurs import SABOTEURS, Saboteur

ENTRANTS = 3
"""Programs drawn for a tournament; more means a greedier search."""

_NOVELTY_ATTEMPTS = 30


@frozen(kw_only=True)
class Individual:
    """One program and where it came from.

    Attributes:
        id: Unique in the run: generation and place, for example ``g07-012``.
        generation: Generation it was born in, from 0.
        source: Text of the module that is run.
        tree: Its expression; None for a saboteur.
        operator: Name of the operator that made it: ``random``, ``crossover``, a mutation, or
            ``sabotage``.
        parents: Ids of its parents, none for those of generation 0.
    """

    id: str
    generation: int
    source: str = field(repr=False)
    tree: Tree | None
    operator: str
    parents: tuple[str, ...] = ()


@frozen(kw_only=True)
class Verdict:
    """What the evaluation said about one program.

    Attributes:
        excess: Mean share of bins beyond the lower bound over the training instances; None if it
            died.
        behaviour: Bins used on each training instance; programs equal here are as good as the same.
        fuel: Fuel burnt over all training instances.
        death: Kind of its death, None if it lived.
        detail: One line that says what killed it, empty if it lived.
    """

    excess: float | None
    behaviour: tuple[int, ...] = ()
    fuel: int = 0
    death: str | None = None
    detail: str = ""


@frozen(kw_only=True)
class Scored:
    """An individual with its verdict."""

    individual: Individual
    verdict: Verdict

    @property
    def rank(self) -> tuple[float, int, str]:
        """Sort key: lower excess, then shorter programs (parsimony), then the older."""
        excess = self.verdict.excess
        nodes = size(self.individual.tree) if self.individual.tree is not None else 0
        return (float("inf") if excess is None else excess, nodes, self.individual.id)


@frozen(kw_only=True)
class Generation:
    """State after one generation.

    Attributes:
        number: From 0.
        born: Everyone evaluated in this generation, in order of birth.
        survivors: The programs that may have offspring, best first.
    """

    number: int
    born: tuple[Scored, ...]
    survivors: tuple[Scored, ...]

    @property
    def best(self) -> Scored | None:
        """Return the best survivor, None if nobody lives."""
        return self.survivors[0] if self.survivors else None

    @property
    def mean_excess(self) -> float | None:
        """Return the mean excess of the survivors."""
        if not self.survivors:
            return None
        return fmean(one.verdict.excess or 0.0 for one in self.survivors)


Evaluate = Callable[[int, Sequence[Individual]], Sequence[Verdict]]


def evolve(
    evaluate: Evaluate,
    *,
    seed: int,
    generations: int,
    population: int,
    saboteurs: Sequence[Saboteur] = SABOTEURS,
) -> Iterator[Generation]:
    """Run the evolution and yield the state after each generation.

    Each generation ``population`` new programs are evaluated; the best of old and new together
    survive, one for each behaviour. Saboteurs take places in generation 0.

    Args:
        evaluate: Gives one verdict for each individual, in order.
        seed: Decides everything.
        generations: Number of generations, the random one included; at least 1.
        population: Programs born in each generation; more than there are saboteurs.
        saboteurs: Hostile programs for generation 0.

    Raises:
        ValueError: A number is too small.
    """
    if generations < 1:
        raise ValueError(f"generations is {generations}; at least 1 is needed")
    if population <= len(saboteurs):
        raise ValueError(
            f"population is {population}, but {len(saboteurs)} places go to saboteurs; "
            f"take at least {len(saboteurs) + 1}"
        )
    rng = random.Random(seed)
    seen: set[str] = set()
    survivors: tuple[Scored, ...] = ()
    for number in range(generations):
        parents = survivors
        newcomers = (
            _founders(rng, population, saboteurs, seen)
            if not parents
            else _children(rng, number, population, parents, seen)
        )
        born = tuple(
            Scored(individual=individual, verdict=verdict)
            for individual, verdict in zip(newcomers, evaluate(number, newcomers), strict=True)
        )
        survivors = _survivors([*parents, *born], population)
        yield Generation(number=number, born=born, survivors=survivors)


def _founders(
    rng: random.Random, population: int, saboteurs: Sequence[Saboteur], seen: set[str]
) -> list[Individual]:
    """Return generation 0: random programs, with the saboteurs at random places among them."""
    places = sorted(rng.sample(range(population), len(saboteurs)))
    hostile = dict(zip(places, saboteurs, strict=True))
    founders = []
    for place in range(population):
        if place in hostile:
            founders.append(_individual(0, place, hostile[place].source, None, "sabotage"))
            continue
        tree = random_program(rng)
        for _ in range(_NOVELTY_ATTEMPTS):
            if render(tree) not in seen:
                break
            tree = random_program(rng)
        seen.add(render(tree))
        founders.append(_individual(0, place, render(tree), tree, "random"))
    return founders


def _children(
    rng: random.Random, number: int, population: int, parents: Sequence[Scored], seen: set[str]
) -> list[Individual]:
    """Return the next generation; text that was tried before is passed over while new can be found."""
    children = []
    for place in range(population):
        for _ in range(_NOVELTY_ATTEMPTS):
            tree, operator, chosen = offspring(rng, lambda: tournament(rng, parents, ENTRANTS), _tree)
            source = render(tree)
            if source not in seen:
                break
        seen.add(source)
        ids = tuple(dict.fromkeys(parent.individual.id for parent in chosen))
        children.append(_individual(number, place, source, tree, operator, *ids))
    return children


def _tree(parent: Scored) -> Tree:
    if parent.individual.tree is None:
        raise ValueError(f"{parent.individual.id} is a saboteur and cannot be a parent")
    return parent.individual.tree


def _individual(
    generation: int, place: int, source: str, tree: Tree | None, operator: str, *parents: str
) -> Individual:
    return Individual(
        id=f"g{generation:02}-{place:03}",
        generation=generation,
        source=source,
        tree=tree,
        operator=operator,
        parents=parents,
    )


def _survivors(everyone: Sequence[Scored], population: int) -> tuple[Scored, ...]:
    """Return the best, one for each behaviour: copies of the leader must not crowd out everything else."""
    alive = [one for one in everyone if one.verdict.excess is not None and one.individual.tree is not None]
    by_behaviour: dict[tuple[int, ...], Scored] = {}
    for one in sorted(alive, key=lambda scored: scored.rank):
        by_behaviour.setdefault(one.verdict.behaviour, one)
    return tuple(by_behaviour.values())[:population]


def lineage(individual: Individual, everyone: Sequence[Scored]) -> list[Scored]:
    """Return the line of first parents, from the founder to the individual itself."""
    by_id = {one.individual.id: one for one in everyone}
    line = [by_id[individual.id]]
    while line[-1].individual.parents:
        line.append(by_id[line[-1].individual.parents[0]])
    return line[::-1]


def pareto(everyone: Sequence[Scored], *, worst: float) -> list[Scored]:
    """Return those whom nobody beats in both excess and fuel, cheapest first; none above ``worst`` excess."""
    front: list[Scored] = []
    usable = [one for one in everyone if one.individual.tree is not None and one.rank[0] <= worst]
    for one in sorted(usable, key=lambda scored: (scored.verdict.fuel, *scored.rank)):
        if not front or one.rank[0] < front[-1].rank[0]:
            front.append(one)
    return front
