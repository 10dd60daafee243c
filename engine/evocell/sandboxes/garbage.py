"""Garbage collection of sandboxes of past generations, unused trees and orphaned directories.

A sandbox is garbage if it is in a population, its generation is not among the latest, and it is neither in
the population's elite, nor pinned, nor in use. Sandboxes without a population are never collected.

When memory runs short, only the latest generation of each population is retained; if that does not help,
further sandboxes are refused until memory is free again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import psutil
import trio
from attrs import evolve, field, frozen

from evocell.code.references import TreeReferences
from evocell.code.snapshots import Removed, SnapshotStore
from evocell.config import Config
from evocell.errors import CapacityError, StoreError
from evocell.guests.capacity import read_number
from evocell.guests.scratch import sweep
from evocell.models.populations import GarbageCause, GarbageReport
from evocell.sandboxes.manager import Manager
from evocell.sandboxes.populations import PopulationRegistry
from evocell.sandboxes.record import SandboxRecord
from evocell.store.populations import PopulationStore

__all__ = ["GARBAGE", "GarbageCollector", "TreeRemoval", "memory_taken"]

GARBAGE = "garbage-collector"
"""Name of the task that collects periodically and watches the memory."""

TREE_REST_S = 3600.0
"""Seconds for which an unused tree stays in a durable store, so that a restarted engine finds it."""

RELIEF_S = 10.0
"""Seconds between two collections for lack of memory."""

_log = logging.getLogger("evocell")


_GROUP = Path("/sys/fs/cgroup")


def memory_taken(group: Path = _GROUP) -> float:
    """Return the fraction of memory in use, from 0 to 1, of the machine or of its control group.

    The higher of the two fractions counts. Clean page cache does not count as used.

    Args:
        group: Directory of the control group.
    """
    machine = float(psutil.virtual_memory().percent) / 100
    limit, used = read_number(group / "memory.max"), read_number(group / "memory.current")
    if not limit or used is None:
        return machine
    return max(machine, max(0, used - _droppable(group / "memory.stat")) / limit)


def _droppable(file: Path) -> int:
    try:
        rows = dict(line.split() for line in file.read_text(encoding="ascii").splitlines())
        return int(rows.get("inactive_file", 0))
    except (OSError, ValueError):
        return 0


@frozen
class _Sorted:
    """Members of retired generations, split into collectable and retained ones."""

    dead: list[SandboxRecord] = field(factory=list)
    elites: list[SandboxRecord] = field(factory=list)
    pinned: list[SandboxRecord] = field(factory=list)


class TreeRemoval:
    """Removes unused version trees.

    Args:
        references: The reference counts of the trees.
        snapshots: The store of the trees.
        lasting: The store of trees that outlive this engine, which may be the same; None without one.
        kept: Returns whether another engine uses that store.
    """

    def __init__(
        self,
        references: TreeReferences,
        snapshots: SnapshotStore,
        lasting: SnapshotStore | None,
        kept: PopulationStore,
    ) -> None:
        self._references = references
        self._snapshots = snapshots
        self._lasting = lasting
        self._kept = kept

    def remove(self, rested: bool) -> Removed:  # noqa: FBT001 - called in a thread
        """Remove unused trees; blocks.

        Args:
            rested: Whether recently used trees of a durable store are spared.
        """
        try:
            lasting = self._remove_lasting(rested=rested)
            if self._snapshots is self._lasting:
                return lasting
            removed = self._references.remove_unused()
            # A tree of the one is in the other too, but for those of earlier engines.
            return evolve(removed + lasting, trees=max(removed.trees, lasting.trees))
        except StoreError as error:
            _log.warning("version trees could not be removed: %s", error)
            return Removed()

    def _remove_lasting(self, *, rested: bool) -> Removed:
        if self._lasting is None or self._kept.is_shared():
            return Removed()  # a tree unused here may be in use by that engine
        keep = self._fresh(self._lasting) if rested else ()
        return self._references.remove_unused(keep=keep, snapshots=self._lasting)

    def _fresh(self, lasting: SnapshotStore) -> set[str]:
        since = time.time() - TREE_REST_S
        found = set()
        for digest in self._references.unused(lasting):
            try:
                if lasting.path_of(digest).stat().st_mtime >= since:
                    found.add(digest)
            except OSError:
                continue
        return found


class GarbageCollector:
    """The garbage collector; runs at intervals, on demand, and when memory runs short.

    Args:
        manager: The manager of the sandboxes.
        populations: The members of populations.
        trees: Removes version trees.
        config: Intervals, retention, and the threshold of memory.
        taken: Returns the fraction of memory in use, from 0 to 1.
    """

    def __init__(
        self,
        manager: Manager,
        populations: PopulationRegistry,
        trees: TreeRemoval,
        config: Config,
        *,
        taken: Callable[[], float] = memory_taken,
    ) -> None:
        self._manager = manager
        self._populations = populations
        self._trees = trees
        self._config = config
        self._taken = taken
        self._collecting = trio.Lock()
        self._relieved_at = -RELIEF_S
        manager.on_full = self.make_room

    async def run(self) -> NoReturn:
        """Collect at intervals, and check the memory in between, until cancelled.

        Cancellation: A collection under way completes the destructions it has begun.
        """
        async with trio.open_nursery() as nursery:
            if self._config.enforcement_enabled:
                nursery.start_soon(self._watch)
            while True:
                await trio.sleep(self._config.gc_interval_ms / 1000)
                await self.collect("interval")

    async def collect(self, cause: GarbageCause = "demand") -> GarbageReport:
        """Collect once; concurrent collections are serialised.

        Args:
            cause: The reason. For lack of memory only the latest generations are retained; on demand, or for
                lack of memory, recently used trees are removed as well.

        Returns:
            A summary of the collection.

        Cancellation: What has been destroyed is destroyed.
        """
        async with self._collecting:
            begun = time.perf_counter()
            found = self._sort(1 if cause == "pressure" else self._config.gc_retain_generations)
            sessions = sum(record.session_live for record in found.dead if record.is_idle)
            destroyed = await self._manager.destroy_idle(found.dead)
            removed = await trio.to_thread.run_sync(self._trees.remove, cause == "interval")
            directories = await trio.to_thread.run_sync(sweep)
            report = evolve(
                self._report(cause, found, destroyed, sessions, begun),
                trees=removed.trees,
                files=removed.files,
                bytes=removed.bytes,
                directories=len(directories),
            )
        self._tell(report)
        return report

    async def make_room(self, enough: Callable[[], bool]) -> bool:
        """Destroy collectable sandboxes to make room for new ones.

        Unused trees and orphaned directories are left to the next cycle, since a call waits for this one.

        Args:
            enough: Returns whether there is room; checked again once this collection has its turn.

        Returns:
            Whether there is room now, or more than before.

        Cancellation: What has been destroyed is destroyed.
        """
        async with self._collecting:
            if enough():
                return True
            begun = time.perf_counter()
            found = self._sort(self._config.gc_retain_generations)
            sessions = sum(record.session_live for record in found.dead if record.is_idle)
            destroyed = await self._manager.destroy_idle(found.dead)
            if not destroyed:
                return False
            report = self._report("capacity", found, destroyed, sessions, begun)
        self._tell(report)
        return True

    async def look(self) -> None:
        """Check the memory: collect if it is short, and refuse further sandboxes if it stays short."""
        limit = self._config.gc_memory_percent / 100
        admission = self._manager.admission
        taken = self._taken()
        if taken >= limit and trio.current_time() >= self._relieved_at + RELIEF_S:
            self._relieved_at = trio.current_time()
            await self.collect("pressure")
            taken = self._taken()
        if taken < limit:
            if admission.refusal is not None:
                _log.warning("memory: %.0f %% taken, further sandboxes are made again", 100 * taken)
            admission.refusal = None
            return
        if admission.refusal is None:
            _log.warning("memory: %.0f %% taken, further sandboxes are refused", 100 * taken)
        admission.refusal = CapacityError(
            f"{taken:.0%} of the memory is taken, gc_memory_percent is {self._config.gc_memory_percent}, and "
            "there was nothing more to collect; destroy sandboxes, let other programs have less, or raise it",
            "memory",
            self._config.gc_memory_percent,
            round(100 * taken),
        )

    async def _watch(self) -> NoReturn:
        while True:
            await self.look()
            await trio.sleep(self._config.enforcement_poll_interval_ms / 1000)

    def _sort(self, retain: int) -> _Sorted:
        """Find the members of retired generations.

        Args:
            retain: Number of generations of each population retained in full; 0 for all.
        """
        found = _Sorted()
        if not retain:
            return found
        pinned = set(self._populations.pinned())
        by_population: dict[str, list[SandboxRecord]] = {}
        for record in self._manager.members():
            by_population.setdefault(record.state.population or "", []).append(record)
        for population, members in by_population.items():
            oldest = self._populations.latest(population) - retain + 1
            over = [record for record in members if record.state.generation < oldest]
            if not over:
                continue
            elite = {record.id for record in self._populations.elite(population, self._config.gc_elites)}
            for record in over:
                if record.id in pinned:
                    found.pinned.append(record)
                elif record.id in elite:
                    found.elites.append(record)
                else:
                    found.dead.append(record)
        return found

    def _report(
        self,
        cause: GarbageCause,
        found: _Sorted,
        destroyed: Sequence[SandboxRecord],
        sessions: int,
        begun: float,
    ) -> GarbageReport:
        return GarbageReport(
            cause=cause,
            sandboxes=tuple(record.id for record in destroyed),
            sessions=sessions,
            kept_elites=len(found.elites),
            kept_pinned=len(found.pinned),
            kept_busy=len(found.dead) - len(destroyed),
            duration_s=time.perf_counter() - begun,
        )

    def _tell(self, report: GarbageReport) -> None:
        self._manager.telemetry.emit(
            "sandbox.gc.collected",
            {
                "duration_s": report.duration_s,
                "sandboxes": len(report.sandboxes),
                "sessions": report.sessions,
                "kept_elites": report.kept_elites,
                "kept_pinned": report.kept_pinned,
                "kept_busy": report.kept_busy,
                "trees": report.trees,
                "files": report.files,
                "bytes": report.bytes,
                "directories": report.directories,
            },
            {"cause": report.cause},
        )
