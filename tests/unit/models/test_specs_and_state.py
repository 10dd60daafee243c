from __future__ import annotations

import pickle

import pytest
from attrs import evolve

from evocell.errors import ConfigurationError
from evocell.models import (
    Limits,
    PopulationState,
    SandboxSpec,
    SandboxState,
    SandboxStatus,
)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": ""}, "sandbox id"),
        ({"id": "a\nb"}, "sandbox id"),
        ({"id": "x" * 201}, "sandbox id"),
        ({"id": 7}, "sandbox id"),
        ({"source": "x = 1", "bundle": b"PK"}, "source or bundle"),
        ({"parent_ids": "evo-1"}, "parent_ids"),
        ({"parent_ids": 3}, "parent_ids"),
        ({"parent_ids": ("",)}, "parent_ids"),
        ({"generation": -1}, "generation"),
        ({"generation": True}, "generation"),
        ({"mutation_type": ""}, "mutation_type"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(fields, named):
    with pytest.raises(ConfigurationError, match=named):
        SandboxSpec(**fields)


def test_a_spec_without_code_keeps_the_rest():
    spec = SandboxSpec("evo-1", source="x = 1", limits=Limits(fuel=5), parent_ids=["a", "b"])

    assert spec.code == "x = 1"
    assert spec.parent_ids == ("a", "b")
    assert spec.without_code() == evolve(spec, source=None)
    assert spec.without_code().code is None
    assert SandboxSpec(bundle=b"PK").code == b"PK"


def test_state_notes_each_step_of_its_life():
    state = SandboxState("evo-1")
    state = state.moved_to(SandboxStatus.RUNNING, "loaded", version="abc")
    state = state.moved_to(SandboxStatus.ERROR, "out of fuel", error="out of fuel")
    state = state.moved_to(SandboxStatus.RUNNING, error=None, restart_count=1)
    state = state.moved_to(SandboxStatus.STOPPED)

    assert [step.after for step in state.transitions] == ["running", "error", "running", "stopped"]
    assert state.transitions[0].before is SandboxStatus.CREATING
    assert state.transitions[1].reason == "out of fuel"
    assert state.version == "abc"
    assert state.restart_count == 1


def test_staying_notes_nothing():
    state = SandboxState("evo-1").moved_to(SandboxStatus.CREATING, fitness=0.5)

    assert state.transitions == ()
    assert state.fitness == 0.5


@pytest.mark.parametrize(
    ("before", "after"),
    [("stopped", "running"), ("running", "creating"), ("error", "creating")],
)
def test_a_step_that_makes_no_sense_is_refused(before, after):
    state = SandboxState("evo-1", SandboxStatus(before))

    with pytest.raises(ValueError, match=f"{before}.*{after}"):
        state.moved_to(SandboxStatus(after))


def test_the_first_parent_is_the_parent():
    assert SandboxState("c", parent_ids=("a", "b")).parent_id == "a"
    assert SandboxState("c").parent_id is None


def test_states_pickle():
    state = SandboxState("evo-1").moved_to(SandboxStatus.RUNNING)
    population = PopulationState("main", 3, ("evo-1",), {"mean": 0.5})

    assert pickle.loads(pickle.dumps(state)) == state
    assert pickle.loads(pickle.dumps(population)) == population
