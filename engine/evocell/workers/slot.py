"""Slots of a pool: each holds one worker process at a time."""

from __future__ import annotations

import trio

from evocell.models.info import WorkerInfo
from evocell.workers.session_table import SessionTable
from evocell.workers.worker_process import WorkerProcess

__all__ = ["WorkerSlot"]


class WorkerSlot:
    """A worker's slot in the pool; the process in it changes.

    Args:
        number: Index of the slot, from 0.

    Attributes:
        name: Name of the slot, whichever process is in it.
        process: The process that gets work, or the last that did.
        restarts: How often a process was replaced.
        drain_asked: Set when the current process is to be replaced.
        undrained: Why the replacement was given up, if it was.
    """

    def __init__(self, number: int) -> None:
        self.name = f"worker-{number}"
        self.process: WorkerProcess | None = None
        self.restarts = 0
        self.drain_asked = trio.Event()
        self.undrained: str | None = None

    def take(self, new: WorkerProcess) -> None:
        """Put a new process into the slot."""
        self.restarts += self.process is not None
        self.process = new
        self.drain_asked = trio.Event()

    def give_up(self, why: str) -> None:
        """Give up replacing the current process."""
        self.undrained = why
        self.drain_asked = trio.Event()

    def info(self, table: SessionTable) -> WorkerInfo:
        """Return the slot's state."""
        process = self.process
        pid = None if process is None else process.pid
        if process is None or pid is None:
            return WorkerInfo(name=self.name, pid=None, status="starting", restarts=self.restarts)
        return WorkerInfo(
            name=self.name,
            pid=pid,
            status="draining" if self.drain_asked.is_set() else "up",
            sessions=table.count(process),
            calls=process.n_under_way,
            finished=process.finished,
            restarts=self.restarts,
            capacity=process.capacity,
        )
