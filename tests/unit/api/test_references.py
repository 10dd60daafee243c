"""A sandbox is named by its id or given itself, everywhere, and anything else is refused by name."""

from __future__ import annotations

import pytest

from evocell import Case, ConfigurationError, Evaluation, Offspring, SandboxSpec

TASK = Evaluation("f", [Case(())], lambda case, value: value)


def constant(score):
    return f"def f(): return {score}"


@pytest.fixture
def family(fake_engine):
    """A seed with fitness 1, and its child with fitness 2."""
    fake_engine.create_population("p")
    (seed,) = fake_engine.next_generation("p", [Offspring(constant(1), id="seed")])
    fake_engine.evaluate_generation("p", TASK)
    (child,) = fake_engine.next_generation("p", [Offspring(constant(2), id="child", parents=[seed])])
    fake_engine.evaluate_generation("p", TASK)
    return seed, child


ASKED = {
    "fitness.get": lambda engine, one, other: engine.fitness.get(one),
    "fitness.history": lambda engine, one, other: engine.fitness.history(one),
    "fitness.adjust": lambda engine, one, other: engine.fitness.adjust(one, 0.5, "shorter").delta,
    "lineage.get": lambda engine, one, other: engine.lineage.get(one),
    "lineage.depth": lambda engine, one, other: engine.lineage.depth(one),
    "lineage.ancestors": lambda engine, one, other: engine.lineage.ancestors(one),
    "lineage.descendants": lambda engine, one, other: engine.lineage.descendants(one),
    "lineage.line": lambda engine, one, other: engine.lineage.line(one),
    "lineage.common_ancestor": lambda engine, one, other: engine.lineage.common_ancestor(other, one),
    "lineage.family": lambda engine, one, other: engine.lineage.family([other, one]),
    "lineage.source": lambda engine, one, other: engine.lineage.source(one),
    "lineage.what_changed": lambda engine, one, other: engine.lineage.what_changed(one),
    "lineage.what_changed from": lambda engine, one, other: engine.lineage.what_changed(other, one),
    "lineage.annotate": lambda engine, one, other: engine.lineage.annotate(one, {"operator": "tweak"}),
    "get_info": lambda engine, one, other: engine.get_info(one),
    "pin": lambda engine, one, other: engine.pin([one]),
    "audit_log": lambda engine, one, other: engine.audit_log(sandbox_id=one),
    "past_versions": lambda engine, one, other: engine.past_versions(one),
    "spec": lambda engine, one, other: SandboxSpec(parent_ids=[one]),
    "offspring": lambda engine, one, other: Offspring("", [one]),
    "create_sandbox": lambda engine, one, other: (
        engine.create_sandbox(parent_ids=[one]).get_info().parent_ids
    ),
    "evaluate": lambda engine, one, other: engine.evaluate([constant(1)], TASK, parents=[one])[0].valid,
    "evaluate_one": lambda engine, one, other: engine.evaluate_one(constant(1), TASK, parents=one).valid,
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_a_sandbox_is_as_good_as_its_id(fake_engine, family, ask):
    seed, child = family
    by_id = ask(fake_engine, "child", "seed") if ask is not ASKED["lineage.what_changed from"] else None
    other = seed if ask is not ASKED["lineage.what_changed from"] else "seed"
    given_itself = ask(fake_engine, child, other)
    assert by_id is None or given_itself == by_id


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("nonsense", [3, b"child", object(), ("child",)], ids=repr)
def test_anything_else_is_refused_by_name(fake_engine, family, ask, nonsense):
    if ask is ASKED["evaluate"] and nonsense == ("child",):
        pytest.skip("a tuple of parents")
    if ask is ASKED["evaluate_one"] and nonsense == ("child",):
        pytest.skip("a tuple of parents")
    with pytest.raises(ConfigurationError, match="by its id or given itself, not by") as caught:
        ask(fake_engine, nonsense, "seed")
    assert type(nonsense).__name__ in str(caught.value)


def test_what_engine_best_returns_can_be_asked_about(fake_engine, family):
    best = fake_engine.best("p")[0]
    assert fake_engine.fitness.get(best).score == 2
    assert [one.id for one in fake_engine.lineage.line(best)] == ["seed", "child"]


def test_fuel_and_reason_come_with_what_the_store_says_is_best(fake_engine, family):
    fake_engine.evaluate(["def f(): raise KeyError"], TASK, population="p", generation=1)
    assert [entry.fuel_used for entry in fake_engine.fitness.best(2)] == [7, 7]
    recorder = fake_engine.fitness
    for one in ("seed", "child"):
        before = recorder.get(one)
        recorder.forget(one)
        assert recorder.get(one) == before
