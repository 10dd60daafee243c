"""What a worker process takes from a compiler's answer, and when it begins the call behind it."""

import pytest

from evocell.execution.follow_ups import CompiledFile
from evocell.execution.messages import GuestResult
from evocell.guests.follow_ups import MAX_ANSWER_BYTES, MOST_KEPT, FollowUps, compiled_file
from evocell_guest.values import encode
from evocell_runtime.calls import CallResult
from evocell_runtime.membrane import StopReason
from evocell_runtime.untrusted import GuestBytes
from evocell_runtime.warm import HEAVY_PACKAGES

PATH = "program.py"
CODE = b"\x00code\xff"


def answered(plain):
    return GuestBytes(encode(plain))


def unit(path=PATH, code=CODE, imports=(), marks=(), findings=(), **more):
    one = [path, code, list(imports), list(marks), list(findings)]
    return {"t": "compiled", "units": [one]} | more


@pytest.mark.parametrize(
    "plain",
    [[PATH, CODE], unit(), unit(imports=["math", "re"]), unit(more=1)],
    ids=["short", "whole", "light imports", "another key"],
)
def test_the_compiled_file_the_one_file(plain):
    assert compiled_file(answered(plain), PATH) == CompiledFile(CODE)


@pytest.mark.parametrize("code", [b"", bytes(200_000)])
def test_compiled_file_any_length_below_the_bound(code):
    assert compiled_file(answered([PATH, code]), PATH) == CompiledFile(code)
    assert compiled_file(answered(unit(code=code)), PATH) == CompiledFile(code)


def test_the_marks_of_its_names():
    marks = [["a", 1], ["b", -(2**63)], ["a", 2]]
    found = compiled_file(answered(unit(marks=marks)), PATH)
    assert found == CompiledFile(CODE, (("a", 1), ("b", -(2**63)), ("a", 2)))


@pytest.mark.parametrize(
    "plain",
    [
        ["other.py", CODE],
        unit(path="other.py"),
        [PATH, CODE, "second.py", CODE],
        {"t": "compiled", "units": [*unit()["units"], *unit(path="second.py")["units"]]},
        {"t": "compiled", "units": []},
        {"t": "compiled", "units": [[PATH, CODE, [], []]]},
        {"t": "compiled", "units": [[PATH, CODE, [], [], [], []]]},
        unit(marks=[["name", "1"]]),
        unit(marks=[["name", True]]),
        unit(marks=[["name", 1, 2]]),
        unit(marks=[[1, 1]]),
        unit(marks=["name", 1]),
        unit(findings=["it reaches os.system"]),
        unit(t="rejected"),
        {"t": "rejected", "kind": "syntax", "message": "invalid syntax"},
        {"units": unit()["units"]},
        [PATH, "text"],
        [PATH, None],
        [PATH.encode(), CODE],
        unit(code="text"),
        {"t": "compiled", "units": [[PATH, CODE, None, [], []]]},
        {"t": "compiled", "units": [[PATH, CODE, {}, [], []]]},
        {"t": "compiled", "units": [[PATH, CODE, [], {}, []]]},
        {"t": "compiled", "units": {0: [PATH, CODE, [], [], []]}},
        None,
        0,
        CODE,
        [],
        {},
    ],
)
def test_anything_else_is_left_to_the_engine(plain):
    assert compiled_file(answered(plain), PATH) is None


@pytest.mark.parametrize("package", sorted(HEAVY_PACKAGES))
def test_what_may_need_another_image_is_left_to_the_engine(package):
    assert compiled_file(answered(unit(imports=["math", package])), PATH) is None


def test_imports_that_are_no_names_do_no_harm():
    odd = [["numpy"], {"numpy": 1}, b"numpy", None, {1, 2}]
    assert compiled_file(answered(unit(imports=odd)), PATH) == CompiledFile(CODE)
    assert compiled_file(answered(unit(imports=[*odd, min(HEAVY_PACKAGES)])), PATH) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"junk",
        b"\xff" * 100,
        b"\x93",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        bytes(9),
    ],
)
def test_bytes_that_are_no_answer(data):
    assert compiled_file(GuestBytes(data), PATH) is None


def test_no_answer():
    assert compiled_file(None, PATH) is None


def test_half_an_answer_and_one_with_more_behind_it():
    whole = encode(unit())
    for end in range(len(whole)):
        assert compiled_file(GuestBytes(whole[:end]), PATH) is None
    assert compiled_file(GuestBytes(whole + b"\x00"), PATH) is None


def test_an_answer_beyond_the_caps():
    at_most = MAX_ANSWER_BYTES - len(encode([PATH, bytes(1 << 16)])) + (1 << 16)
    assert compiled_file(answered([PATH, bytes(at_most)]), PATH) == CompiledFile(bytes(at_most))
    assert compiled_file(answered([PATH, bytes(at_most + 1)]), PATH) is None
    assert compiled_file(answered(unit(imports=["m"] * 20_000)), PATH) is None
    deep: object = []
    for _ in range(10):
        deep = [deep]
    assert compiled_file(answered(unit(more=deep)), PATH) is None


def seen(response):
    return GuestResult(
        result=CallResult(
            returned=True,
            status=0,
            trap=None,
            message=None,
            stop_reason=StopReason.NONE,
            exit_code=0,
            response=response,
            response_bytes=0 if response is None else len(response),
            stdout=GuestBytes(b""),
            stderr=GuestBytes(b""),
            fuel_used=1,
            ran_s=0.001,
            memory_bytes=1,
        )
    )


class Told(list):
    """The answers that a call was begun with."""

    def __call__(self, answer):
        self.append(answer)


@pytest.fixture
def waiting():
    return FollowUps()


ANSWER = answered([PATH, CODE])


def test_a_call_that_comes_first_waits(waiting):
    told = Told()
    waiting.lead(1)
    waiting.follow(1, told)
    assert told == []
    waiting.ended(1, seen(ANSWER))
    waiting.ended(1, seen(ANSWER))
    assert (told, len(waiting)) == ([ANSWER], 0)


def test_a_compilation_that_ends_first_waits(waiting):
    told = Told()
    waiting.lead(1)
    waiting.ended(1, seen(ANSWER))
    waiting.follow(1, told)
    assert (told, len(waiting)) == ([ANSWER], 0)
    waiting.follow(1, told)
    assert told == [ANSWER, None]  # a compilation has one call


@pytest.mark.parametrize(
    "end",
    [None, GuestResult(undelivered="memory"), seen(None), GuestResult(unforked="no room")],
    ids=["cancelled", "undelivered", "without an answer", "unforked"],
)
@pytest.mark.parametrize("call_first", [True, False])
def test_a_compilation_without_an_answer(waiting, end, call_first):
    told = Told()
    waiting.lead(1)
    if call_first:
        waiting.follow(1, told)
    waiting.ended(1, end)
    if not call_first:
        waiting.follow(1, told)
    assert (told, len(waiting)) == ([None], 0)


def test_a_compilation_that_nobody_knows(waiting):
    told = Told()
    waiting.follow(7, told)
    assert told == [None]
    waiting.ended(7, seen(ANSWER))
    assert (told, len(waiting)) == ([None], 0)


def test_each_call_has_its_own_compilation(waiting):
    calls = [Told() for _ in range(5)]
    for name in range(5):
        waiting.lead(name)
    for name in (3, 0, 4):
        waiting.follow(name, calls[name])
    for name in (4, 2, 0, 1, 3):
        waiting.ended(name, seen(answered([str(name), CODE])))
    for name in (1, 2):
        waiting.follow(name, calls[name])
    assert calls == [[answered([str(name), CODE])] for name in range(5)]


def test_a_call_pushed_out_is_told(waiting):
    told = Told()
    waiting.lead(0)
    waiting.follow(0, told)
    for name in range(1, MOST_KEPT):
        waiting.lead(name)
    assert told == []
    waiting.lead(MOST_KEPT)
    assert (told, len(waiting)) == ([None], MOST_KEPT)
    waiting.ended(0, seen(ANSWER))
    assert told == [None]
    late = Told()
    waiting.ended(1, seen(ANSWER))
    waiting.lead(MOST_KEPT + 1)
    waiting.follow(1, late)
    assert late == [None]


def test_a_call_that_leaves_is_not_begun(waiting):
    told = Told()
    waiting.lead(1)
    waiting.follow(1, told)
    waiting.leave(1)
    waiting.leave(1)
    waiting.ended(1, seen(ANSWER))
    assert (told, len(waiting)) == ([], 0)


def test_an_answer_that_is_too_long_is_not_kept(waiting):
    long = answered([PATH, bytes(MAX_ANSWER_BYTES)])
    told = Told()
    waiting.lead(1)
    waiting.ended(1, seen(long))
    assert all(one.answer is None for one in waiting._leading.values())
    waiting.follow(1, told)
    assert told == [None]


def test_a_call_is_expected_only_behind_a_compilation_of_just_now():
    now = [5.0]
    follow_ups = FollowUps(clock=lambda: now[0])
    assert not follow_ups.expected
    follow_ups.lead(1)
    assert follow_ups.expected
    now[0] += 1
    assert not follow_ups.expected
    follow_ups.ended(1, None)
    assert follow_ups.expected
    follow_ups.follow(1, lambda _: None)
    assert not follow_ups.expected
