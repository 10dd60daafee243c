"""Answers for candidates that share a fork: any bytes give the outcomes of all of them, or none."""

from __future__ import annotations

import msgpack
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.call_results import ended_call

from evocell.execution.interface import TogetherJob
from evocell.execution.messages import GuestResult
from evocell.models.limits import Limits
from evocell.models.outcome import Completed, Raised
from evocell.workers.together import read_together
from evocell_guest.values import encode
from evocell_runtime.untrusted import GuestBytes

N_CALLS = 2
JOB = TogetherJob(
    codes=(None, None),  # what reads an answer only counts them
    entry="program:solve",
    payloads=(b"",) * N_CALLS,
    seeds=(0,) * N_CALLS,
    limits=Limits(fuel=10_000, payload_bytes=4096, payload_items=100, payload_depth=8),
)
ENDED = ended_call(fuel_used=10_000, ran_s=0.1, memory_bytes=50 << 20)
VALUE = encode({"t": "completed", "v": [1, 2]})
RAISED = encode({"t": "raised", "type": "E", "message": "m", "traceback": "t"})
GOOD = [[[VALUE, 100], [RAISED, 100]], [[VALUE, 200], [VALUE, 0]]]


def read(answer):
    data = answer if isinstance(answer, bytes) else msgpack.packb({"t": "completed", "v": answer})
    result = evolve(ENDED, response=GuestBytes(data), response_bytes=len(data))
    seen = GuestResult(result=result)
    return read_together(seen, JOB, 40 << 20)


def test_a_good_answer_is_read():
    found = read(GOOD)
    assert [[type(one) for one in outcomes] for outcomes in found] == [[Completed, Raised], [Completed] * 2]
    assert [[one.fuel_used for one in outcomes] for outcomes in found] == [[1000, 1000], [2000, 0]]


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 2**63), st.floats(), st.text(max_size=5), st.just(VALUE)
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    answer=st.one_of(
        values, st.binary(max_size=200), st.lists(st.lists(st.tuples(values, values), max_size=3))
    )
)
@example(answer=[[[VALUE, 100], [RAISED, 100]], [[VALUE, 901], [VALUE, 0]]])  # more fuel than was used
@example(answer=[[[VALUE, -100], [RAISED, 100]], [[VALUE, 1], [VALUE, 0]]])
@example(answer=[[[b"\xc1", 1], [RAISED, 1]], [[VALUE, 1], [VALUE, 0]]])
@example(answer=[[[VALUE, True], [RAISED, 1]], [[VALUE, 1], [VALUE, 0]]])
def test_any_bytes_give_all_outcomes_or_none(answer):
    found = read(answer)
    if found is not None:
        assert len(found) == len(JOB.codes)
        assert all(outcomes is None or len(outcomes) == N_CALLS for outcomes in found)
        given_fuel = sum(one.fuel_used for outcomes in found for one in outcomes or ())
        assert given_fuel <= ENDED.fuel_used
