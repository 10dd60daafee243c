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
