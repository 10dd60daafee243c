from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from evocell.errors import OutcomeError
from evocell.models import Completed, GuestCrashed, LimitExceeded, Outcome, Raised, Rejected, WorkerLost

FAILURES = [
    (Raised("ValueError", "bad", "Traceback ..."), "raised", "ValueError: bad"),
    (Raised("KeyboardInterrupt"), "raised", "KeyboardInterrupt"),
    (
        Rejected("syntax", "invalid syntax", "program.py", 3, 7, "def ("),
        "syntax",
        "program.py:3:7: invalid syntax",
    ),
    (Rejected("load", "there is no function f"), "load", "there is no function f"),
    (LimitExceeded("fuel", 10, 11), "fuel", "stopped at the fuel limit of 10 (reached 11)"),
    (LimitExceeded("payload", message="result[0] is too deep"), "payload", "result[0] is too deep"),
    (GuestCrashed("unreachable"), "crashed", "the guest crashed: unreachable"),
    (WorkerLost("killed"), "worker_lost", "the worker was lost: killed"),
]


def test_completed_holds_its_value():
    outcome = Completed(9, fuel_used=5)

    assert outcome.ok
    assert outcome.kind == "completed"
    assert outcome.error is None
    assert outcome.unwrap() == 9


@pytest.mark.parametrize(("outcome", "kind", "error"), FAILURES)
def test_failures_say_what_happened(outcome, kind, error):
    assert isinstance(outcome, Outcome)
    assert not outcome.ok
    assert outcome.kind == kind
    assert outcome.error == error
    with pytest.raises(OutcomeError) as caught:
        outcome.unwrap()
    assert caught.value.outcome is outcome


@pytest.mark.parametrize("outcome", [Completed([1, {"a": 2}]), *(row[0] for row in FAILURES)])
def test_outcomes_pickle_and_hash(outcome):
    copy = pickle.loads(pickle.dumps(outcome))

    assert copy == outcome
    assert hash(copy) == hash(outcome)


def test_wall_time_is_left_out_of_equality_and_fuel_is_not():
    assert Completed(1, wall_s=0.1) == Completed(1, wall_s=0.2)
    assert hash(Completed(1, wall_s=0.1)) == hash(Completed(1, wall_s=0.2))
    assert Completed(1, fuel_used=1) != Completed(1, fuel_used=2)


def test_values_are_compared_by_content():
    assert Completed([math.nan]) == Completed([float("nan")])
    assert Completed(np.arange(3)) == Completed(np.arange(3))
    assert Completed(np.arange(3)) != Completed(np.arange(4))
    assert Completed(np.arange(3)) != Completed(np.arange(3.0))
    assert Completed({"a": np.array([math.nan])}) == Completed({"a": np.array([math.nan])})
    assert Completed(1) != Completed(True)
    assert Completed(0.0) != Completed(-0.0)
    assert Completed((1,)) != Completed([1])
    assert Completed({1, 2}) == Completed({2, 1})
    assert Completed(complex(math.nan, 1)) == Completed(complex(math.nan, 1))


def test_a_failure_says_why_it_has_no_value():
    failed = Raised("ValueError", "no")
    with pytest.raises(AttributeError, match="there is no value: ValueError: no; ask"):
        failed.value  # noqa: B018
    with pytest.raises(AttributeError, match="'Raised' object has no attribute 'valeu'"):
        failed.valeu  # noqa: B018
    assert getattr(failed, "value", None) is None
    assert pickle.loads(pickle.dumps(failed)) == failed


def test_outcomes_are_immutable():
    with pytest.raises(AttributeError):
        Completed(1).value = 2


@pytest.mark.parametrize(
    ("used", "imports", "noted"),
    [(10**10, 6 * 10**9, True), (10**10, 4 * 10**9, False), (10**8, 9 * 10**7, False), (10**9, 0, False)],
)
def test_a_call_that_was_mostly_imports_says_so(used, imports, noted):
    ended = LimitExceeded("fuel", limit=used, reached=used, fuel_used=used, import_fuel=imports)
    assert bool(ended.imports_note) == noted
    assert ("; imports took" in ended.error) == noted
    done = Completed(value=1, fuel_used=used, import_fuel=imports)
    assert (done.error, done.imports_note) == (None, ended.imports_note)
    late = LimitExceeded("timeout", limit=1.0, fuel_used=used, import_fuel=imports)
    assert "imports" not in late.error
