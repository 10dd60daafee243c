"""One whole run, from the seed to a result that can be printed, compared and repeated."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeAlias

import evocell

from .arena import HELD_OUT, LIMITS, TRAINING, Arena, packing_task
from .evolve import Generation, Scored, evolve, lineage, pareto
from .expressions import size
from .problem import Instance, best_fit, excess, first_fit, verify
from .progress import Reporter, Watch
from .saboteurs import SABOTEURS

Result: TypeAlias = dict[str, Any]

_UNREPEATABLE = ("_wall_s", "_per_s")
_HELD_OUT_LIMITS = LIMITS.evolve(fuel=20_000_000_000, timeout_s=120.0)
_BASELINES = {"first_fit": first_fit, "best_fit": best_fit}
_N_TRAINING_ITEMS = sum(len(instance.items) for instance in TRAINING)


def run_experiment(
    engine: evocell.Engine,
    *,
    seed: int,
    generations: int,
    population: int,
    watch: Watch | None = None,
) -> Result:
    """Evolve a packing heuristic and measure the winner on instances it has never seen.

    Args:
        engine: Runs every program.
        seed: Decides everything but the readings of the clock.
        generations: At least 1.
        population: Programs born in each generation; more than the five saboteurs.
        watch: Called after each evaluation and at the end of each generation.

    Returns:
        What ``evocell demo --json`` prints: plain data. Without the fields that end in ``_wall_s``
        or ``_per_s`` it is the same for the same arguments.

    Raises:
        ValueError: A number is too small, or nobody survived.
    """
    baselines = {name: _baseline(pack, TRAINING) for name, pack in _BASELINES.items()}
    reporter = Reporter(watch, population, baselines["best_fit"])
    arena = Arena(engine, reporter.judged)
    everyone: list[Scored] = []
    history: list[Result] = []
    survivors: tuple[Scored, ...] = ()
    for now in evolve(arena, seed=seed, generations=generations, population=population):
        everyone += now.born
        survivors = now.survivors
        history.append(_generation(now))
        reporter.over(now)
    evolution_wall_s = reporter.wall_s
    if not survivors:
        raise ValueError("no program survived; raise the population or the number of generations")
    best = survivors[0]
    result = {
        "seed": seed,
        "generations": generations,
        "population": population,
        "training": {"instances": [_described(instance) for instance in TRAINING], "excess": baselines},
        "evaluations": len(everyone),
        "deaths": dict(sorted(reporter.deaths.items())),
        "saboteurs": _saboteurs(everyone),
        "history": history,
        "best": {**_member(best), "source": best.individual.source},
        "lineage": [
            {**_member(one), "source": one.individual.source} for one in lineage(best.individual, everyone)
        ],
        "excess_against_fuel": [
            _member(one) for one in pareto(everyone, worst=max(baselines["first_fit"], best.rank[0]))
        ],
        "held_out": {
            family: _held_out(engine, best.individual.source, instances)
            for family, instances in HELD_OUT.items()
        },
        "evolution_wall_s": evolution_wall_s,
        "total_wall_s": reporter.wall_s,
        "evaluations_per_s": len(everyone) / evolution_wall_s,
    }
    return {**result, "digest": digest(result)}


def digest(result: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything in a result that must repeat, as canonical JSON."""
    text = json.dumps(_repeatable(result), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _repeatable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _repeatable(inner)
            for key, inner in value.items()
            if not key.endswith(_UNREPEATABLE) and key != "digest"
        }
    return [_repeatable(inner) for inner in value] if isinstance(value, list) else value


def _generation(now: Generation) -> Result:
    return {
        "generation": now.number,
        "best_id": now.best.individual.id if now.best else None,
        "best_excess": now.best.verdict.excess if now.best else None,
        "mean_excess": now.mean_excess,
        "survivors": len(now.survivors),
        "deaths": dict(sorted(Counter(one.verdict.death for one in now.born if one.verdict.death).items())),
        "fuel": sum(one.verdict.fuel for one in now.born),
    }


def _member(one: Scored) -> Result:
    individual, verdict = one.individual, one.verdict
    return {
        "id": individual.id,
        "generation": individual.generation,
        "operator": individual.operator,
        "parents": list(individual.parents),
        "excess": verdict.excess,
        "fuel": verdict.fuel,
        "fuel_per_item": verdict.fuel // _N_TRAINING_ITEMS,
        "nodes": size(individual.tree) if individual.tree is not None else None,
    }


def _saboteurs(everyone: Sequence[Scored]) -> list[Result]:
    by_source = {one.individual.source: one for one in everyone if one.individual.tree is None}
    return [
        {
            "label": saboteur.label,
            "id": by_source[saboteur.source].individual.id,
            "expected": saboteur.dies_of,
            "died_of": by_source[saboteur.source].verdict.death,
            "detail": by_source[saboteur.source].verdict.detail,
            "fuel": by_source[saboteur.source].verdict.fuel,
        }
        for saboteur in SABOTEURS
    ]


def _described(instance: Instance) -> Result:
    return {"name": instance.name, "items": len(instance.items), "lower_bound": instance.bound}


def _held_out(engine: evocell.Engine, source: str, instances: Sequence[Instance]) -> Result:
    """Pack the instances with the evolved program and, on the host, with the classic baselines."""
    evolved = engine.evaluate_one(source, packing_task(instances, _HELD_OUT_LIMITS))
    return {
        "instances": [_described(instance) for instance in instances],
        "excess": {
            **{name: _baseline(pack, instances) for name, pack in _BASELINES.items()},
            "evolved": evolved.fitness_score if evolved.valid else None,
        },
        "error": evolved.error,
        "fuel": evolved.fuel_used,
    }


def _baseline(pack: Callable[[Instance], list[int]], instances: Sequence[Instance]) -> float:
    return fmean(excess(instance, verify(instance, pack(instance))) for instance in instances)
