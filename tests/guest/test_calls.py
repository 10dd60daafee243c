import io
import math
import sys

import numpy as np
import pytest


def test_a_call_gives_the_value(guest):
    answer = guest.run("def f(x, *, y=1): return {'sum': x + y}", "program:f", 2, kwargs={"y": 5})

    assert answer == {"t": "completed", "v": {"sum": 7}}


def test_a_method_of_a_class_is_an_entry(guest):
    answer = guest.run("class A:\n  @staticmethod\n  def f(x): return x * 2", "program:A.f", 4)

    assert answer["v"] == 8


def test_values_keep_their_types(guest):
    value = (1, 2.5, {"a": {3, 4}}, frozenset({"x"}), b"raw", 2**100, 1 + 2j, [True, None])

    assert guest.run("def f(x): return x", "program:f", value)["v"] == value


def test_arrays_come_and_go_and_may_be_written(guest):
    answer = guest.run("def f(x):\n  x[0] = 9\n  return x * 2", "program:f", np.arange(3.0))

    assert answer["v"].tolist() == [18.0, 2.0, 4.0]


def test_state_stays_between_calls(guest):
    source = "n = 0\ndef f():\n  global n\n  n += 1\n  return n"

    assert guest.run(source)["v"] == 1
    assert guest.call("program:f")["v"] == 2


def test_an_exception_is_an_answer(guest):
    answer = guest.run("def f(): raise ValueError('no good')")

    assert (answer["t"], answer["type"], answer["message"]) == ("raised", "ValueError", "no good")


def test_an_exception_at_import_is_an_answer_and_the_module_is_not_kept(guest):
    answer = guest.run("1 / 0\ndef f(): pass")

    assert (answer["t"], answer["type"]) == ("raised", "ZeroDivisionError")
    assert "line 1, in <module>" in answer["traceback"]
    assert guest.call("program:f")["type"] == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("statement", "name", "message"),
    [
        ("import sys; sys.exit(3)", "SystemExit", "3"),
        ("raise KeyboardInterrupt('stop')", "KeyboardInterrupt", "stop"),
        ("raise BaseException('bare')", "BaseException", "bare"),
        ("raise GeneratorExit", "GeneratorExit", ""),
        (
            "raise ExceptionGroup('many', [ValueError('a'), TypeError('b')])",
            "ExceptionGroup",
            "many (2 sub-exceptions)",
        ),
    ],
)
def test_every_base_exception_is_an_answer(guest, statement, name, message):
    answer = guest.run(f"def f():\n  {statement}")

    assert (answer["t"], answer["type"], answer["message"]) == ("raised", name, message)


def test_endless_recursion_is_an_answer(guest):
    answer = guest.run("def f(): return f()")

    assert (answer["t"], answer["type"]) == ("raised", "RecursionError")
    assert "Previous line repeated" in answer["traceback"]


def test_a_memory_error_is_a_limit(guest):
    answer = guest.run("def f(): raise MemoryError")

    assert (answer["t"], answer["kind"]) == ("limit", "memory")


def test_a_lowered_recursion_limit_does_not_hold_for_the_agent(guest):
    answer = guest.run("import sys\ndef f():\n  sys.setrecursionlimit(60)\n  return [[[[[[[[[[1]]]]]]]]]]")

    assert answer["t"] == "completed"
    assert sys.getrecursionlimit() == 1000


@pytest.mark.parametrize(
    ("expression", "path"),
    [
        ("(i for i in [])", "result is a generator"),
        ("{'a': [1, 2, 3, object()]}", "result['a'][3] is an object"),
        ("[(1, {2: lambda: 0})]", "result[0][1][2] is a function"),
        ("{'k': {frozenset(): 1}}", "result['k'].<a key> is a frozenset"),
        ("'\\ud800'", "result is a str with a lone surrogate"),
        ("1 << (9 * 65536)", "result is an int of"),
    ],
)
def test_what_cannot_be_encoded_is_named_by_its_path(guest, expression, path):
    answer = guest.run(f"def f(): return {expression}")

    assert (answer["t"], answer["type"], answer["traceback"]) == ("raised", "UnencodableResult", "")
    assert answer["message"].startswith(path)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("x = []\n  x.append(x)\n  return x", "nested deeper than 64 levels"),
        ("return {'a': ['x'] * 20000}", "result['a'] takes the whole beyond 10000 items"),
        ("return {'a': [b'x' * 600000] * 2}", "result['a'][1] takes the whole beyond 1048576 bytes"),
        ("return {(i, i): 0 for i in range(4400)}", "dict keys"),
        ("return 'é' * 600000", "result takes the whole beyond 1048576 bytes"),
    ],
)
def test_a_result_over_a_limit_is_named_by_its_path(guest, body, words):
    items = 100_000 if "dict" in words else 10_000
    answer = guest.run(f"def f():\n  {body}", payload_items=items)

    assert (answer["t"], answer["kind"]) == ("limit", "payload")
    assert words in answer["message"]


def test_an_unknown_function_is_rejected_with_those_that_exist(guest):
    answer = guest.run("from math import sqrt\ndef solve(): pass\nclass Tool: pass\nx = 3", "program:slove")

    assert (answer["t"], answer["kind"]) == ("rejected", "load")
    assert answer["message"].endswith("it defines Tool, solve")


def test_an_unknown_module_is_rejected_with_those_that_exist(guest):
    answer = guest.run({"program.py": "", "pkg/core.py": ""}, "progam:f")

    assert (answer["t"], answer["kind"]) == ("rejected", "load")
    assert "it has pkg, pkg.core, program" in answer["message"]


def test_something_that_cannot_be_called_is_rejected(guest):
    assert guest.run("f = 3")["kind"] == "load"


def test_a_missing_package_is_the_variants_own_exception(guest):
    answer = guest.run("import no_such_package\ndef f(): pass")

    assert (answer["t"], answer["type"]) == ("raised", "ModuleNotFoundError")


def test_an_unknown_operation_is_rejected(guest):
    assert guest.ask({"op": "dance"})["t"] == "rejected"


def test_output_is_flushed_before_the_response(guest, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))

    guest.run("def f(): print('no newline', end='')")

    assert raw.getvalue() == b"no newline"


def test_a_stream_that_fails_to_flush_changes_nothing(guest, monkeypatch):
    class Broken(io.StringIO):
        def flush(self):
            raise SystemExit

    monkeypatch.setattr(sys, "stdout", Broken())

    assert guest.run("def f(): return 1")["t"] == "completed"


def test_the_same_seed_gives_the_same_numbers(guest):
    source = "import random, numpy\ndef f(): return [random.random(), float(numpy.random.rand())]"

    first = guest.run(source, seed=7)["v"]

    assert guest.call("program:f", seed=7)["v"] == first
    assert guest.call("program:f", seed=8)["v"] != first
    assert guest.call("program:f", seed=2**70)["t"] == "completed"


def test_numbers_drawn_at_import_follow_the_seed(guest):
    source = "import random\nx = random.random()\ndef f(): return x"

    assert guest.run(source, seed=1)["v"] == guest.run(source, seed=1)["v"]
    assert guest.run(source, seed=1)["v"] != guest.run(source, seed=2)["v"]


def test_numpy_scalars_and_nans_leave_as_plain_numbers(guest):
    answer = guest.run(
        "import numpy as np\ndef f(): return [np.int64(3), np.float32(0.5), np.bool_(True), -np.nan]"
    )

    assert answer["v"][:3] == [3, 0.5, True]
    assert [type(x) for x in answer["v"]] == [int, float, bool, float]
    assert math.copysign(1, answer["v"][3]) == 1


def test_info_says_what_is_there(guest):
    answer = guest.ask({"op": "info"})

    assert answer["packages"]["numpy"] == np.__version__
    assert answer["python"].count(".") == 2
