import pytest

from evocell.errors import ProtocolError
from evocell.wire import decode_response
from evocell_guest.values import encode

CAPS = {"max_bytes": 64, "max_items": 10, "max_depth": 2}
REJECTED = {
    "t": "rejected",
    "kind": "syntax",
    "message": "m",
    "path": "p",
    "line": 1,
    "column": None,
    "text": None,
}


@pytest.mark.parametrize(
    "response",
    [
        {"t": "completed", "v": {"any": [1, 2]}},
        {"t": "raised", "type": "E", "message": "m" * 4096, "traceback": "t" * 16384},
        REJECTED,
        REJECTED | {"line": 2**31 - 1, "column": 0},
        {"t": "limit", "kind": "payload", "message": "m"},
        {"t": "completed", "v": None, "i": 2**63 - 1},
        {"t": "compiled", "code": b"c", "imports": ["os"]},
        {"t": "info", "python": "3.15.0", "packages": {"numpy": "2"}, "warm": ["numpy"]},
    ],
)
def test_responses_are_read_even_if_the_result_may_be_small(response):
    assert decode_response(encode(response), **CAPS) == response


@pytest.mark.parametrize(
    ("response", "words"),
    [
        ([1], "not a map"),
        ({}, "known kind"),
        ({"t": 3}, "known kind"),
        ({"t": ["completed"]}, "known kind"),
        ({"t": "won", "v": 1}, "known kind"),
        ({"t": "completed"}, "exactly the fields v"),
        ({"t": "completed", "v": 1, "fuel": 0}, "exactly the fields v"),
        (
            {"t": "raised", "type": 1, "message": "m", "traceback": ""},
            "'type' of a 'raised' one has the wrong type",
        ),
        ({"t": "limit", "kind": "fuel", "message": "m"}, "unknown kind"),
        (REJECTED | {"kind": "no"}, "unknown kind"),
        ({"t": "completed", "v": 1, "i": 2**63}, "time of its imports"),
        ({"t": "completed", "v": 1, "i": -1}, "time of its imports"),
        ({"t": "completed", "v": 1, "i": True}, "time of its imports"),
        (REJECTED | {"line": True}, "'line'"),
        (REJECTED | {"line": -1}, "'line'"),
        (REJECTED | {"line": 2**31}, "'line'"),
        (REJECTED | {"column": 2**70}, "'column'"),
        ({"t": "compiled", "code": "c", "imports": []}, "'code'"),
        ({"t": "compiled", "code": b"c", "imports": [1]}, "'imports'"),
        ({"t": "info", "python": "3", "packages": {"a": 1}, "warm": []}, "'packages'"),
    ],
)
def test_what_is_no_response_is_refused(response, words):
    with pytest.raises(ProtocolError, match=words):
        decode_response(encode(response), **CAPS)


def test_a_response_is_as_long_as_its_result_and_its_envelope_may_be():
    longest = CAPS["max_bytes"] + (64 << 10)
    value = b"x" * (longest - len(encode({"t": "completed", "v": b"x" * 66_000})) + 66_000)

    assert decode_response(encode({"t": "completed", "v": value[:-1]}), **CAPS)["v"] == value[:-1]
    with pytest.raises(ProtocolError, match=f"{longest + 1} bytes is over the limit of {longest}"):
        decode_response(encode({"t": "completed", "v": value + b"x"}), **CAPS)


def test_the_limits_of_the_result_hold():
    with pytest.raises(ProtocolError, match="more than 74 values"):
        decode_response(encode({"t": "completed", "v": [None] * 100}), **CAPS)
    with pytest.raises(ProtocolError, match="deeper than 3"):
        decode_response(encode({"t": "completed", "v": [[[]]]}), **CAPS)


LIMIT = {"t": "limit", "kind": "payload", "message": "m"}
RAISED = {"t": "raised", "type": "E", "message": "m", "traceback": "t"}


@pytest.mark.parametrize(
    ("response", "name", "most"),
    [
        (RAISED, "type", 200),
        (RAISED, "message", 4096),
        (RAISED, "traceback", 16384),
        (REJECTED, "message", 4096),
        (REJECTED, "path", 4096),
        (REJECTED, "text", 4096),
        (LIMIT, "message", 4096),
    ],
)
@pytest.mark.parametrize("letter", ["m", "é", "\U0001f600"])
def test_texts_are_held_to_the_caps_that_their_writer_has(response, name, most, letter):
    caps = {"max_bytes": 16 << 20, "max_items": 10, "max_depth": 2}
    longest = letter * (most // len(letter.encode()))
    assert decode_response(encode(response | {name: longest}), **caps)[name] == longest

    for text in (longest + letter, letter * 1_000_000):
        with pytest.raises(ProtocolError, match=f"{name} is longer than"):
            decode_response(encode(response | {name: text}), **caps)


@pytest.mark.parametrize(
    "response",
    [
        {"t": "compiled", "code": b"c", "imports": ["o"] * 10_001},
        {"t": "compiled", "code": b"c", "imports": ["o" * 5000]},
        {"t": "info", "python": "3" * 201, "packages": {}, "warm": []},
        {"t": "info", "python": "3", "packages": {"n" * 5000: "2"}, "warm": []},
    ],
)
def test_names_are_few_and_short(response):
    with pytest.raises(ProtocolError):
        decode_response(encode(response), max_bytes=16 << 20, max_items=100_000, max_depth=2)
