"""A search as docs/resuming.md writes it: the same program for the first start and for every later one."""

from __future__ import annotations

import random
import sys

from evocell import Case, Config, Engine, Evaluation, Limits, Offspring

POPULATION = "overnight"
SIZE = 250
TARGET = [1310, -2745, 812, 3109, -531, 1702, -2218]
XS = [x / 4 for x in range(-10, 11)]
YS = [sum(weight * x**power for power, weight in enumerate(TARGET)) for x in XS]
TASK = Evaluation(
    "solve",
    [Case((XS,), expected=YS)],
    score=lambda case, values: sum(abs(y - value) for y, value in zip(case.expected, values, strict=True)),
    directions=("minimize",),
    failure=(1e12,),
    limits=Limits(fuel=5_000_000),
)


def program(weights: list[int]) -> str:
    """Return a polynomial as one line; a few of them fail, as those of models do."""
    expression = " + ".join(f"{weight} * x**{power}" for power, weight in enumerate(weights))
    return f"WEIGHTS = {weights}\ndef solve(xs): return [{expression} for x in xs]\n"


def saboteur(chance: random.Random) -> str:
    """Return a program that fails in one way or another."""
    return chance.choice(
        [
            "def solve(xs):\n    while True: pass\n",
            "def solve(xs): return [0] * 10**9\n",
            "def solve(xs): raise ValueError(xs)\n",
            "def solve(xs) return xs\n",
            "import ctypes\ndef solve(xs): return xs\n",
        ]
    )


def weights_of(source: str) -> list[int]:
    """Return the numbers that `program` wrote down."""
    return [int(one) for one in source.partition("[")[2].partition("]")[0].split(",")]


def offspring(engine: Engine, generation: int) -> list[Offspring]:
    """Return the next generation; the same for the same generation and the same best."""
    chance = random.Random(generation)
    best = engine.best(POPULATION, 5) if engine.get_members(POPULATION) else []
    made = []
    for _ in range(SIZE):
        if chance.random() < 0.05:
            made.append(Offspring(saboteur(chance), parents=best[0] if best else ()))
        elif not best:
            made.append(Offspring(program([chance.randrange(-9, 10) for _ in TARGET])))
        else:
            first, second = chance.choice(best), chance.choice(best)
            pairs = zip(
                *(weights_of(engine.lineage.source(one)["program.py"]) for one in (first, second)),
                strict=True,
            )
            weights = [chance.choice(pair) for pair in pairs]
            weights[chance.randrange(len(weights))] += chance.randrange(-40, 41)
            parents = (first,) if first.id == second.id else (first, second)
            made.append(Offspring(program(weights), parents=parents))
    return made


def main(state_dir: str, generations: int) -> None:
    """Go on with the search until it has so many generations."""
    with Engine(Config.load(state_dir=state_dir, workers=2, gc_retain_generations=2)) as engine:
        engine.resume_population(POPULATION, direction="minimize")
        done = engine.get_population(POPULATION).generation if engine.list_generations(POPULATION) else -1
        while done < generations - 1:
            engine.next_generation(POPULATION, offspring(engine, done + 1))
            engine.evaluate_generation(POPULATION, TASK)
            done += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
