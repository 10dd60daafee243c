"""Populations and generations over a worker that is a few lines of Python."""

from __future__ import annotations

import pytest

import evocell
from evocell import Case, ConfigurationError, Evaluation, Offspring

pytestmark = pytest.mark.trio

TASK = Evaluation("f", [Case(())], lambda case, value: value)


def constant(score):
    return f"def f(): return {score}"


@pytest.fixture
async def seeded(async_engine):
    """A population of four seeds, of which one does not compile, evaluated."""
    seeds = [Offspring(constant(score), id=f"s{score}") for score in (3, 1, 2)]
    await async_engine.create_population("p")
    await async_engine.next_generation("p", [*seeds, Offspring("def f(:", id="broken")])
    await async_engine.evaluate_generation("p", TASK)
    return async_engine


async def test_what_is_known_of_a_population(seeded):
    state = await seeded.get_population("p")
    assert (state.id, state.generation, state.parent_population_id) == ("p", 0, None)
    assert state.sandbox_ids == ("s3", "s1", "s2", "broken")
    stats = dict(state.fitness_stats)
    assert stats.pop("std") == pytest.approx(0.8165, abs=1e-4)
    assert stats == {"n_valid": 3, "n_invalid": 1, "min": 1, "max": 3, "mean": 2, "median": 2}
    assert await seeded.list_populations() == [state]


async def test_the_next_generation_records_mutations_and_crossovers(seeded):
    made = await seeded.next_generation(
        "p",
        [
            Offspring(constant(4), parents="s3", metadata={"operator": "tweak"}),
            Offspring(constant(5), parents=("s3", "s1")),
            Offspring(constant(6)),
        ],
    )
    infos = [await sandbox.get_info() for sandbox in made]
    assert [(i.generation, i.parent_ids, i.mutation_type) for i in infos] == [
        (1, ("s3",), "mutation"),
        (1, ("s3", "s1"), "crossover"),
        (1, (), "seed"),
    ]
    (first,) = await seeded.list_generations("p", 1)
    assert first.edges == (
        (made[0].id, "s3", "mutation"),
        (made[1].id, "s3", "crossover"),
        (made[1].id, "s1", "crossover"),
    )
    assert seeded.lineage.get(made[0].id).metadata == {"operator": "tweak"}
    assert seeded.lineage.descendants("s1") == [made[1].id]
    assert (await seeded.get_population("p")).generation == 1


async def test_bulk_operations_are_about_one_generation(seeded):
    await seeded.next_generation(
        "p", [Offspring(constant(4), ["s3"], id="a"), Offspring(constant(0), id="b")]
    )
    assert await seeded.get_members("p", 1) == ["a", "b"]
    assert await seeded.get_members("p") == ["s3", "s1", "s2", "broken", "a", "b"]
    results = await seeded.evaluate_generation("p", TASK)
    assert [(result.sandbox_id, result.fitness_score) for result in results] == [("a", 4.0), ("b", 0.0)]
    gone = await seeded.destroy_generation("p", generation=0, keep=["s3"])
    assert [state.id for state in gone] == ["s1", "s2", "broken"]
    assert await seeded.get_members("p") == ["s3", "a", "b"]
    past, latest = await seeded.list_generations("p")
    assert (past.generation, past.alive, past.sandbox_ids) == (0, 1, ("s3", "s1", "s2", "broken"))
    assert (past.fitness_stats["mean"], past.fitness_stats["n_invalid"]) == (2, 1)
    assert (latest.alive, latest.fitness_stats["max"]) == (2, 4)


async def test_the_best_are_those_of_the_populations_direction(seeded, async_engine):
    assert [sandbox.id for sandbox in await seeded.best("p", 2)] == ["s3", "s2"]
    await async_engine.create_population("down", direction="minimize")
    await async_engine.next_generation("down", [Offspring(constant(n), id=f"d{n}") for n in (2, 1, 3)])
    await async_engine.evaluate_generation(
        "down",
        Evaluation("f", [Case(())], lambda case, value: value, directions=("minimize",), failure=1e9),
    )
    assert [sandbox.id for sandbox in await async_engine.best("down", 9)] == ["d1", "d2", "d3"]
    await async_engine.hot_reload_source("d1", constant(9))
    assert [sandbox.id for sandbox in await async_engine.best("down", 9)] == ["d2", "d3"]


async def test_a_population_descends_from_another(seeded):
    made = await seeded.next_generation("p", [Offspring(constant(1), ["s3"])], into="island")
    state = await seeded.get_population("island")
    assert (state.parent_population_id, state.generation) == ("p", 1)
    assert state.sandbox_ids == (made[0].id,)
    assert (await seeded.get_population("p")).generation == 0


async def test_a_population_is_entered_by_its_first_member_and_outlives_its_last(async_engine):
    sandbox = await async_engine.create_sandbox("x", source=constant(1), population="q", generation=5)
    assert (await async_engine.get_population("q")).generation == 5
    await sandbox.destroy()
    state = await async_engine.get_population("q")
    assert (state.generation, state.sandbox_ids) == (5, ())
    made = await async_engine.next_generation("q", [Offspring(constant(2), ["x"])])
    assert (await made[0].get_info()).generation == 6  # of a parent that is gone


async def test_the_first_generation_of_an_empty_population_is_0(async_engine):
    await async_engine.create_population("q")
    made = await async_engine.next_generation("q", [Offspring(constant(1))])
    assert (await made[0].get_info()).generation == 0


async def test_numbering_goes_on_after_a_restart(fake_workers, tmp_path):
    config = evocell.Config(state_dir=tmp_path)
    async with evocell.AsyncEngine(config, open_worker=fake_workers) as first:
        await first.create_population("p", direction="minimize")
        await first.next_generation("p", [Offspring(constant(1), id="old")])
        await first.evaluate_generation("p", TASK)
    async with evocell.AsyncEngine(config, open_worker=fake_workers) as second:
        assert (await second.get_population("p")).sandbox_ids == ()
        (past,) = await second.list_generations("p")
        assert (past.sandbox_ids, past.alive, past.fitness_stats["max"]) == (("old",), 0, 1.0)
        made = await second.next_generation("p", [Offspring(constant(2), ["old"])])
        assert (await made[0].get_info()).generation == 1
        with pytest.raises(ConfigurationError, match="there is a population 'p' already"):
            await second.create_population("p")


async def test_what_cannot_be_used_is_refused_by_name(seeded):
    with pytest.raises(ConfigurationError, match=r"there is no population 'x'; there are 'p'"):
        await seeded.get_population("x")
    with pytest.raises(ConfigurationError, match="next_generation takes Offspring, not str"):
        await seeded.next_generation("p", ["def f(): pass"])
    with pytest.raises(evocell.SandboxNotFound):
        await seeded.next_generation("p", [Offspring(constant(1), ["nobody"])])
    with pytest.raises(ConfigurationError, match="direction must be"):
        await seeded.create_population("y", direction="up")
    with pytest.raises(ConfigurationError, match="there is no population 'x'"):
        await seeded.create_population("y", parent_population_id="x")
    with pytest.raises(ConfigurationError, match="generation must be a whole number"):
        await seeded.get_members("p", -1)
    with pytest.raises(ConfigurationError, match="parents must be sandboxes or their ids"):
        Offspring("x", parents=5)
    with pytest.raises(evocell.SandboxNotFound):
        await seeded.pin(["s3", "nobody"])
    assert await seeded.list_pinned() == []
    assert (await seeded.get_population("p")).generation == 0


async def test_a_generation_that_cannot_be_created_whole_is_not_there(seeded):
    with pytest.raises(evocell.SandboxExists):
        await seeded.next_generation("p", [Offspring(constant(1), id="n"), Offspring(constant(1), id="s1")])
    assert (await seeded.get_population("p")).generation == 0
    assert "n" not in await seeded.get_members("p")
