"""Audit entries of refused, stopped and lost calls, and events of guests stopped at a limit."""

from __future__ import annotations

from collections.abc import Iterable

from evocell.code.compiler import CompiledVersion
from evocell.models.info import WorkerKill
from evocell.models.outcome import GuestCrashed, LimitExceeded, Outcome, Rejected, WorkerLost
from evocell.models.security import SecurityPolicy
from evocell.store.audit import AuditLog
from evocell.store.observer import Observer

__all__ = [
    "record_decision",
    "record_refusal",
    "report_deadline",
    "report_full_queue",
    "report_kill",
    "report_worker_kill",
]

_LIMIT = "sandbox.killed.resource_limit"
_TIMEOUT = "sandbox.killed.timeout"


def record_decision(
    audit: AuditLog, digest: str, policy: SecurityPolicy, made: CompiledVersion | Rejected
) -> None:
    """Record the security gate's decision on a version compiled for the first time."""
    if isinstance(made, Rejected):
        return  # recorded by `record_refusal`, with the sandbox
    for sentence in made.findings:
        audit.note("reported", sentence, version=digest, profile=policy.profile)
    if not made.findings:
        imports = f"imports {', '.join(made.imports)}" if made.imports else "imports nothing"
        audit.note("allowed", imports, version=digest, profile=policy.profile)


def record_refusal(audit: AuditLog, sandbox_id: str, made: object, *, version: str, profile: str) -> None:
    """Record that the gate refused code before it ran, if it did."""
    if isinstance(made, Rejected) and made.kind == "security":
        audit.note(
            "refused", made.error or made.kind, sandbox_id=sandbox_id, version=version, profile=profile
        )


def report_kill(observer: Observer, sandbox_id: str, outcome: Outcome, *, version: str = "") -> None:
    """Record a call that was stopped, refused or lost, and emit the event if it ended at a limit."""
    audit = observer.audit
    if isinstance(outcome, LimitExceeded):
        audit.note("killed", f"{outcome.kind}: {outcome.error}", sandbox_id=sandbox_id, version=version)
        numbers = {"limit": outcome.limit, "reached": outcome.reached}
        known = {name: number for name, number in numbers.items() if number is not None}
        if outcome.kind == "timeout":
            observer.telemetry.emit(_TIMEOUT, known, {"sandbox_id": sandbox_id})
        else:
            observer.telemetry.emit(_LIMIT, known, {"sandbox_id": sandbox_id, "kind": outcome.kind})
    elif isinstance(outcome, GuestCrashed):
        audit.note("crashed", outcome.reason, sandbox_id=sandbox_id, version=version)
    elif isinstance(outcome, WorkerLost):
        audit.note("worker_lost", outcome.reason, sandbox_id=sandbox_id, version=version)
    elif isinstance(outcome, Rejected) and outcome.kind == "security" and outcome.path is None:
        audit.note("refused_running", outcome.message, sandbox_id=sandbox_id, version=version)


def report_deadline(observer: Observer, sandbox_id: str, deadline_s: float) -> None:
    """Record, with its event, a call that was stopped by the overall deadline."""
    observer.audit.note("killed", f"timeout: the deadline of {deadline_s:g} s passed", sandbox_id=sandbox_id)
    observer.telemetry.emit(_TIMEOUT, {"limit": deadline_s}, {"sandbox_id": sandbox_id})


def report_full_queue(observer: Observer, sandbox_id: str, *, limit: int, reached: int) -> None:
    """Record, with its event, a session that was ended because its queue was full."""
    sentence = f"backlog: {reached:,} calls waited, and {limit:,} may"
    observer.audit.note("killed", sentence, sandbox_id=sandbox_id)
    about = {"sandbox_id": sandbox_id, "kind": "backlog"}
    observer.telemetry.emit(_LIMIT, {"limit": limit, "reached": reached}, about)


def report_worker_kill(observer: Observer, kill: WorkerKill, at_rest: Iterable[str]) -> None:
    """Record, with an event each, the sandboxes lost with a worker that was killed for its memory.

    Args:
        observer: The recorders.
        kill: The killed worker.
        at_rest: Sandboxes with a session in it, idle or not.
    """
    for sandbox_id in dict.fromkeys((*kill.sandbox_ids, *at_rest)):
        sentence = f"worker_memory: its worker held {kill.reached:,} bytes, and {kill.limit:,} are allowed"
        observer.audit.note("killed", sentence, sandbox_id=sandbox_id)
        about = {"sandbox_id": sandbox_id, "kind": "worker_memory"}
        observer.telemetry.emit(_LIMIT, {"limit": kill.limit, "reached": kill.reached}, about)
