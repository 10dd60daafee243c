"""Many Dask workers in one process, whose nodes sleep instead of running guests: `python -m measures.stub_nodes`.

Everything else is real: the workers, their connections to a real scheduler, and the engine that uses them. The
answers are those that a real guest gave once.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import Future
from heapq import heapify, heapreplace
from pathlib import Path
from typing import Any

from distributed import Worker

import evocell.integrations.dask_worker as on_dask
from evocell.integrations.cluster.messages import pack, unpack
from evocell.integrations.cluster.node import Machine, NodeDoor

_MOST_SHOWN_S = 3600.0


class StubDoor:
    """A node without guests: each run takes a guest that is there as long as it was told.

    Args:
        machine: Its threads count as guest processes.
    """

    run_s = 0.0
    answers: dict[str, bytes]
    real_hello: bytes

    def __init__(self, machine: Machine) -> None:
        self._loop = asyncio.get_running_loop()
        self._free_at = [0.0] * machine.threads
        heapify(self._free_at)

    def answer(self, data: bytes) -> Future[bytes]:
        """Answer as a node would, after the time that its guests would take."""
        message, future = unpack(data), Future[bytes]()
        answer, delay_s = self._answer(message)
        self._loop.call_soon_threadsafe(self._loop.call_later, delay_s, future.set_result, answer)
        return future

    def close(self) -> None:
        """Nothing lives here."""

    def _answer(self, message: dict[str, Any]) -> tuple[bytes, float]:
        match message["op"]:
            case "hello":
                return self.real_hello, 0.0
            case "open":
                facts = {"image_there": message["image_id"], "snapshot_sha256": message["snapshot_sha256"]}
                return pack({**facts, "processes": len(self._free_at)}), 0.0
            case "work":
                return self._work(message)
        return pack({"here": True}), 0.0

    def _work(self, message: dict[str, Any]) -> tuple[bytes, float]:
        now = time.monotonic()
        over = now
        seen = []
        for number, plain in message["runs"]:
            kind, took_s = ("compile", 0.001) if plain["app"] is None else ("call", self.run_s)
            begins = max(now, self._free_at[0])
            heapreplace(self._free_at, begins + took_s)
            over = max(over, begins + took_s)
            seen.append([number, {"result": unpack(self.answers[kind])["row"]}])
        return pack({"seen": seen, "later": [], "kills": []}), over - now


async def _serve(scheduler: str, number: int, first: int) -> None:
    workers = [
        Worker(scheduler, nthreads=1, name=f"stub-{first + n}", memory_limit=0, dashboard=False)
        for n in range(number)
    ]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))


def main() -> None:
    """Serve until killed: scheduler, number of workers, the first one's number, seconds of a run, file of answers."""
    scheduler, number, first, run_s, file = sys.argv[1:]
    StubDoor.run_s = min(_MOST_SHOWN_S, float(run_s))
    StubDoor.answers = unpack(Path(file).read_bytes())
    real = NodeDoor(Machine(name="real", threads=1))
    StubDoor.real_hello = real.answer(pack({"op": "hello"})).result()
    real.close()
    vars(on_dask)["NodeDoor"] = StubDoor
    asyncio.run(_serve(scheduler, int(number), int(first)))


if __name__ == "__main__":
    main()
