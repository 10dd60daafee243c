import itertools

import pytest

from bin_packing.evolve import Verdict, evolve, lineage, pareto
from bin_packing.expressions import size
from bin_packing.saboteurs import SABOTEURS


def judge(generation, newcomers):
    """Likes small programs that do not mention item; every seventh text dies."""
    verdicts = []
    for one in newcomers:
        if one.tree is None or len(one.source) % 7 == 0:
            verdicts.append(Verdict(excess=None, death="raised", detail="ValueError"))
        else:
            score = one.source.count("item") * 3 + size(one.tree)
            verdicts.append(Verdict(excess=score / 100, behaviour=(score,), fuel=1000 - size(one.tree)))
    return verdicts


def run(seed=0, generations=5, population=16):
    return list(evolve(judge, seed=seed, generations=generations, population=population))


def test_the_seed_decides_everything():
    assert run(seed=1) == run(seed=1)
    assert run(seed=1) != run(seed=2)


def test_generation_0_holds_each_saboteur_once_and_none_survives():
    generations = run()
    hostile = [one.individual for one in generations[0].born if one.individual.operator == "sabotage"]
    assert sorted(one.source for one in hostile) == sorted(saboteur.source for saboteur in SABOTEURS)
    for generation in generations:
        assert len(generation.born) == 16
        assert all(one.verdict.death is None for one in generation.survivors)


def test_survivors_are_ranked_and_differ_in_behaviour_and_the_best_is_never_lost():
    best = []
    for generation in run(generations=8):
        excesses = [one.verdict.excess for one in generation.survivors]
        assert excesses == sorted(excesses)
        behaviours = [one.verdict.behaviour for one in generation.survivors]
        assert len(set(behaviours)) == len(behaviours)
        assert generation.mean_excess == pytest.approx(sum(excesses) / len(excesses))
        best.append(generation.best.verdict.excess)
    assert best == sorted(best, reverse=True)


def test_ids_are_unique_and_parents_are_older():
    everyone = [one for generation in run() for one in generation.born]
    by_id = {one.individual.id: one for one in everyone}
    assert len(by_id) == len(everyone)
    for one in everyone:
        for parent in one.individual.parents:
            assert by_id[parent].individual.generation < one.individual.generation


def test_lineage_runs_from_a_founder_to_the_individual():
    generations = run(generations=8)
    everyone = [one for generation in generations for one in generation.born]
    line = lineage(generations[-1].best.individual, everyone)
    assert line[0].individual.generation == 0
    assert line[-1] == generations[-1].best
    for older, younger in itertools.pairwise(line):
        assert younger.individual.parents[0] == older.individual.id


def test_pareto_trades_fuel_for_excess_and_leaves_out_the_useless():
    everyone = [one for generation in run() for one in generation.born]
    front = pareto(everyone, worst=0.5)
    assert front
    fuels = [one.verdict.fuel for one in front]
    excesses = [one.verdict.excess for one in front]
    assert fuels == sorted(fuels)
    assert excesses == sorted(excesses, reverse=True)
    assert max(excesses) <= 0.5


def test_a_generation_in_which_all_die_is_survived():
    def harsh(generation, newcomers):
        return [Verdict(excess=None, death="fuel") for _ in newcomers]

    generations = list(evolve(harsh, seed=0, generations=3, population=8))
    assert [generation.best for generation in generations] == [None, None, None]
    assert generations[2].mean_excess is None


@pytest.mark.parametrize(("generations", "population"), [(0, 20), (3, 5)])
def test_numbers_that_are_too_small_are_refused(generations, population):
    with pytest.raises(ValueError, match=r"generations is 0|population is 5"):
        next(evolve(judge, seed=0, generations=generations, population=population))


def test_the_mean_is_the_same_whatever_pythons_sum_does():
    def even(_, newcomers):
        return [Verdict(excess=0.1, behaviour=(number,)) for number, _ in enumerate(newcomers)]

    # A plain sum of ten tenths is 0.9999999999999999, up to Python 3.11.
    (first,) = evolve(even, seed=0, generations=1, population=15)
    assert len(first.survivors) == 10
    assert first.mean_excess == 0.1
