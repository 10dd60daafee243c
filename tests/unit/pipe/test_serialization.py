"""Models survive the wire, and what is no model is refused by the part at fault."""

from datetime import UTC, datetime

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evocell
from evocell.errors import ConfigurationError
from evocell.pipe.errors import MethodNotFound, error_codes, from_wire, to_wire
from evocell.pipe.methods import NOT_OFFERED, engine_methods, find_method, strange_methods
from evocell.pipe.serialization import decode, encode
from evocell_guest import decoding, values

few = settings(max_examples=40)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
common = {
    "fuel_used": st.integers(0, 10**12),
    "wall_s": numbers,
    "stdout": text,
    "deterministic": st.booleans(),
}
outcomes = st.one_of(
    st.builds(evocell.Completed, value=st.lists(st.integers()), **common),
    st.builds(evocell.Raised, type_name=text, message=text, traceback=text, **common),
    st.builds(
        evocell.Rejected,
        kind=st.sampled_from(["syntax", "security", "load"]),
        message=text,
        line=st.none() | st.integers(),
        **common,
    ),
    st.builds(
        evocell.LimitExceeded, kind=st.sampled_from(["fuel", "memory"]), limit=st.none() | numbers, **common
    ),
    st.builds(evocell.GuestCrashed, reason=text, exit_code=st.none() | st.integers(), **common),
    st.builds(evocell.WorkerLost, reason=text, **common),
)
cases = st.builds(
    evocell.CaseResult,
    name=text,
    index=st.integers(0, 9),
    outcome=outcomes,
    score=st.none() | numbers | st.dictionaries(text, numbers, max_size=2),
    passed=st.booleans(),
)
results = st.builds(
    evocell.FitnessResult,
    sandbox_id=text,
    generation=st.integers(0, 9),
    fitness_score=numbers,
    components=st.dictionaries(text, numbers, max_size=2),
    evaluated_at=st.datetimes(timezones=st.just(UTC)),
    test_results=st.lists(cases, max_size=2).map(tuple),
    objectives=st.lists(numbers, min_size=1, max_size=3).map(tuple),
    reason=st.none() | text,
)
limits = st.builds(evocell.Limits, fuel=st.integers(1, 10**12), timeout_s=st.floats(0.1, 10))
specs = st.builds(
    evocell.SandboxSpec,
    id=st.none() | st.text("abc", min_size=1, max_size=5),
    source=st.none() | text | st.dictionaries(text, text | st.binary(max_size=5), max_size=2),
    limits=st.none() | limits,
    parent_ids=st.lists(st.text("ab", min_size=1, max_size=3), max_size=2).map(tuple),
)
evaluations = st.builds(
    evocell.Evaluation,
    entry=st.just("program:f"),
    cases=st.lists(
        st.builds(
            evocell.Case,
            args=st.lists(st.integers()).map(tuple),
            kwargs=st.dictionaries(text, numbers, max_size=2),
            expected=st.none() | text | st.lists(numbers),
        ),
        min_size=1,
        max_size=3,
    ),
    score=st.sampled_from(["equal", "close"]),
    limits=st.none() | limits,
    stop=st.none() | st.just("first_failure"),
    seed=st.integers(0, 2**64 - 1),
)


class Nobody:
    """A context without sandboxes or functions."""

    def handle(self, sandbox_id):
        return sandbox_id

    def function(self, role, name, owner):
        return (role, name, dict(owner))

    def name_of(self, role, function, owner, takes):
        return f"{role} of {type(owner).__name__}"


def there_and_back(value, hint):
    plain = decoding.decode(values.encode(encode(value, hint)))
    return decode(plain, hint, "it", Nobody())


@few
@given(outcomes)
def test_outcomes(outcome):
    assert there_and_back(outcome, evocell.Outcome) == outcome
    plain = encode(outcome, evocell.Outcome)
    assert (plain["type"], plain["ok"], plain["kind"]) == (type(outcome).__name__, outcome.ok, outcome.kind)


@few
@given(results)
def test_results(result):
    back = there_and_back([result], list[evocell.FitnessResult])
    assert back == [result]
    assert back[0].evaluated_at == result.evaluated_at


@few
@given(specs)
def test_specs(spec):
    assert there_and_back(spec, evocell.SandboxSpec) == spec


@few
@given(evaluations)
def test_evaluations(evaluation):
    assert there_and_back(evaluation, evocell.Evaluation) == evaluation


def test_states():
    state = evocell.SandboxState("a", transitions=(evocell.Transition(None, evocell.SandboxStatus.CREATING),))
    state = state.moved_to(
        evocell.SandboxStatus.RUNNING, "loaded", fitness=1.5, evaluated_at=datetime.now(UTC)
    )
    assert there_and_back(state, evocell.SandboxState) == state


def test_functions_travel_as_names_and_know_what_is_beside_them():
    evaluation = evocell.Evaluation("f", [evocell.Case()], score=lambda case, value: 1.0)
    plain = encode(evaluation, evocell.Evaluation, Nobody())
    assert plain["score"] == {"function": "score of Evaluation"}
    with pytest.raises(ConfigurationError, match="score must be"):
        decode(plain, evocell.Evaluation, "it", Nobody())  # this context gives no function

    class Giver(Nobody):
        def function(self, role, name, owner):
            return lambda case, value: (role, name, len(owner["cases"]))

    made = decode(plain, evocell.Evaluation, "it", Giver())
    assert made.score(None, None) == ("score", "score of Evaluation", 1)


@pytest.mark.parametrize(
    ("value", "hint", "why"),
    [
        (1, str, "it must be str, not 1"),
        (True, int, "it must be int, not True"),
        ("x" * 200, int, r"it must be int, not 'x+…"),
        ([1, "a"], list[int], r"it\[1\] must be int, not 'a'"),
        ({"a": [1]}, dict[str, str], r"it\['a'\] must be str, not a list"),
        ({"fuel": 1, "fule": 2}, evocell.Limits, "it has no field 'fule'; did you mean 'fuel'"),
        ({"fuel": "1"}, evocell.Limits, "it.fuel must be int, not '1'"),
        ({"fuel": -1}, evocell.Limits, "it: limits: fuel must be between"),
        ({"entry": "f"}, evocell.Evaluation, "it lacks the field 'cases'"),
        ({"entry": "f", "cases": [{"args": 3}]}, evocell.Evaluation, r"it.cases\[0\].args must be list"),
        (
            {"entry": "f", "cases": [{"arg": 3}]},
            evocell.Evaluation,
            r"cases\[0\] has no field 'arg'; did you mean 'args'",
        ),
        ({"entry": "f", "cases": [{}], "score": "equals"}, evocell.Evaluation, "it.score must be"),
        ({"type": "Nothing"}, evocell.Outcome, "it.type must be one of"),
        (
            {"evaluated_at": "soon", "sandbox_id": "", "generation": 0, "fitness_score": 0},
            evocell.FitnessResult,
            "ISO 8601",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_its_path(value, hint, why):
    with pytest.raises(ConfigurationError, match=why) as caught:
        decode(value, hint, "it", Nobody())
    assert caught.value.key.startswith("it")


def test_every_method_of_the_engine_is_offered_or_left_out_with_a_reason():
    public = {
        name
        for name in dir(evocell.AsyncEngine)
        if not name.startswith("_") and callable(getattr(evocell.AsyncEngine, name))
    }
    assert strange_methods() == {}
    assert public <= engine_methods().keys() | NOT_OFFERED.keys()
    assert NOT_OFFERED.keys() <= set(dir(evocell.AsyncEngine))


@pytest.mark.parametrize(
    ("method", "params", "why"),
    [
        ("run", {"id": "a"}, "run needs the argument 'entry'"),
        ("run", {"id": "a", "entry": "f", "arg": 1}, "no argument 'arg'; did you mean 'args'"),
        ("run", {"id": "a", "sandbox": "a", "entry": "f"}, "which are the same"),
        ("run", {"id": 3, "entry": "f"}, "id must be sandbox id, not 3"),
        ("run", {"id": "a", "entry": "f", "isolation": "both"}, 'isolation must be "session" | "call"'),
        ("evaluate", {"sources": "x"}, "sources must be list of"),
    ],
)
def test_bad_arguments_are_refused_by_name(method, params, why):
    with pytest.raises(ConfigurationError) as caught:
        find_method(method).read(params, Nobody())
    assert why in str(caught.value)


def test_a_method_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(MethodNotFound, match="did you mean 'create_sandbox'"):
        find_method("create_sandboxes")
    with pytest.raises(MethodNotFound, match="does not offer 'open_stream'"):
        find_method("open_stream")


@pytest.mark.parametrize("code", error_codes())
def test_every_error_survives_the_wire(code):
    kind = error_codes()[code]
    names = list(kind.__init__.__code__.co_varnames[1 : kind.__init__.__code__.co_argcount])
    sample = {
        "message": "it is so",
        "limit": 3,
        "requested": 4,
        "owner_pid": 5,
        "failures": ("a", "b"),
        "supported": [1],
    }
    error = (
        kind(**{name: sample.get(name, f"some {name}") for name in names})
        if kind.__init__ is not Exception.__init__
        else kind("it is so")
    )
    plain = msgpack.unpackb(msgpack.packb(to_wire(error)))
    back = from_wire(plain)

    assert type(back) is kind
    assert str(back) == str(error) == plain["message"]
    assert to_wire(back) == plain
