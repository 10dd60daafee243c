"""Periodic resource readings of workers, of sandboxes that were called, and of the whole engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NoReturn

import psutil
import trio

from evocell.execution.interface import Worker
from evocell.models.info import WorkerInfo
from evocell.sandboxes.manager import Manager
from evocell.sandboxes.record import SandboxRecord
from evocell.store.observer import Observer
from evocell.workers.memory_watch import own_memory

__all__ = ["READINGS", "watch_resources"]

READINGS = "readings"
"""Name of the task."""


async def watch_resources(
    worker: Worker, manager: Manager, observer: Observer, *, interval_s: float, emit: bool
) -> NoReturn:
    """Take readings periodically until cancelled.

    Args:
        worker: The worker.
        manager: The manager of the sandboxes.
        observer: Records the readings: in the store if it is durable, and as events.
        interval_s: Seconds between two readings.
        emit: Whether readings are emitted as events.
    """
    seen: dict[int, int] = {}
    while True:
        await trio.sleep(interval_s)
        telling = emit and observer.telemetry.active
        if not (telling or observer.durable):
            continue
        infos = worker.host.workers()
        readings = await trio.to_thread.run_sync(_read_all, infos)
        records = manager.records()
        if observer.durable:
            statuses = Counter(record.state.status.value for record in records)
            observer.journal.reading("engine", {"sandboxes": dict(statuses)})
            for info, reading in zip(infos, readings, strict=True):
                about = {"status": info.status, "pid": info.pid, "node": info.node}
                observer.journal.reading(info.name, {**reading, **about})
        if telling:
            for info, reading in zip(infos, readings, strict=True):
                about = {"worker": info.name, "status": info.status, "node": info.node}
                observer.telemetry.emit("worker.resources", reading, about)
            seen = _tell_of_sandboxes(observer, records, seen)


def _tell_of_sandboxes(
    observer: Observer, records: Iterable[SandboxRecord], seen: dict[int, int]
) -> dict[int, int]:
    """Emit readings of sandboxes called since the last time; return the number of calls of each."""
    calls: dict[int, int] = {}
    for record in records:
        calls[record.number] = record.usage.calls
        if record.usage.calls != seen.get(record.number, 0):
            observer.telemetry.emit(
                "sandbox.resources",
                {
                    "calls": record.usage.calls,
                    "waiting_calls": record.backlog.waiting,
                    "fuel_used": record.usage.fuel_used,
                    "run_s": record.usage.run_s,
                    "peak_memory_bytes": record.usage.peak_memory_bytes,
                    "restarts": record.state.restart_count,
                },
                {
                    "sandbox_id": record.id,
                    "population": record.state.population,
                    "session_live": record.session_live,
                },
            )
    return calls


def _read_all(infos: Iterable[WorkerInfo]) -> list[dict[str, float]]:
    return [_read(info) for info in infos]


def _read(info: WorkerInfo) -> dict[str, float]:
    reading: dict[str, float] = {
        "sessions": info.sessions,
        "calls": info.calls,
        "finished": info.finished,
        "restarts": info.restarts,
    }
    if info.node is not None:  # a remote process, which reports its own readings
        told = {"memory_bytes": info.memory_bytes, "cpu_s": info.cpu_s, "processes": info.processes}
        reading.update({key: value for key, value in told.items() if value is not None})
    elif info.pid is not None:
        try:
            process = psutil.Process(info.pid)
            times = process.cpu_times()
            reading["memory_bytes"] = own_memory(process)
            reading["cpu_s"] = times.user + times.system
        except psutil.Error:  # ended meanwhile
            pass
    return reading
