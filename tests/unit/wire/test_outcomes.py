import math

import numpy as np
import pytest

from evocell.errors import ProtocolError
from evocell.models.outcome import Completed, GuestCrashed, LimitExceeded, Raised, Rejected, WorkerLost
from evocell.wire.outcomes import decode_outcome, encode_outcome, outcome_digest
from evocell_guest.values import encode

OUTCOMES = [
    Completed(
        value={"a": (1, {2.5, None}), "b": [1 << 80, b"x", True]}, fuel_used=1 << 40, wall_s=0.5, stdout="é"
    ),
    Completed(value=np.arange(12.0).reshape(3, 4)),
    Raised("ValueError", "no", "Traceback", fuel_used=3, deterministic=False),
    Rejected("syntax", "bad", path="a.py", line=3, column=1, text="x"),
    Rejected("security", "no"),
    LimitExceeded("timeout", limit=0.25, reached=0.26, message="m"),
    LimitExceeded("stack"),
    GuestCrashed("it exited with code 3", exit_code=3),
    WorkerLost("gone"),
]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_comes_back_as_it_was(outcome):
    back = decode_outcome(encode_outcome(outcome))

    assert type(back) is type(outcome)
    assert back == outcome
    assert back.wall_s == outcome.wall_s
    assert outcome_digest(back) == outcome_digest(outcome)


def test_a_digest_leaves_wall_time_out_and_nothing_else():
    base = Completed(value=[1], fuel_used=5, wall_s=1.0, peak_memory_bytes=7, stdout="a", stderr="b")
    others = [
        Completed(value=[1.0], fuel_used=5, peak_memory_bytes=7, stdout="a", stderr="b"),
        Completed(value=[1], fuel_used=6, peak_memory_bytes=7, stdout="a", stderr="b"),
        Completed(value=[1], fuel_used=5, peak_memory_bytes=8, stdout="a", stderr="b"),
        Completed(value=[1], fuel_used=5, peak_memory_bytes=7, stdout="", stderr="b"),
        Completed(value=[1], fuel_used=5, peak_memory_bytes=7, stdout="a", stderr=""),
        Raised("E", fuel_used=5, peak_memory_bytes=7, stdout="a", stderr="b"),
    ]

    assert len({outcome_digest(one) for one in [base, *others]}) == 7
    same = Completed(value=[1], fuel_used=5, wall_s=9.0, peak_memory_bytes=7, stdout="a", stderr="b")
    assert outcome_digest(same) == outcome_digest(base)
    assert outcome_digest(Completed(value=math.nan)) == outcome_digest(Completed(value=-math.nan))


def test_a_value_as_deep_as_any_may_be_has_a_digest_of_its_own():
    """It cannot be kept, and no text can be made of it."""

    def nested(value):
        for _ in range(128):
            value = [value]
        return Completed(value=value, fuel_used=3)

    outcomes = [
        nested(10**5000),
        nested(10**5000 + 1),
        nested(np.arange(2000.0)),
        nested(np.arange(2000.0) % 1999),
    ]

    assert [encode_outcome(one) for one in outcomes] == [None] * 4
    assert len({outcome_digest(one) for one in outcomes}) == 4
    assert outcome_digest(nested(10**5000)) == outcome_digest(outcomes[0])


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        {},
        {"": "Outcome"},
        {"": "Completed"},
        {"": "__import__"},
        {"": []},
        {
            "": "WorkerLost",
            "reason": 3,
            "fuel_used": 0,
            "wall_s": 0.0,
            "peak_memory_bytes": 0,
            "stdout": "",
            "stderr": "",
            "deterministic": True,
        },
    ],
)
def test_what_is_no_outcome_is_refused(plain):
    with pytest.raises(ProtocolError):
        decode_outcome(encode(plain))


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", encode_outcome(OUTCOMES[0])[:-1], encode_outcome(OUTCOMES[0]) + b"x"]
)
def test_damaged_bytes_are_refused(data):
    with pytest.raises(ProtocolError):
        decode_outcome(data)


@pytest.mark.parametrize(
    "outcome",
    [
        Raised("E" * 2000),
        Raised("E", message="m" * 100_000),
        Raised("E", traceback="t" * 100_000),
        Rejected("syntax", "m" * 100_000),
        Rejected("syntax", "m", path="p" * 100_000),
        Rejected("won", "m"),
        LimitExceeded("patience"),
        GuestCrashed("r" * 100_000),
        WorkerLost("r" * 100_000),
        Completed(value=1, stdout="o" * (4 << 20)),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
def test_texts_longer_than_any_outcome_has_are_refused(outcome):
    with pytest.raises(ProtocolError, match=r"longer than|no known kind"):
        decode_outcome(encode_outcome(outcome))
