"""Node of a cluster: guest processes on a pool's machine, and the entry point for an engine's messages.

It runs in a process of the pool, in a thread with a trio loop. It holds no durable state: its requests are
repeated elsewhere if it is lost. It ends with its process, when it is closed, or when the engine has not sent
a message for a while.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import trio
from attrs import define, frozen

from evocell.api.portal import TrioThread
from evocell.errors import EngineClosed, EvocellError
from evocell.execution.messages import CopyRefused, GuestRequest
from evocell.guests.scratch import OwnedDirectory, sweep
from evocell.integrations.cluster.holdings import BLOBS_BYTES, Arriving, Holdings
from evocell.integrations.cluster.messages import pack, row_of, unpack
from evocell.integrations.cluster.pace import Pace
from evocell.models.info import WorkerKill
from evocell.workers.memory_watch import SHARE, machine_memory, own_memory, watch_memory
from evocell.workers.pool import HostPool
from evocell_runtime.build import build_image
from evocell_runtime.cache import ImageCache, ImageManifest
from evocell_runtime.errors import ImageError
from evocell_runtime.portable import snapshot_abi
from evocell_runtime.spec import ImageSpec, cpu_features

__all__ = ["LEASE_S", "Machine", "NodeDoor"]

LEASE_S = 120.0
"""Lease: a node without messages of its engine for this long ends its guests."""

LINGER_S, GAP_S = 0.25, 0.02
"""Seconds for which finished requests wait for the others of their batch: in all, and for the next one if a
process would wait for work in the meantime."""

_SHELF_PART = 4
_MOST_KILLS = 100
_MOST_UNWANTED = 10_000
_WATCH_S = 1.0

_log = logging.getLogger("evocell")

Handler = Callable[[Mapping[str, Any]], Any]


@frozen(kw_only=True)
class Machine:
    """Resources of a node, from its pool.

    Attributes:
        name: The pool's name of the process.
        threads: Its number of threads; the default number of guest processes.
        memory_bytes: Memory that it may hold, including child processes; None for the machine's.
    """

    name: str
    threads: int
    memory_bytes: int | None = None


class NodeDoor:
    """Handle of a node in the pool's process. Messages may come from any thread.

    Args:
        machine: Its resources.
    """

    def __init__(self, machine: Machine) -> None:
        self._thread = TrioThread(lambda: _opened(machine), name="evocell-node")

    def answer(self, message: bytes) -> Future[bytes]:
        """Start answering a message; cancelling the future has no effect, a stop message does.

        Raises:
            EngineClosed: The node is closed.
        """
        service = self._thread.resource
        return self._thread.submit(lambda: service.answer(message)).future

    def close(self) -> None:
        """End every guest process. Blocks briefly. Idempotent."""
        self._thread.close()


@asynccontextmanager
async def _opened(machine: Machine) -> AsyncIterator[_Service]:
    async with trio.open_nursery() as nursery:
        service = _Service(machine, nursery)
        nursery.start_soon(service.keep_lease)
        try:
            yield service
        finally:
            nursery.cancel_scope.cancel()
            service.close()


@define(eq=False)
class _UnderWay:
    """A request under way.

    Attributes:
        scope: Its cancel scope.
        plain: Its description.
    """

    scope: trio.CancelScope
    plain: Mapping[str, Any]


class _Service:
    """Answers an engine's messages."""

    def __init__(self, machine: Machine, nursery: trio.Nursery) -> None:
        self._machine = machine
        self._nursery = nursery
        self._pool: HostPool | None = None
        self._living = trio.CancelScope()
        self._holdings: Holdings | None = None
        self._directory: OwnedDirectory | None = None
        self._layers: dict[str, Path] = {}
        self._arriving: dict[tuple[str, str], Arriving] = {}
        self._under_way: dict[int, _UnderWay] = {}
        self._queued: dict[int, GuestRequest] = {}
        """Those under way that have not begun, in the order in which they begin."""
        self._pace = Pace(1)
        self._seen: dict[int, dict[str, Any]] = {}
        self._unwanted: dict[int, None] = {}
        self._progress = trio.Event()
        self._kills: list[dict[str, Any]] = []
        self._heard_at = time.monotonic()
        self._opening = trio.Lock()
        self._handlers: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "hello": self._hello,
            "open": self._open,
            "piece": self._piece,
            "has_image": self._has_image,
            "orders": self._orders,
            "look": self._look,
            "work": self._work,
        }

    async def answer(self, data: bytes) -> bytes:
        """Answer a message; failures are answers, too."""
        self._heard_at = time.monotonic()
        message = unpack(data)
        try:
            return pack(await self._handlers[message["op"]](message))
        except (EvocellError, ImageError, OSError) as error:
            return pack({"refused": str(error)[:2000]})

    async def keep_lease(self) -> None:
        """End the guests when the engine's lease expires."""
        while True:
            await trio.sleep(_WATCH_S)
            if self._pool is not None and time.monotonic() - self._heard_at > LEASE_S:
                _log.warning(
                    "%s: its engine was not heard of for %g s; guests end", self._machine.name, LEASE_S
                )
                self.close()

    def close(self) -> None:
        """End the guests and clear all caches; idempotent."""
        self._living.cancel()
        self._pool = self._holdings = None
        self._queued.clear()
        self._under_way.clear()
        self._seen.clear()
        self._arriving.clear()
        self._layers.clear()
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    async def _hello(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Return the versions of the components, for the engine's comparison."""
        return {
            "evocell": version("evocell"),
            "wasmtime": version("wasmtime"),
            "abi": snapshot_abi(),
            "machine": platform.machine(),
            "threads": self._machine.threads,
            "pid": os.getpid(),
        }

    async def _open(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Start guest processes, building the image first if it is missing."""
        async with self._opening:
            missing = [sha for sha in wanted["layers"] if sha not in self._layers]
            if missing:
                return {"missing_layers": missing}
            if self._pool is None:
                await trio.to_thread.run_sync(sweep)
                root = None if wanted["images_dir"] is None else Path(wanted["images_dir"])
                cache = ImageCache(root)
                layers = [self._layers[sha] for sha in wanted["layers"]]
                spec = ImageSpec(warm=wanted["warm"], layers=layers, portable=wanted["portable"])
                manifest = await trio.to_thread.run_sync(build_image, spec, cache)
                known_there = await trio.to_thread.run_sync(spec.image_id, wanted["cpu"])
                facts = {"image_there": known_there, "snapshot_sha256": manifest.snapshot_sha256}
                if known_there != wanted["image_id"] or manifest.snapshot_sha256 != wanted["snapshot_sha256"]:
                    return {**facts, "processes": 0}
                await self._start(wanted, manifest, cache)
            assert self._pool is not None
            return {
                "image_there": wanted["image_id"],
                "snapshot_sha256": wanted["snapshot_sha256"],
                "processes": len(self._pool.workers()),
                "cpu": cpu_features(),
            }

    async def _start(self, wanted: Mapping[str, Any], manifest: ImageManifest, cache: ImageCache) -> None:
        processes = wanted["processes"] or max(1, self._machine.threads)
        bound = wanted["memory_bytes"] or int(self._memory() * SHARE / processes)
        pool = HostPool(
            manifest,
            str(cache.root.absolute()),
            workers=processes,
            realtime=wanted["realtime"],
            memory_bytes=bound,
            cache_bytes=min(BLOBS_BYTES, bound // _SHELF_PART),
        )
        pool.on_kill = self._note_kill
        self._living = trio.CancelScope()
        await self._nursery.start(self._live, pool, bound if wanted["enforce"] else None)
        if pool.failure is not None:
            self._living.cancel()
            raise pool.failure
        if self._directory is None:
            self._directory = OwnedDirectory()
        root = self._directory.path / "trees"
        root.mkdir()
        self._holdings = Holdings(root, cache, wanted["image_id"])
        self._pool, self._pace = pool, Pace(processes)

    async def _live(
        self,
        pool: HostPool,
        bound: int | None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with self._living:
            async with trio.open_nursery() as nursery:
                await nursery.start(pool.supervise)
                task_status.started()
                if bound is not None:
                    await watch_memory(pool.processes, bound=bound, interval_s=_WATCH_S)
                await trio.sleep_forever()

    def _memory(self) -> int:
        return min(machine_memory(), self._machine.memory_bytes or machine_memory())

    async def _piece(self, piece: Mapping[str, Any]) -> dict[str, Any]:
        """Take a piece of an item; the last one stores it."""
        kind, name = piece["kind"], piece["name"]
        arriving = self._arriving.get((kind, name))
        if arriving is None or piece["offset"] == 0:
            arriving = self._arriving[kind, name] = Arriving(piece["total"])
        if not arriving.take(piece["offset"], piece["data"]):
            return {}
        del self._arriving[kind, name]
        return await self._keep(kind, name, bytes(arriving.data))

    async def _keep(self, kind: str, name: str, data: bytes) -> dict[str, Any]:
        if kind == "layer":
            if self._directory is None:
                self._directory = OwnedDirectory()
            path = self._directory.path / f"{name}.zip"
            await trio.Path(path).write_bytes(data)
            self._layers[name] = path
            return {}
        pool, holdings = self._opened()
        if kind == "blob":
            holdings.take_blob(name, data)
        elif kind == "tree":
            await trio.to_thread.run_sync(holdings.take_tree, name, data)
        elif not holdings.holds_image(name):
            return await self._import(pool, holdings, name, data)
        return {}

    async def _has_image(self, question: Mapping[str, Any]) -> dict[str, Any]:
        _pool, holdings = self._opened()
        return {"here": holdings.holds_image(question["image"])}

    async def _import(self, pool: HostPool, holdings: Holdings, name: str, data: bytes) -> dict[str, Any]:
        """Make an image from a transferred snapshot; its code is compiled here."""
        assert self._directory is not None
        path = self._directory.path / f"{name}.image"
        try:
            await trio.Path(path).write_bytes(data)
            here = await pool.import_image(path, name=None, replace=False)
        finally:
            path.unlink(missing_ok=True)
        holdings.take_image(name, here)
        return {}

    async def _orders(self, orders: Mapping[str, Any]) -> dict[str, Any]:
        """Stop requests, end sessions, and give requests back that have not begun, the last ones first."""
        for number in orders["cancel"]:
            if number in self._queued:
                self._end(number, None)
            elif (run := self._under_way.get(number)) is not None:
                run.scope.cancel()
            elif self._seen.pop(number, None) is None:
                self._refuse(number)  # it may still be in transit
        for number in list(self._queued)[::-1][: orders["back"]]:
            self._end(number, {"back": True})
        if self._pool is not None:
            for session in orders["end"]:
                await self._pool.end_session(session)
        return {}

    def _refuse(self, number: int) -> None:
        """Refuse a request that has not arrived yet."""
        self._unwanted[number] = None
        if len(self._unwanted) > _MOST_UNWANTED:
            del self._unwanted[next(iter(self._unwanted))]

    async def _look(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state of the guest processes."""
        pool, _holdings = self._opened()
        infos = pool.workers()
        memory_bytes, cpu_s = await trio.to_thread.run_sync(_read, [info.pid for info in infos])
        return {
            "guests": len(infos),
            "up": sum(info.status == "up" for info in infos),
            "restarts": sum(info.restarts for info in infos),
            "memory_bytes": memory_bytes,
            "cpu_s": cpu_s,
        }

    async def _work(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Run requests, or wait for some under way; long ones are answered later."""
        _pool, holdings = self._opened()
        for name, data in message["blobs"].items():
            holdings.take_blob(name, data)
        for digest, packed in message["trees"].items():
            holdings.take_tree(digest, packed)
        numbers: list[int] = list(message["collect"])
        for number, plain in message["runs"]:
            if number in self._unwanted:
                continue
            numbers.append(number)
            run = holdings.run(plain, number)
            if isinstance(run, GuestRequest):
                self._under_way[number] = _UnderWay(trio.CancelScope(), plain)
                self._queued[number] = run
                holdings.begin(plain)
            else:
                self._seen[number] = {"missing": run}
        self._begin()
        done = await self._wait(numbers)
        kills, self._kills = self._kills, []
        return {
            "seen": [[number, self._seen.pop(number)] for number in done],
            "later": [number for number in numbers if number in self._under_way],
            "kills": kills,
        }

    async def _wait(self, numbers: list[int]) -> list[int]:
        """Wait until all requests have finished, or the others take too long; return the finished ones."""

        def under_way() -> bool:
            return any(number in self._under_way for number in numbers)

        while under_way() and not any(number in self._seen for number in numbers):
            await self._progress.wait()
        ends_at = trio.current_time() + LINGER_S
        with trio.CancelScope() as scope:
            while under_way():
                busy = len(self._under_way) > self._pace.processes
                scope.deadline = ends_at if busy else min(ends_at, trio.current_time() + GAP_S)
                await self._progress.wait()
        return [number for number in numbers if number in self._seen]

    def _begin(self) -> None:
        """Begin with queued requests as far as the processes should have them.

        Requests of sessions begin at once, since they wait for the process of their own.
        """
        room = self._pace.at_once
        for number, run in list(self._queued.items()):
            if run.session is not None or len(self._under_way) - len(self._queued) < room:
                del self._queued[number]
                self._nursery.start_soon(self._do, number, run, self._under_way[number])

    async def _do(self, number: int, run: GuestRequest, under_way: _UnderWay) -> None:
        pool = self._pool
        answer: dict[str, Any] | None = None
        try:
            with under_way.scope:
                try:
                    if pool is None:
                        raise EngineClosed("the node was closed")
                    seen = await pool.run(run)
                    if seen.result is not None:
                        self._pace.saw(seen.result.ran_s)
                    answer = {"result": row_of(seen)}
                except EvocellError as error:
                    answer = {"gone": error.message[:2000]}
        finally:
            self._end(number, answer)
            self._begin()

    def _end(self, number: int, answer: dict[str, Any] | None) -> None:
        """Store the answer to a request that is not under way any more; None if nothing waits for it."""
        self._queued.pop(number, None)
        run = self._under_way.pop(number, None)
        if run is not None and self._holdings is not None:
            self._holdings.end(run.plain)
        if answer is not None:
            self._seen[number] = answer
        self._progress.set()
        self._progress = trio.Event()

    def _opened(self) -> tuple[HostPool, Holdings]:
        if self._pool is None or self._holdings is None:
            raise CopyRefused("not open")
        return self._pool, self._holdings

    def _note_kill(self, kill: WorkerKill) -> None:
        if len(self._kills) < _MOST_KILLS:
            numbers = [int(one) for one in kill.sandbox_ids]
            told = {"worker": kill.worker, "limit": kill.limit, "reached": kill.reached, "runs": numbers}
            self._kills.append(told)


def _read(pids: list[int | None]) -> tuple[int, float]:
    """Return the total memory and processor seconds of processes; ended ones count as zero."""
    memory_bytes, cpu_s = 0, 0.0
    for pid in pids:
        if pid is None:
            continue
        try:
            process = psutil.Process(pid)
            times = process.cpu_times()
            memory_bytes += own_memory(process)
            cpu_s += times.user + times.system
        except psutil.Error:
            continue
    return memory_bytes, cpu_s
