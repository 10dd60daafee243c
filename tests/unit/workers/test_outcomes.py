import pytest
from attrs import evolve
from tests.call_results import ended_call

from evocell.models.limits import Limits
from evocell.models.outcome import Completed, GuestCrashed, LimitExceeded, Raised, Rejected
from evocell.wire.values import ENVELOPE_BYTES
from evocell.workers.outcomes import classify
from evocell_guest.values import encode
from evocell_runtime.membrane import StopReason
from evocell_runtime.untrusted import GuestBytes

MB = 1 << 20
IMAGE = 40 * MB
LIMITS = Limits(
    fuel=1000, memory_bytes=100 * MB, timeout_s=2.0, output_bytes=50, payload_bytes=4096, scratch_bytes=77
)
RETURNED = ended_call(
    stdout=GuestBytes(b"out"),
    stderr=GuestBytes(b"err"),
    fuel_used=900,
    ran_s=1.5,
    memory_bytes=50 * MB,
)


def returned(answer):
    data = answer if isinstance(answer, bytes) else encode(answer)
    return evolve(RETURNED, response=GuestBytes(data), response_bytes=len(data))


def stopped(**changes):
    return evolve(RETURNED, returned=False, status=1, **changes)


def outcome(result, *, timed_out=False, deterministic=True, limits=LIMITS):
    return classify(result, limits, IMAGE, timed_out=timed_out, deterministic=deterministic)


def test_a_value_is_completed():
    assert outcome(returned({"t": "completed", "v": [1, (2,)]})) == Completed(
        value=[1, (2,)], fuel_used=900, peak_memory_bytes=10 * MB, stdout="out", stderr="err"
    )


def test_an_exception_is_raised():
    found = outcome(
        returned({"t": "raised", "type": "KeyError", "message": "'x'", "traceback": "Traceback ..."})
    )

    assert isinstance(found, Raised)
    assert (found.type_name, found.message, found.traceback) == ("KeyError", "'x'", "Traceback ...")


def test_a_missing_entry_is_rejected():
    answer = {
        "t": "rejected",
        "kind": "load",
        "message": "no f",
        "path": None,
        "line": None,
        "column": None,
        "text": None,
    }
    found = outcome(returned(answer))

    assert isinstance(found, Rejected)
    assert (found.kind, found.message) == ("load", "no f")


def test_limits_the_guest_tells_of():
    payload = outcome(returned({"t": "limit", "kind": "payload", "message": "result[0] is too deep"}))
    memory = outcome(returned({"t": "limit", "kind": "memory", "message": "no memory"}))

    assert isinstance(payload, LimitExceeded)
    assert (payload.kind, payload.limit, payload.message) == ("payload", 4096, "result[0] is too deep")
    assert isinstance(memory, LimitExceeded)
    assert (memory.kind, memory.limit, memory.reached) == ("memory", 100 * MB, 10 * MB)


@pytest.mark.parametrize("kind", ["fuel", "timeout", "stack", "output", "files", "anything"])
def test_limits_that_only_the_host_can_see_are_not_believed(kind):
    assert isinstance(outcome(returned({"t": "limit", "kind": kind, "message": ""})), GuestCrashed)


@pytest.mark.parametrize(
    ("changes", "kind", "limit", "reached"),
    [
        ({"trap": "OUT_OF_FUEL", "fuel_used": 1000}, "fuel", 1000, 1000),
        ({"trap": "STACK_OVERFLOW"}, "stack", None, None),
        ({"trap": "UNREACHABLE", "stop_reason": StopReason.OUTPUT}, "output", 50, 6),
        ({"trap": "UNREACHABLE", "stop_reason": StopReason.FILES}, "files", 77, 77),
        ({"trap": "UNREACHABLE", "stop_reason": StopReason.ENTRIES}, "files", 1000, None),
        ({"trap": "UNREACHABLE", "memory_bytes": IMAGE + 90 * MB}, "memory", 100 * MB, 90 * MB),
        ({"trap": "MEMORY_OUT_OF_BOUNDS", "memory_bytes": IMAGE + 100 * MB}, "memory", 100 * MB, 100 * MB),
    ],
)
def test_a_stop_by_the_host_is_its_limit(changes, kind, limit, reached):
    found = outcome(stopped(**changes))

    assert isinstance(found, LimitExceeded), found
    assert (found.kind, found.limit, found.reached, found.deterministic) == (kind, limit, reached, True)
    assert found.error


def test_out_of_fuel_with_memory_near_its_limit_is_fuel():
    assert outcome(stopped(trap="OUT_OF_FUEL", memory_bytes=IMAGE + 100 * MB)).kind == "fuel"


@pytest.mark.parametrize(
    ("changes", "reason", "code"),
    [
        ({"trap": "UNREACHABLE", "stop_reason": StopReason.EXIT, "exit_code": 3}, "it exited with code 3", 3),
        ({"trap": "UNREACHABLE"}, "it reached code that aborts", None),
        ({"trap": "UNREACHABLE", "memory_bytes": IMAGE + 89 * MB}, "it reached code that aborts", None),
        ({"trap": "MEMORY_OUT_OF_BOUNDS"}, "it accessed memory outside its own", None),
        ({"trap": "SOMETHING_NEW"}, "it trapped (SOMETHING_NEW)", None),
        ({"trap": None}, "it trapped (unknown)", None),
    ],
)
def test_any_other_stop_is_a_crash(changes, reason, code):
    found = outcome(stopped(**changes))

    assert isinstance(found, GuestCrashed), found
    assert (found.reason, found.exit_code) == (reason, code)


def test_a_kill_at_the_deadline_goes_before_all_and_is_not_deterministic():
    for result in (stopped(), stopped(trap="OUT_OF_FUEL"), returned({"t": "completed", "v": 1})):
        found = outcome(result, timed_out=True)
        assert isinstance(found, LimitExceeded)
        assert (found.kind, found.limit, found.reached, found.deterministic) == ("timeout", 2.0, 1.5, False)


def test_a_response_over_the_limit_is_a_payload_even_if_it_was_not_read():
    found = outcome(evolve(RETURNED, response_bytes=1 << 30))

    assert isinstance(found, LimitExceeded)
    assert (found.kind, found.limit, found.reached) == ("payload", 4096, 1 << 30)


def test_a_response_may_be_longer_than_the_result_by_its_envelope_and_no_more():
    longest = 4096 + ENVELOPE_BYTES
    value = "x" * (longest - len(encode({"t": "completed", "v": "x" * 66_000})) + 66_000)
    whole = returned({"t": "completed", "v": value})
    assert whole.response_bytes == longest

    assert outcome(whole).unwrap() == value
    assert outcome(evolve(RETURNED, response_bytes=longest)).kind == "crashed"
    assert outcome(evolve(RETURNED, response_bytes=longest + 1)).kind == "payload"


@pytest.mark.parametrize(
    "result",
    [
        RETURNED,
        evolve(RETURNED, response_bytes=5),
        evolve(returned({"t": "completed", "v": 1}), status=1),
    ],
)
def test_no_answer_is_a_crash(result):
    assert outcome(result) == GuestCrashed(
        reason="it returned without an answer",
        fuel_used=900, peak_memory_bytes=10 * MB, stdout="out", stderr="err",
    )  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        b"\xc1",
        b"\x81",
        [1],
        {},
        {"t": "completed"},
        {"t": "completed", "v": 1, "extra": 2},
        {"t": ["completed"], "v": 1},
        {"t": "raised", "type": 1, "message": "", "traceback": ""},
        {"t": "rejected", "kind": "other", "message": ""},
        {"t": "info", "python": "", "packages": {}, "warm": []},
        {"t": "compiled", "code": b"", "imports": []},
    ],
)
def test_an_answer_that_makes_no_sense_is_a_crash_not_an_error(answer):
    found = outcome(returned(answer))

    assert isinstance(found, GuestCrashed)
    assert found.reason.startswith(("its answer cannot be read", "its answer is to another question"))


def test_memory_is_what_the_call_took_above_the_image():
    assert outcome(stopped(trap="OUT_OF_FUEL", memory_bytes=IMAGE)).peak_memory_bytes == 0
    assert outcome(stopped(trap="OUT_OF_FUEL", memory_bytes=IMAGE - MB)).peak_memory_bytes == 0


def test_output_that_is_not_text_is_shown_as_well_as_it_goes():
    found = outcome(
        evolve(
            returned({"t": "completed", "v": 1}),
            stdout=GuestBytes(b"a\xff"),
            stderr=GuestBytes("é".encode()[:1]),
        )
    )

    assert (found.stdout, found.stderr) == ("a\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}")


def test_the_realtime_profile_promises_nothing():
    assert not outcome(returned({"t": "completed", "v": 1}), deterministic=False).deterministic
