"""Calls of several candidates in one fork: the request to the agent, and the checks of its answer.

The candidates share an interpreter with each other and with the agent, so any of them may falsify the answer
about the others. The host itself observes only the request as a whole: its end, its total fuel, its memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from evocell.code.compiler import FUEL_PER_NS
from evocell.errors import ProtocolError
from evocell.execution.interface import TogetherJob
from evocell.execution.messages import GuestResult
from evocell.models.outcome import Completed, Outcome, Raised
from evocell.wire.values import ENVELOPE_BYTES, decode_response
from evocell.workers.outcomes import answered, readings
from evocell.workers.requests import in_pieces
from evocell_runtime.calls import CallResult

__all__ = ["read_together", "together_request"]

_PAIR = 2
_DEPTH = 4


def together_request(job: TogetherJob) -> tuple[bytes, ...]:
    """Return the request as pieces; their concatenation is the encoded request."""
    limits = job.limits
    plain: dict[str, object] = {
        "op": "together",
        "entry": job.entry,
        "codes": [code.code for code in job.codes],
        "harness": None if job.harness is None else job.harness.code,
        "calls": list(zip(job.seeds, job.payloads, strict=True)),
        "payload_bytes": limits.payload_bytes,
        "payload_items": limits.payload_items,
        "payload_depth": limits.payload_depth,
    }
    return in_pieces(plain)


def read_together(
    seen: GuestResult, job: TogetherJob, image_bytes: int
) -> list[Sequence[Outcome] | None] | None:
    """Decode and check the answer, which is untrusted.

    Args:
        seen: The result of the request.
        job: The job.
        image_bytes: Size of the image's memory, which is not counted as the candidates'.

    Returns:
        For each candidate the outcomes of its calls, or None if one of them did not return or raise: then the
        other candidates or the shared limits may be the cause. None for all if the request failed, or its
        answer is invalid.
    """
    result = seen.result
    if result is None or seen.answer is None or result.status:
        return None
    try:
        return _read(result, job, image_bytes)
    except ProtocolError:
        return None


def _read(result: CallResult, job: TogetherJob, image_bytes: int) -> list[Sequence[Outcome] | None]:
    assert result.response is not None
    n_calls = len(job.payloads)
    answer = decode_response(
        result.response,
        max_bytes=job.limits.payload_bytes + ENVELOPE_BYTES,
        max_items=len(job.codes) * (1 + (1 + _PAIR) * n_calls) + 1,
        max_depth=_DEPTH,
    )
    variants = answer.get("v")
    if not isinstance(variants, list) or len(variants) != len(job.codes):
        raise ProtocolError("the guest's answer holds other variants than were run")
    pairs = [_pairs(variant, n_calls) for variant in variants]
    if FUEL_PER_NS * sum(clock_ns for variant in pairs for _, clock_ns in variant) > result.fuel_used:
        raise ProtocolError("the guest's answer speaks of more fuel than was used")
    common = readings(result, image_bytes, deterministic=False)
    common |= {"stdout": "", "stderr": "", "wall_s": result.ran_s / (len(pairs) * n_calls)}
    found: list[Sequence[Outcome] | None] = []
    for variant in pairs:
        outcomes = [
            answered(
                decode_response(data, **job.limits.payload_bounds),
                job.limits,
                {**common, "fuel_used": FUEL_PER_NS * clock_ns},
            )
            for data, clock_ns in variant
        ]
        sure = all(isinstance(outcome, Completed | Raised) for outcome in outcomes)
        found.append(outcomes if sure else None)
    return found


def _pairs(variant: object, n_calls: int) -> list[tuple[bytes, int]]:
    """Return the encoded answer of each call of a candidate, with its duration in virtual nanoseconds."""
    if not isinstance(variant, list) or len(variant) != n_calls:
        raise ProtocolError("the guest's answer holds other calls than were made")
    for pair in variant:
        if not isinstance(pair, list) or len(pair) != _PAIR or not isinstance(pair[0], bytes):
            raise ProtocolError("the guest's answer holds something else where a call's answer should be")
        if type(pair[1]) is not int or pair[1] < 0:
            raise ProtocolError("the guest's answer holds something else where a call's time should be")
    return [(data, clock_ns) for data, clock_ns in variant]
