from __future__ import annotations

import pickle

import pytest

from evocell import errors
from evocell.models.outcome import GuestCrashed

EXAMPLES = [
    errors.EvocellError("broken"),
    errors.ConfigurationError("workers must be 0", "workers"),
    errors.SandboxNotFound("evo-1", "did you mean 'evo-2'?"),
    errors.SandboxExists("evo-1"),
    errors.SandboxBusy("evo-1", "it has files open"),
    errors.CapacityError("too many", "sandboxes", 10, 11),
    errors.WorkerDied("the code could not be compiled"),
    errors.ImageError("damaged", "/cache/image"),
    errors.ProtocolError("the frame is cut off"),
    errors.StoreError("the disk is full", "/state", [1, None]),
    errors.ScoringError("every score raised", ["ValueError: x"]),
    errors.OutcomeError(GuestCrashed("exit", exit_code=3)),
    errors.EngineClosed(),
    errors.ClusterLost("the scheduler is gone"),
    errors.EngineForked(owner_pid=12),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_survives_pickling_with_its_attributes(error):
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert isinstance(copy, errors.EvocellError)


def test_the_examples_cover_every_error_class():
    defined = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.EvocellError)
    }

    assert {type(error) for error in EXAMPLES} == defined


def test_messages_name_the_offender():
    assert "'evo-1'" in str(errors.SandboxNotFound("evo-1"))
    assert str(errors.SandboxNotFound("evo-1", "try evo-2")).endswith("; try evo-2")
    assert "'evo-1'" in str(errors.SandboxExists("evo-1"))
    assert str(errors.CapacityError("too many", "sandboxes", 10, 11)) == "too many"


def test_an_outcome_error_says_what_the_outcome_says():
    outcome = GuestCrashed("exit", exit_code=3)

    error = errors.OutcomeError(outcome)

    assert error.outcome is outcome
    assert str(error) == "the guest crashed: exit"
