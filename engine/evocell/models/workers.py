"""What is seen of a worker from outside."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen

__all__ = ["WorkerInfo", "WorkerKill", "WorkerStatus"]

WorkerStatus: TypeAlias = Literal["starting", "up", "draining"]


@frozen(kw_only=True)
class WorkerInfo:
    """A worker at one moment.

    Attributes:
        name: The name of its place; the process in it changes.
        pid: The process; None while there is none, or it has not started.
        status: ``"up"`` takes calls; ``"starting"`` is not ready yet, or waits to be started again;
            ``"draining"`` takes calls as well, and its successor is on the way.
        sessions: Sandboxes that keep their state in it.
        calls: Calls that are in it now, waiting or running.
        finished: Calls that came to an end in this process.
        restarts: How often the process was replaced by another.
        capacity: How many sandboxes can keep their state in it, if none has much data of its own; None while
            there is no process.
    """

    name: str
    pid: int | None
    status: WorkerStatus
    sessions: int = 0
    calls: int = 0
    finished: int = 0
    restarts: int = 0
    capacity: int | None = None


@frozen(kw_only=True)
class WorkerKill:
    """A process that was killed for what it held.

    Attributes:
        worker: Its name.
        limit: Bytes of memory that it may hold.
        reached: Bytes that it held.
        sandbox_ids: Whose calls were under way in it.
    """

    worker: str
    limit: int
    reached: int
    sandbox_ids: tuple[str, ...] = ()
