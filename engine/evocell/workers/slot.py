"""The places of a pool, each of which has a worker process in it, one after the other."""

from __future__ import annotations

import trio

from evocell.models.info import WorkerInfo
from evocell.workers.session_table import SessionTable
from evocell.workers.worker_process import WorkerProcess

__all__ = ["WorkerSlot"]


class WorkerSlot:
    """A worker's place in the pool; the process in it changes.

    Args:
        number: Which one it is, from 0.

    Attributes:
        name: What it is called, whichever process is in it.
        process: The process that is given work, or the last that was.
        restarts: How often one was started in place of another.
        drain_asked: Set when the present one is to be replaced.
        undrained: Why it was not, if that was given up.
    """

    def __init__(self, number: int) -> None:
        self.name = f"worker-{number}"
        self.process: WorkerProcess | None = None
        self.restarts = 0
        self.drain_asked = trio.Event()
        self.undrained: str | None = None

    def take(self, new: WorkerProcess) -> None:
        """Have another process in it."""
        self.restarts += self.process is not None
        self.process = new
        self.drain_asked = trio.Event()

    def give_up(self, why: str) -> None:
        """Keep the present process though it was to be replaced."""
        self.undrained = why
        self.drain_asked = trio.Event()

    def info(self, table: SessionTable) -> WorkerInfo:
        """What is seen of it."""
        process = self.process
        if process is None or not process.is_up:
            return WorkerInfo(name=self.name, pid=None, status="starting", restarts=self.restarts)
        return WorkerInfo(
            name=self.name,
            pid=process.pid,
            status="draining" if self.drain_asked.is_set() else "up",
            sessions=table.count(process),
            calls=process.n_under_way,
            finished=process.finished,
            restarts=self.restarts,
            capacity=process.capacity,
        )
