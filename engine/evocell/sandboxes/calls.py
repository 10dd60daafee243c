"""A call into a sandbox: encoding of arguments, choice of fork, recording of the outcome."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NoReturn

import trio
from attrs import field, frozen

from evocell.code.compiler import CompiledVersion
from evocell.concurrency import Deadline
from evocell.errors import ConfigurationError
from evocell.execution.interface import CallJob, Worker
from evocell.models.limits import Limits
from evocell.models.outcome import LimitExceeded, Outcome, Rejected
from evocell.sandboxes.audit_events import report_deadline, report_full_queue, report_kill
from evocell.sandboxes.record import SandboxRecord
from evocell.store.observer import Observer
from evocell_guest.values import EncodeError, TooLarge, encode

__all__ = [
    "CallRequest",
    "RunIsolation",
    "check_deadline",
    "deadline_outcome",
    "encode_arguments",
    "end_session",
    "run_in_sandbox",
    "swap_in_place",
]

RunIsolation = Literal["session", "call"]

_ROOT = "call"
_PAYLOAD_LIMITS = {"bytes": "payload_bytes", "items": "payload_items"}
_NO_ARGUMENTS = encode([[], {}])

KILLING = frozenset({"fuel", "timeout", "memory", "stack", "output", "crashed", "worker_lost"})
"""Kinds of outcome after which a session is replaced by a fresh fork."""

SESSION_LOST = "the worker that held the session's state is gone"


@frozen(kw_only=True)
class CallRequest:
    """A call, ready for the worker.

    Attributes:
        entry: ``"module:qualname"``.
        payload: The encoded arguments.
        seed: Reseeds the guest's random sources.
        limits: Bounds of the call.
        isolation: ``"session"`` keeps the sandbox's state between calls, ``"call"`` runs in a temporary fork
            and does not touch the session.
    """

    entry: str
    payload: bytes = field(repr=False)
    seed: int
    limits: Limits
    isolation: RunIsolation


def encode_arguments(args: object, kwargs: object, limits: Limits, where: str) -> bytes:
    """Encode the arguments of a call.

    Args:
        args: Positional arguments.
        kwargs: Arguments by name.
        limits: Limits whose payload bounds apply.
        where: Name of the call in errors, such as ``"cases[3]"``.

    Raises:
        ConfigurationError: An argument cannot be encoded or is over a limit; the message has its path.
    """
    place = f"{where}: " if where else ""
    if isinstance(args, str | bytes | Mapping) or not isinstance(args, Iterable):
        raise ConfigurationError(
            f"{place}args must be a tuple or list of arguments, not {type(args).__name__}; "
            "write args=(value,) for one argument",
            where or "args",
        )
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise ConfigurationError(
            f"{place}kwargs must be a mapping with names as keys, not {kwargs!r:.60}",
            where or "kwargs",
        )
    try:
        return encode(
            [list(args), dict(kwargs)],
            **limits.payload_bounds,
            root=_ROOT,
        )
    except (EncodeError, TooLarge) as error:
        # The sentences are the guest's, written for a returned value.
        text = str(error).replace("; return ", "; give ", 1)
        if isinstance(error, TooLarge) and error.which in _PAYLOAD_LIMITS:
            text = (
                f"{error.path} takes the arguments beyond {error.limit:,} {error.which}; raise "
                f"{_PAYLOAD_LIMITS[error.which]} in the Limits, or freeze the data into an image"
            )
        text = text.replace(f"{_ROOT}[0]", "args", 1).replace(f"{_ROOT}[1]", "kwargs", 1)
        raise ConfigurationError(f"{place}{text}", where or "args") from error


def check_deadline(deadline_s: object) -> float:
    """Return a deadline in seconds as trio counts, infinite for None.

    Raises:
        ConfigurationError: It is not a positive number of seconds.
    """
    if deadline_s is None:
        return math.inf
    if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float) or not deadline_s > 0:
        raise ConfigurationError(
            f"deadline_s must be a number of seconds above 0, or None, not {deadline_s!r}", "deadline_s"
        )
    return float(deadline_s)


def deadline_outcome(deadline_s: float) -> LimitExceeded:
    """Return the outcome of a call whose deadline passed before it ended or began."""
    return LimitExceeded(
        "timeout",
        limit=deadline_s,
        message=f"the deadline of {deadline_s:g} s passed (unlike timeout_s it counts waiting and compiling)",
        deterministic=False,
    )


async def run_in_sandbox(
    worker: Worker,
    record: SandboxRecord,
    request: CallRequest,
    observer: Observer,
    *,
    deadline_s: float = math.inf,
) -> Outcome:
    """Call a function of a sandbox.

    Args:
        worker: The worker.
        record: The sandbox.
        request: The call.
        observer: Records a killed call.
        deadline_s: Seconds for everything, including the wait in the queue.

    Raises:
        SandboxNotFound: The sandbox was destroyed before the call ended.
        CapacityError: The sandbox's queue is full.

    Cancellation: The call is stopped; if it ran in the session, the session's state is lost.
    """
    began = trio.Event()
    deadline = Deadline(deadline_s)
    with deadline.scope():
        outcome = await _run(worker, record, request, observer, began=began, deadline=deadline)
        report_kill(observer, record.id, outcome, version=record.state.version or "")
        record.usage.add(outcome)
        return outcome
    if began.is_set():
        report_deadline(observer, record.id, deadline_s)
    return deadline_outcome(deadline_s)


async def _run(
    worker: Worker,
    record: SandboxRecord,
    request: CallRequest,
    observer: Observer,
    *,
    began: trio.Event,
    deadline: Deadline,
) -> Outcome:
    with record.in_use():
        if record.backlog.is_full:
            await _refuse(worker, record, observer)
        with record.backlog.call() as begin:
            await record.loaded.wait()
            record.refuse_stopped()
            if request.isolation == "call":
                began.set()
                return await _run_thrown_away(worker, record, request, deadline)
            async with record.lock:
                begin()
                began.set()
                return await _run_in_session(worker, record, request, deadline)


async def _refuse(worker: Worker, record: SandboxRecord, observer: Observer) -> NoReturn:
    """Refuse a call because the queue is full; by policy, end the session and all calls in it."""
    backlog = record.backlog
    error = backlog.refuse()
    if backlog.verdict is not None:
        report_full_queue(observer, record.id, limit=backlog.limit, reached=error.requested or backlog.limit)
        try:
            async with record.lock:
                if record.session_live:
                    await end_session(worker, record)
                    record.note_restart(error.message)
        finally:
            backlog.verdict = None
    raise error


async def end_session(worker: Worker, record: SandboxRecord) -> None:
    """End the session of a sandbox, if it has one; its lock is held. Shielded from cancellation."""
    if record.session_opened:
        with trio.CancelScope(shield=True):
            try:
                await worker.host.end_session(record.session)
            finally:
                record.session_opened = False
                record.note_session(live=False)


async def _run_thrown_away(
    worker: Worker, record: SandboxRecord, request: CallRequest, deadline: Deadline
) -> Outcome:
    if record.code is None:
        return _rejection(record)
    report = await worker.call(
        CallJob(
            image=(await record.choose_image(deadline)).id,
            code=record.code,
            entry=request.entry,
            payload=request.payload,
            seed=request.seed,
            limits=request.limits,
            sandbox_id=record.id,
        )
    )
    return report.outcome


async def swap_in_place(worker: Worker, record: SandboxRecord, code: CompiledVersion) -> Outcome:
    """Hot-swap the code in a sandbox's session; the sandbox's lock is held.

    Returns:
        `Completed` if the new code is loaded; otherwise the failure. The session then keeps its code, unless
        it had to be killed.

    Cancellation: The session loses its state.
    """
    job = CallJob(
        session=record.session,
        image=(await record.choose_session_image()).id,
        code=code,
        entry="",
        payload=_NO_ARGUMENTS,
        limits=record.limits,
        reload=True,
        sandbox_id=record.id,
    )
    return await _call_session(worker, record, job)


async def _run_in_session(
    worker: Worker, record: SandboxRecord, request: CallRequest, deadline: Deadline
) -> Outcome:
    if record.code is None:
        return _rejection(record)
    job = CallJob(
        session=record.session,
        image=(await record.choose_session_image(deadline)).id,
        code=record.code,
        entry=request.entry,
        payload=request.payload,
        seed=request.seed,
        limits=request.limits,
        sandbox_id=record.id,
    )
    return await _call_session(worker, record, job)


async def _call_session(worker: Worker, record: SandboxRecord, job: CallJob) -> Outcome:
    held_state = record.session_live
    record.note_session(live=True)
    try:
        report = await worker.call(job)
    except BaseException as error:
        # The worker may not have ended it: a call that had finished when it was cancelled keeps its state.
        await end_session(worker, record)
        if isinstance(error, trio.Cancelled):
            record.note_restart(record.backlog.verdict or "the call was cancelled")
        raise
    outcome = report.outcome
    if outcome.kind in KILLING:
        if report.session_alive:
            # It ran out of memory and survived: the swap is incomplete, and the memory stays allocated.
            await end_session(worker, record)
        record.note_restart(outcome.error or outcome.kind)
    elif held_state and report.session_fresh:
        record.note_restart(SESSION_LOST)
        record.note_session(live=report.session_alive)
    elif not report.session_alive:
        record.note_session(live=False)
    return outcome


def _rejection(record: SandboxRecord) -> Outcome:
    # A record without code and without a rejection is one whose load failed by an engine error.
    return record.rejected or Rejected("load", f"sandbox {record.id!r} holds no code")
