"""Events of guests that were stopped at a limit: whose, which limit, and how far they had come."""

from __future__ import annotations

from collections.abc import Iterable

from evocell.models.outcome import LimitExceeded, Outcome
from evocell.models.workers import WorkerKill
from evocell.observability.telemetry import Telemetry

__all__ = ["tell_of_backlog", "tell_of_deadline", "tell_of_kill", "tell_of_worker"]

_LIMIT = "sandbox.killed.resource_limit"
_TIMEOUT = "sandbox.killed.timeout"


def tell_of_kill(telemetry: Telemetry, sandbox_id: str, outcome: Outcome) -> None:
    """Emit the event of a call that ended at a limit; of any other, emit nothing."""
    if not isinstance(outcome, LimitExceeded):
        return
    numbers = {"limit": outcome.limit, "reached": outcome.reached}
    known = {name: number for name, number in numbers.items() if number is not None}
    if outcome.kind == "timeout":
        telemetry.emit(_TIMEOUT, known, {"sandbox_id": sandbox_id})
    else:
        telemetry.emit(_LIMIT, known, {"sandbox_id": sandbox_id, "kind": outcome.kind})


def tell_of_deadline(telemetry: Telemetry, sandbox_id: str, deadline_s: float) -> None:
    """Emit the event of a call that was stopped because the deadline of all passed."""
    telemetry.emit(_TIMEOUT, {"limit": deadline_s}, {"sandbox_id": sandbox_id})


def tell_of_backlog(telemetry: Telemetry, sandbox_id: str, *, limit: int, reached: int) -> None:
    """Emit the event of a session that was ended because too many calls waited for it."""
    about = {"sandbox_id": sandbox_id, "kind": "backlog"}
    telemetry.emit(_LIMIT, {"limit": limit, "reached": reached}, about)


def tell_of_worker(telemetry: Telemetry, kill: WorkerKill, at_rest: Iterable[str]) -> None:
    """Emit the event of each sandbox that a worker took along which was killed for its memory.

    Args:
        telemetry: Where to.
        kill: What was killed.
        at_rest: Sandboxes that kept state in it, with a call under way or not.
    """
    for sandbox_id in dict.fromkeys((*kill.sandbox_ids, *at_rest)):
        about = {"sandbox_id": sandbox_id, "kind": "worker_memory"}
        telemetry.emit(_LIMIT, {"limit": kill.limit, "reached": kill.reached}, about)
