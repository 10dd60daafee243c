"""The watch over what no single call's limits bound: the memory of a worker process as a whole."""

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
"""How much of the machine's memory the workers may hold together, if no bound is configured."""

_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")

_log = logging.getLogger("evocell")


class WatchedWorker(Protocol):
    """A worker's place, as the watch sees it."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    @property
    def pid(self) -> int | None:
        """The process in it; None if there is none at the moment."""
        ...

    def note_memory_kill(self, *, limit: int, reached: int) -> None:
        """Take note that it is being killed for the memory it holds, in bytes."""
        ...


def machine_memory(group_limit: Path = _GROUP_LIMIT) -> int:
    """Bytes of memory this machine has, or its control group may use, if that is less."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(group_limit.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no such file, or "max"
        return total


def memory_bound(config: Config) -> int:
    """Bytes of memory of its own that one worker may hold."""
    if config.worker_max_memory is not None:
        return config.worker_max_memory
    return int(machine_memory() * SHARE / max(1, config.worker_count()))


def own_memory(process: psutil.Process) -> int:
    """Bytes of a process's resident set, without the pages of files.

    Forks map one image, and the kernel counts its pages for each of them.

    Raises:
        psutil.Error: The process is gone.
    """
    seen = process.memory_info()
    return int(seen.rss) - int(getattr(seen, "shared", 0))


async def watch_memory(workers: Sequence[WatchedWorker], *, bound: int, interval_s: float) -> NoReturn:
    """Kill every worker whose memory is over a bound; the pool starts it again.

    Args:
        workers: Whom to watch.
        bound: Bytes.
        interval_s: Seconds between two looks.
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
    except psutil.Error:  # it ended at this moment
        return
    _log.warning(
        "%s (process %d) killed: its memory reached %d bytes, worker_max_memory is %d",
        worker.name,
        pid,
        reached,
        bound,
    )
