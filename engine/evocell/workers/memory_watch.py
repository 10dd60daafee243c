"""Supervision of the total memory of worker processes, which no limit of a single call bounds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Protocol

import psutil
import trio

from evocell.config import Config

__all__ = ["WatchedWorker", "machine_memory", "memory_bound", "own_memory", "watch_memory"]

SHARE = 0.6
"""Share of the machine's memory that all workers together may hold, if no bound is configured."""

_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")

_log = logging.getLogger("evocell")


class WatchedWorker(Protocol):
    """A worker slot as `watch_memory` sees it."""

    @property
    def name(self) -> str:
        """Name of the slot."""
        ...

    @property
    def pid(self) -> int | None:
        """Process id; None while the slot is empty."""
        ...

    def note_memory_kill(self, *, limit: int, reached: int) -> None:
        """Record that the process is being killed for holding `held_bytes`."""
        ...


def machine_memory(group_limit: Path = _GROUP_LIMIT) -> int:
    """Return the machine's memory in bytes, or its control group's limit if that is lower."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(group_limit.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no such file, or "max"
        return total


def memory_bound(config: Config) -> int:
    """Return the bytes of private memory that one worker may hold."""
    if config.worker_max_memory is not None:
        return config.worker_max_memory
    return int(machine_memory() * SHARE / max(1, config.worker_count()))


def own_memory(process: psutil.Process) -> int:
    """Return the bytes of a process's resident set without file-backed pages.

    All forks map the same image, whose pages the kernel would count once per fork.

    Raises:
        psutil.Error: The process has ended.
    """
    seen = process.memory_info()
    return int(seen.rss) - int(getattr(seen, "shared", 0))


async def watch_memory(workers: Sequence[WatchedWorker], *, bound: int, interval_s: float) -> NoReturn:
    """Kill each worker whose memory exceeds a bound; the pool restarts it.

    Args:
        workers: The slots to watch.
        bound: Bytes.
        interval_s: Seconds between two checks.
    """
    while True:
        await trio.sleep(interval_s)
        for worker in workers:
            _look(worker, bound)


def _look(worker: WatchedWorker, bound: int) -> None:
    pid = worker.pid
    if pid is None:
        return
    try:
        process = psutil.Process(pid)
        reached = own_memory(process)
        if reached <= bound:
            return
        worker.note_memory_kill(limit=bound, reached=reached)
        process.kill()
    except psutil.Error:  # ended meanwhile
        return
    _log.warning(
        "%s (process %d) killed: its memory reached %d bytes, worker_max_memory is %d",
        worker.name,
        pid,
        reached,
        bound,
    )
