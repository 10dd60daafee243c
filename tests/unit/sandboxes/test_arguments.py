"""Arguments that cannot travel: the message has the path, and what to do."""

import pytest

import evocell
from evocell.errors import ConfigurationError
from evocell.models import Limits
from evocell.sandboxes.calls import encode_arguments

SMALL = Limits(payload_bytes=100, payload_items=10, payload_depth=6)


@pytest.mark.parametrize(
    ("args", "kwargs", "sentence"),
    [
        (3, {}, "args must be a tuple or list of arguments, not int; write args=(value,) for one argument"),
        (
            "ab",
            {},
            "args must be a tuple or list of arguments, not str; write args=(value,) for one argument",
        ),
        ({"n": 3}, {}, "args must be a tuple or list of arguments, not dict; write args=(value,)"),
        ((), {3: 4}, "kwargs must be a mapping with names as keys, not {3: 4}"),
        ((), [3], "kwargs must be a mapping with names as keys, not [3]"),
        (
            (print,),
            {},
            "args[0] is a builtin_function_or_method, which cannot leave or enter the sandbox; give ",
        ),
        (({"a": [object()]},), {}, "args[0]['a'][0] is an object, which cannot"),
        (
            (b"x" * 200,),
            {},
            "args[0] takes the arguments beyond 100 bytes; raise payload_bytes in the Limits, or",
        ),
        (
            (),
            {"n": [0] * 20},
            "kwargs['n'] takes the arguments beyond 10 items; raise payload_items in the Limits",
        ),
        (
            ([[[[[[[]]]]]]],),
            {},
            "nested deeper than 6 levels; flatten it",
        ),
    ],
)
def test_what_is_wrong_and_how_to_mend_it(args, kwargs, sentence):
    with pytest.raises(ConfigurationError) as caught:
        encode_arguments(args, kwargs, SMALL, "cases[2]")
    assert str(caught.value).startswith("cases[2]: ")
    assert sentence in str(caught.value)


def test_a_call_is_refused_in_the_same_words():
    with pytest.raises(ConfigurationError, match=r"^args must be a tuple"):
        encode_arguments(3, {}, SMALL, "")


async def score(case, value):
    return 1.0


@pytest.mark.parametrize("role", ["aggregate", "stop"])
def test_a_function_of_an_evaluation_is_not_async(role, fake_workers):
    task = evocell.Evaluation("f", [evocell.Case(expected=1)], **{role: score})
    with (
        evocell.Engine(open_worker=fake_workers) as engine,
        pytest.raises(ConfigurationError, match=f"{role} must not be async"),
    ):
        engine.evaluate(["def f(): return 1"], task)
