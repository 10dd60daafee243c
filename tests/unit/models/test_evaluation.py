from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from evocell.errors import ConfigurationError
from evocell.models import Case, Evaluation, Limits

CASES = [Case(args=(3,), expected=9)]


def test_a_bare_entry_is_looked_up_in_program():
    assert Evaluation("solve", CASES).entry == "program:solve"
    assert Evaluation("pack:run", CASES).entry == "pack:run"
    assert Evaluation("a.b:C.method", CASES).entry == "a.b:C.method"


@pytest.mark.parametrize("entry", ["", "a b", "a:", ":f", "a:b:c", "f()", "1f", "f\n", None, "a..b:f"])
def test_an_entry_that_names_no_function_is_refused(entry):
    with pytest.raises(ConfigurationError, match="entry must name a function"):
        Evaluation(entry, CASES)


@pytest.mark.parametrize(
    ("cases", "named"),
    [
        ([], "empty"),
        (Case(), r"cases=\[case\]"),
        ([Case(), ((1,), 2)], r"cases\[1\] must be a Case, not tuple; write Case\("),
        (3, "sequence of Case"),
    ],
)
def test_cases_that_cannot_be_used_are_named(cases, named):
    with pytest.raises(ConfigurationError, match=named):
        Evaluation("f", cases)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"score": "equals"}, "score must be"),
        ({"aggregate": "median"}, "aggregate must be"),
        ({"stop": "never"}, "stop must be"),
        ({"isolation": "session"}, "isolation must be"),
        ({"limits": {"fuel": 3}}, "limits must be"),
        ({"total_limits": 3}, "total_limits must be"),
        ({"harness": 3}, "harness must be"),
        (
            {"harness": "def f(): pass"},
            r'give it a name of its own, as in {"driver.py": text}, and entry="driver:f"',
        ),
        ({"image": 3}, "image must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 1 << 64}, "seed must be"),
        ({"directions": "minimize"}, "directions must be"),
        ({"directions": ()}, "directions must be"),
        ({"directions": ("up",)}, "each direction"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(fields, named):
    with pytest.raises(ConfigurationError, match=named):
        Evaluation("f", CASES, **fields)


def test_failure_is_zero_only_for_one_maximised_objective():
    assert Evaluation("f", CASES).failure_objectives == (0.0,)
    with pytest.raises(ConfigurationError, match="failure must be given"):
        Evaluation("f", CASES, directions=("minimize",))
    with pytest.raises(ConfigurationError, match="failure must be given"):
        Evaluation("f", CASES, directions=("maximize", "maximize"))


def test_failure_has_a_finite_number_per_objective():
    assert Evaluation("f", CASES, directions=("minimize",), failure=1e9).failure_objectives == (1e9,)
    both = Evaluation("f", CASES, directions=("minimize", "maximize"), failure=(1e9, -1))
    assert both.failure_objectives == (1e9, -1)
    for failure in (math.inf, math.nan, "bad", True):
        with pytest.raises(ConfigurationError, match="finite"):
            Evaluation("f", CASES, failure=failure)
    with pytest.raises(ConfigurationError, match="2 directions"):
        Evaluation("f", CASES, directions=("minimize", "maximize"), failure=1.0)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"args": 3}, r"args=\(value,\)"),
        ({"args": "abc"}, "args"),
        ({"kwargs": {1: 2}}, "kwargs"),
        ({"args": (3,), "kwargs": 9}, r"Case\(\(3,\), expected=9\)"),
        ({"name": 3}, "name"),
        ({"seed": "x"}, "seed"),
        ({"public": 1}, "public"),
    ],
)
def test_a_case_field_that_cannot_be_used_is_named(fields, named):
    with pytest.raises(ConfigurationError, match=named):
        Case(**fields)


def test_cases_with_arrays_compare_and_hash():
    first = Case(args=(np.arange(3),), expected=np.arange(3))
    second = Case(args=[np.arange(3)], expected=np.arange(3))

    assert first == second
    assert hash(first) == hash(second)
    assert first != Case(args=(np.arange(4),), expected=np.arange(3))


def test_evaluations_pickle_compare_and_hash():
    evaluation = Evaluation("f", CASES, harness={"drive.py": "x = 1"}, limits=Limits(fuel=5))
    copy = pickle.loads(pickle.dumps(evaluation))

    assert copy == evaluation
    assert hash(copy) == hash(evaluation)


def test_a_case_does_not_share_its_arguments_mapping():
    kwargs = {"a": 1}
    case = Case(kwargs=kwargs)
    kwargs["b"] = 2

    assert case.kwargs == {"a": 1}


@pytest.mark.parametrize("score", ["equal", "close"])
@pytest.mark.parametrize("cases", [[Case()], [Case((1,), expected=1), Case((2,))], [Case(name="x", seed=3)]])
def test_a_case_without_an_expected_value_is_refused_where_it_would_be_compared(score, cases):
    with pytest.raises(ConfigurationError) as caught:
        Evaluation("f", cases, score)

    at = len(cases) - 1
    assert f"cases[{at}] has no expected value" in str(caught.value)
    assert "expected=None for a function that returns None" in str(caught.value)
    assert caught.value.key == f"cases[{at}].expected"
    assert Evaluation("f", cases, lambda case, value: 1.0).cases[at].expected is None


class Table:
    __hash__ = None

    def __eq__(self, other):
        return Table()

    def __bool__(self):
        raise ValueError("the truth value of a Table is ambiguous")


@pytest.mark.parametrize("score", ["equal", "close"])
@pytest.mark.parametrize(
    ("expected", "path"), [(Table(), ""), ([1, {"k": (2, Table())}], "[1]['k'][1]")], ids=["alone", "within"]
)
def test_an_expected_value_that_cannot_be_compared_is_refused_with_its_place(score, expected, path):
    with pytest.raises(ConfigurationError) as caught:
        Evaluation("f", [Case(expected=0), Case(expected=expected)], score)

    assert str(caught.value).startswith(f"cases[1].expected{path} is a Table")
    assert "frame.to_dict('list')" in str(caught.value)
    assert Evaluation("f", [Case(expected=expected)], lambda case, value: 1.0)


def test_expected_values_that_can_be_compared_are_taken():
    cyclic = [1]
    cyclic.append(cyclic)
    for expected in (cyclic, {"a": {1, 2}}, np.zeros(3), [np.float64(1)], object(), float("nan")):
        assert Evaluation("f", [Case(expected=expected)], "equal").cases[0].has_expected


def test_none_may_be_what_is_expected():
    case = Case(expected=None)

    assert Evaluation("f", [case]).cases[0].has_expected
    assert (case.expected, case) == (None, Case())
    assert not Case().has_expected
