"""One call into one sandbox: encode what goes in, keep or throw away the fork, note what became of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import trio
from attrs import field, frozen

from evocell.errors import ConfigurationError
from evocell.execution.worker import CallJob, Worker
from evocell.models.limits import Limits
from evocell.models.outcome import LimitExceeded, Outcome, Rejected, WorkerLost
from evocell.orchestration.records import SandboxRecord
from evocell_guest.values import EncodeError, TooLarge, encode

__all__ = [
    "CallRequest",
    "RunIsolation",
    "check_deadline",
    "deadline_outcome",
    "encode_arguments",
    "run_in_sandbox",
]

RunIsolation = Literal["session", "call"]

_ROOT = "call"

KILLING = frozenset({"fuel", "timeout", "memory", "stack", "output", "crashed", "worker_lost"})
"""Kinds of outcome after which a session is replaced by a fresh fork."""


@frozen(kw_only=True)
class CallRequest:
    """A call that is ready to go to the worker.

    Attributes:
        entry: ``"module:qualname"``.
        payload: The encoded arguments.
        seed: Reseeds the guest's random sources.
        limits: Bounds of the call.
        isolation: ``"session"`` keeps the sandbox's state from call to call, ``"call"`` runs in a fork that
            is thrown away and leaves the session alone.
    """

    entry: str
    payload: bytes = field(repr=False)
    seed: int
    limits: Limits
    isolation: RunIsolation


def encode_arguments(args: Sequence[Any], kwargs: Mapping[str, Any], limits: Limits, where: str) -> bytes:
    """Encode the arguments of a call.

    Args:
        args: Positional arguments.
        kwargs: Arguments by name.
        limits: Whose payload limits hold.
        where: What to call the call in an error, such as ``"cases[3]"``.

    Raises:
        ConfigurationError: An argument cannot be encoded or is over a limit; the message has its path.
    """
    try:
        return encode(
            [list(args), dict(kwargs)],
            max_bytes=limits.payload_bytes,
            max_items=limits.payload_items,
            max_depth=limits.payload_depth,
            root=_ROOT,
        )
    except (EncodeError, TooLarge) as error:
        place = f"{where}: " if where else ""
        text = str(error).replace(f"{_ROOT}[0]", "args", 1).replace(f"{_ROOT}[1]", "kwargs", 1)
        raise ConfigurationError(f"{place}{text}", where or "args") from error


def check_deadline(deadline_s: object) -> float:
    """Return a deadline in seconds as trio counts, infinite for None.

    Raises:
        ConfigurationError: It is not a number of seconds above zero.
    """
    if deadline_s is None:
        return math.inf
    if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float) or not deadline_s > 0:
        raise ConfigurationError(
            f"deadline_s must be a number of seconds above 0, or None, not {deadline_s!r}", "deadline_s"
        )
    return float(deadline_s)


def deadline_outcome(deadline_s: float) -> LimitExceeded:
    """Say that a deadline passed before a call had ended, or had begun."""
    return LimitExceeded(
        "timeout",
        limit=deadline_s,
        message=f"the deadline of {deadline_s:g} s passed (unlike timeout_s it counts waiting and compiling)",
        deterministic=False,
    )


async def run_in_sandbox(worker: Worker, record: SandboxRecord, request: CallRequest) -> Outcome:
    """Call a function of a sandbox.

    Raises:
        SandboxNotFound: The sandbox was destroyed before the call had ended.

    Cancellation: The call is stopped; if it ran in the session, the session's state is lost.
    """
    with record.in_use():
        await record.loaded.wait()
        if request.isolation == "call":
            return await _run_thrown_away(worker, record, request)
        async with record.lock:
            return await _run_in_session(worker, record, request)


async def _run_thrown_away(worker: Worker, record: SandboxRecord, request: CallRequest) -> Outcome:
    if record.code is None:
        return _rejection(record)
    report = await worker.call(
        CallJob(
            code=record.code,
            entry=request.entry,
            payload=request.payload,
            seed=request.seed,
            limits=request.limits,
        )
    )
    return report.outcome


async def _run_in_session(worker: Worker, record: SandboxRecord, request: CallRequest) -> Outcome:
    if record.code is None:
        return _rejection(record)
    job = CallJob(
        session=record.session,
        code=record.code,
        entry=request.entry,
        payload=request.payload,
        seed=request.seed,
        limits=request.limits,
        reload=record.reload_pending,
    )
    held_state = record.session_live
    record.note_session(live=True)
    try:
        report = await worker.call(job)
    except trio.Cancelled:
        record.note_restart(None)
        raise
    except BaseException:
        record.note_session(live=False)
        raise
    record.reload_pending = False
    outcome = report.outcome
    if outcome.kind in KILLING:
        if report.session_alive:
            # It ran out of memory and lives: what it had begun is half done, and the memory stays taken.
            with trio.CancelScope(shield=True):
                await worker.end_session(record.session)
        record.note_restart(outcome)
    elif held_state and report.session_fresh:
        record.note_restart(WorkerLost(reason="the worker that held the session's state is gone"))
        record.note_session(live=report.session_alive)
    elif not report.session_alive:
        record.note_session(live=False)
    return outcome


def _rejection(record: SandboxRecord) -> Outcome:
    # A record without code and without a rejection is one whose load failed with the engine.
    return record.rejected or Rejected("load", f"sandbox {record.id!r} holds no code")
