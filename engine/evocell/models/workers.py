"""What is seen of a worker from outside."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen

__all__ = ["WorkerInfo", "WorkerKill", "WorkerStatus"]

WorkerStatus: TypeAlias = Literal["starting", "up", "draining", "refused"]


@frozen(kw_only=True)
class WorkerInfo:
    """A worker at one moment, or a node of a cluster.

    Attributes:
        name: The name of its place; the process in it changes.
        pid: The process, on the machine that it runs on; None while there is none, or it has not started.
        status: ``"up"`` takes calls; ``"starting"`` is not ready yet, or waits to be started again;
            ``"draining"`` takes calls as well, and its successor is on the way; ``"refused"`` is a node that
            gets no calls, for what `problem` says.
        sessions: Sandboxes that keep their state in it.
        calls: Calls that are in it now, waiting or running.
        finished: Calls that came to an end in this process.
        restarts: How often the process was replaced by another.
        capacity: How many sandboxes can keep their state in it, if none has much data of its own; None while
            there is no process.
        node: Address of the node; None for a process of this machine.
        processes: Guest processes of the node; None for a process of this machine, or if it has not joined.
        problem: Why a node is refused, in a sentence.
        memory_bytes: Memory that the guest processes of a node hold, as it said lately; None for a process of
            this machine, which can be looked at.
        cpu_s: Processor seconds that they used, likewise.
    """

    name: str
    pid: int | None
    status: WorkerStatus
    sessions: int = 0
    calls: int = 0
    finished: int = 0
    restarts: int = 0
    capacity: int | None = None
    node: str | None = None
    processes: int | None = None
    problem: str | None = None
    memory_bytes: int | None = None
    cpu_s: float | None = None


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
