"""A node as the engine sees it: what it is, what it was sent, and the runs that are on their way there."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from evocell.errors import EvocellError, ProtocolError
from evocell.execution.messages import GuestRequest, GuestResult
from evocell.integrations.cluster.holdings import BLOBS_BYTES, TREES_BYTES, tree_weight
from evocell.integrations.cluster.luggage import Luggage, Packed
from evocell.integrations.cluster.messages import (
    BRIEF_BYTES,
    pack,
    read_answer,
    read_result,
    room_for,
)
from evocell.integrations.cluster.pace import Pace
from evocell.integrations.cluster.protocol import Link, NodeFailed, NodeLost
from evocell.lru import LruCache
from evocell.models.info import WorkerInfo, WorkerKill, WorkerStatus

__all__ = ["RemoteNode", "Waiting"]

PIECE_BYTES = 4 << 20
"""Longer things travel in pieces, ahead of the runs that need them; Dask warns of long arguments at 10 MB."""

INLINE_BYTES = 256 << 10
"""What travels with a batch at most; the rest goes ahead of it."""

ASK_S = 60.0
"""How long a node may take to answer a question that is not about runs."""

_MISSES = 3
_SENTENCE_CHARS = 500


@define(eq=False)
class Waiting:
    """A run that a task waits for.

    Attributes:
        run: The run.
        number: What it is called in messages.
        packed: The run as it travels.
        suspect: Whether a node died of it, or of one beside it; then it travels alone.
        missed: How often a node missed something for it.
        node: Where it is; None while it waits to be sent.
        seen: What was seen of it.
        lost: Why it is lost with its node.
        error: Why it cannot be done at all.
        over: Set when one of the last three is there.
    """

    run: GuestRequest
    number: int
    packed: Packed
    suspect: bool = False
    missed: int = 0
    node: RemoteNode | None = None
    seen: GuestResult | None = None
    lost: NodeLost | None = None
    error: BaseException | None = None
    over: trio.Event = field(factory=trio.Event)

    def settle(
        self,
        *,
        seen: GuestResult | None = None,
        lost: NodeLost | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Wake the task that waits, with the result; only the first time counts."""
        if not self.over.is_set():
            self.seen, self.lost, self.error = seen, lost, error
            self.over.set()


class RemoteNode:
    """A node of the pool, from its joining to its end.

    Args:
        address: The pool's name for its process.
        name: What to call it.
        link: The pool.
        luggage: Packs what runs need.
        export: Returns the file that holds an image's snapshot, written once.
        own_image: Id of the image that guests are forked from if a run names none.
        on_kill: Told when it killed a guest process for its memory.
    """

    def __init__(
        self,
        address: str,
        name: str,
        link: Link,
        luggage: Luggage,
        *,
        export: Callable[[str], Awaitable[Path]],
        own_image: str,
        on_kill: Callable[[WorkerKill], None],
    ) -> None:
        self.address = address
        self.name = name
        self.status: WorkerStatus = "starting"
        self.problem: str | None = None
        self.pid: int | None = None
        self.processes = 0
        self.restarts = 0
        self.finished = 0
        self.sessions: set[str] = set()
        self.sent_at = -math.inf
        self.own_queue: deque[Waiting] = deque()
        """Runs in sessions that live here."""
        self.in_flight: dict[int, Waiting] = {}
        self.pace = Pace(1)
        self._link = link
        self._luggage = luggage
        self._export = export
        self._images = {own_image}
        self._on_kill = on_kill
        self._living = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._blobs: LruCache[str, None] = LruCache(BLOBS_BYTES)
        self._trees: LruCache[str, None] = LruCache(TREES_BYTES)
        self._shipping = trio.Lock()
        self._cancel: list[int] = []
        self._end: list[str] = []
        self._orders = trio.Event()
        self._readings: dict[str, float] = {}

    @property
    def is_up(self) -> bool:
        """Whether it takes runs."""
        return self.status == "up" and self._nursery is not None

    @property
    def room(self) -> int:
        """How many more runs it should be given."""
        return max(0, self.pace.window - len(self.in_flight)) if self.is_up else 0

    @property
    def load(self) -> float:
        """Runs that are there for each of its guest processes."""
        return len(self.in_flight) / max(1, self.processes)

    @property
    def has_suspect(self) -> bool:
        """Whether a run is there of which a node may have died."""
        return any(waiting.suspect for waiting in self.in_flight.values())

    def come_up(self, processes: int) -> None:
        """Note that it takes runs from now on."""
        self.processes = processes
        self.pace = Pace(processes)
        self.status = "up"

    def refuse(self, why: str) -> None:
        """Give it no more runs, and have those that are there done elsewhere."""
        self.status, self.problem = "refused", why[:_SENTENCE_CHARS]
        self.lose(NodeLost(why, told=True))

    def leave(self, lost: NodeLost) -> None:
        """Note that it is gone."""
        self.status = "starting"
        self._living.cancel()
        self.lose(lost)

    def lose(self, lost: NodeLost) -> None:
        """Tell those who wait for something here that they wait in vain."""
        for waiting in [*self.in_flight.values(), *self.own_queue]:
            waiting.settle(lost=lost)
        self.in_flight.clear()
        self.own_queue.clear()

    def info(self) -> WorkerInfo:
        """What is seen of it."""
        return WorkerInfo(
            name=self.name,
            pid=self.pid,
            status=self.status,
            sessions=len(self.sessions),
            calls=len(self.in_flight),
            finished=self.finished,
            restarts=self.restarts,
            node=self.address,
            processes=self.processes or None,
            problem=self.problem,
            memory_bytes=int(self._readings["memory_bytes"]) if "memory_bytes" in self._readings else None,
            cpu_s=self._readings.get("cpu_s"),
        )

    # ------------------------------------------------------------------ questions

    async def ask(self, message: Mapping[str, Any], *, timeout_s: float = ASK_S) -> dict[str, Any]:
        """Ask it something that takes it no time, or is worth waiting for.

        Raises:
            NodeLost: It is gone, or does not answer.
            NodeFailed: It refuses, or fails.
            ProtocolError: Its answer makes no sense.
        """
        with trio.move_on_after(timeout_s):
            answers = await self._link.ask([self.address], pack(message))
            answer = answers.get(self.address)
            if isinstance(answer, bytes):
                return self.told(answer)
            raise answer or NodeLost(f"{self.name} is gone")
        raise NodeLost(f"{self.name} has not answered for {timeout_s:g} s")

    def told(self, data: bytes, max_bytes: int = BRIEF_BYTES) -> dict[str, Any]:
        """Read an answer.

        Raises:
            NodeFailed: It refuses.
            ProtocolError: It makes no sense.
        """
        answer = read_answer(data, max_bytes)
        if "refused" in answer:
            raise NodeFailed(f"{self.name}: {str(answer['refused'])[:2000]}")
        return answer

    def read(self, answer: Mapping[str, Any]) -> None:
        """Take note of its readings."""
        for key in ("memory_bytes", "cpu_s", "guests", "up"):
            value = answer.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1 << 62:
                self._readings[key] = value

    async def ship(self, kind: str, name: str, data: bytes) -> dict[str, Any]:
        """Send something long, in pieces; returns the answer to the last."""
        answer: dict[str, Any] = {}
        for offset in range(0, max(1, len(data)), PIECE_BYTES):
            piece = {"op": "piece", "kind": kind, "name": name, "offset": offset, "total": len(data)}
            answer = await self.ask(
                {**piece, "data": data[offset : offset + PIECE_BYTES]}, timeout_s=10 * ASK_S
            )
        return answer

    # ------------------------------------------------------------------ orders

    def stop(self, number: int) -> None:
        """Have a run stopped, soon."""
        if self.in_flight.pop(number, None) is not None:
            self._cancel.append(number)
            self._orders.set()

    def end_session(self, session: str) -> None:
        """Have a session ended, soon."""
        self.sessions.discard(session)
        self._end.append(session)
        self._orders.set()

    async def live(self) -> None:
        """Have batches sent, and tell it what to stop and what to end, until it leaves."""
        with self._living:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                while True:
                    await self._orders.wait()
                    self._orders = trio.Event()
                    orders = {"op": "orders", "cancel": self._cancel, "end": self._end}
                    self._cancel, self._end = [], []
                    try:
                        await self.ask(orders)
                    except NodeLost:
                        continue  # it is seen where members are
                    except (NodeFailed, ProtocolError) as error:
                        self.refuse(str(error))

    # ------------------------------------------------------------------ runs

    def begin(self, batch: Collection[Waiting], again: Callable[[Waiting], None]) -> None:
        """Begin to have runs done, of a node that lives; those who wait for them are told.

        Args:
            batch: The runs.
            again: Called with each that is to be sent again, here or elsewhere.
        """
        for waiting in batch:
            waiting.node = self
            self.in_flight[waiting.number] = waiting
        self.sent_at = trio.current_time()
        assert self._nursery is not None
        self._nursery.start_soon(self._send, batch, again)

    async def _send(self, batch: Collection[Waiting], again: Callable[[Waiting], None]) -> None:
        try:
            message = await self._message(batch)
            left = batch
            while left:
                bound = BRIEF_BYTES + sum(room_for(waiting.run.limits) for waiting in left)
                data = await self._link.work(self.address, pack(message))
                left = self._take_answer(self.told(data, bound), left, again)
                message = {
                    "op": "work",
                    "runs": [],
                    "blobs": {},
                    "trees": {},
                    "collect": [waiting.number for waiting in left],
                }
        except NodeLost as lost:
            for waiting in batch:
                self._drop(waiting, lost)
        except (NodeFailed, ProtocolError) as error:
            self.refuse(f"{self.name} answered with nonsense, or not at all: {error}")
        except EvocellError as error:  # of ours: a tree that is not there any more
            for waiting in batch:
                self.in_flight.pop(waiting.number, None)
                waiting.settle(error=error)

    def _drop(self, waiting: Waiting, lost: NodeLost) -> None:
        if self.in_flight.pop(waiting.number, None) is not None:
            waiting.settle(lost=lost)

    async def _message(self, batch: Collection[Waiting]) -> dict[str, Any]:
        """The message that brings runs, with what they need; what is long is sent ahead."""
        async with self._shipping:
            for image in {waiting.run.image for waiting in batch} - self._images - {None}:
                await self._bring(str(image))
            digests = {digest for waiting in batch for digest in waiting.packed.trees}
            wanted = sorted(digest for digest in digests if digest not in self._trees)
            trees = self._luggage.known_trees(wanted)
            if len(trees) < len(wanted):
                trees = await trio.to_thread.run_sync(self._luggage.trees, wanted)
            parts = (part for waiting in batch for part in waiting.packed.blobs.items())
            blobs = {name: blob for name, blob in parts if name not in self._blobs}
            for name, blob in blobs.items():
                self._blobs.put(name, None, len(blob))
            for digest, packed in trees.items():
                self._trees.put(digest, None, tree_weight(packed))
            blobs = await self._ahead("blob", blobs)
            trees = await self._ahead("tree", trees)
        runs = [[waiting.number, waiting.packed.plain] for waiting in batch]
        return {"op": "work", "runs": runs, "blobs": blobs, "trees": trees, "collect": []}

    async def _bring(self, image: str) -> None:
        """Have an image there: one that is not is sent as a snapshot, and compiled there."""
        answer = await self.ask({"op": "has_image", "image": image})
        if answer.get("here") is not True:
            path = await self._export(image)
            data = await trio.Path(path).read_bytes()
            await self.ship("image", image, data)
        self._images.add(image)

    async def _ahead(self, kind: str, things: dict[str, bytes]) -> dict[str, bytes]:
        """Send ahead what is too long to travel with a batch; returns what is left."""
        left: dict[str, bytes] = {}
        room = INLINE_BYTES
        for name, data in things.items():
            if len(data) <= room:
                left[name] = data
                room -= len(data)
            else:
                await self.ship(kind, name, data)
        return left

    def _take_answer(
        self, answer: Mapping[str, Any], batch: Collection[Waiting], again: Callable[[Waiting], None]
    ) -> list[Waiting]:
        """Take what an answer says of runs; returns those that take longer.

        Raises:
            ProtocolError: It makes no sense.
        """
        seen, later, kills = (answer.get(key) for key in ("seen", "later", "kills"))
        if not isinstance(seen, list) or not isinstance(later, list) or not isinstance(kills, list):
            raise ProtocolError("its answer is not about runs")
        for kill in kills:
            self._tell_kill(kill)
        asked = {waiting.number: waiting for waiting in batch}
        for row in seen:
            if not isinstance(row, list) or len(row) != 2 or row[0] not in asked:  # noqa: PLR2004 - a pair
                raise ProtocolError("its answer is about runs that it does not have")
            self._take_one(asked.pop(row[0]), row[1], again)
        left = [asked.pop(number) for number in later if isinstance(number, int) and number in asked]
        for waiting in asked.values():  # neither: it was told to stop them
            self._drop(waiting, NodeLost(f"{self.name} knows nothing of a run", told=True))
        return left

    def _take_one(self, waiting: Waiting, answer: object, again: Callable[[Waiting], None]) -> None:
        if not isinstance(answer, dict):
            raise ProtocolError("its answer says nothing of a run")
        if self.in_flight.get(waiting.number) is not waiting:
            return  # no task waits any more
        if "result" in answer:
            seen = read_result(answer["result"], waiting.run.limits)
            del self.in_flight[waiting.number]
            self.finished += 1
            if seen.result is not None:
                self.pace.saw(seen.result.ran_s)
            waiting.settle(seen=seen)
        elif "missing" in answer:
            self._forget(answer["missing"], waiting)
            del self.in_flight[waiting.number]
            waiting.node = None
            again(waiting)
        else:
            lost = f"{self.name} lost it: {str(answer.get('gone'))[:_SENTENCE_CHARS]}"
            self._drop(waiting, NodeLost(lost))

    def _forget(self, missing: object, waiting: Waiting) -> None:
        """Take note of what the node does not have, which it was believed to have."""
        waiting.missed += 1
        if not isinstance(missing, dict) or waiting.missed > _MISSES:
            raise ProtocolError("it misses again and again what it was sent")
        for name in _names(missing.get("blob")):
            self._blobs.forget(name)
        for digest in _names(missing.get("tree")):
            self._trees.forget(digest)
        self._images.difference_update(_names(missing.get("image")))

    def _tell_kill(self, kill: object) -> None:
        """Pass on that a guest process was killed for its memory, if what the node says can be read."""
        if not isinstance(kill, dict):
            return
        worker, limit, reached, numbers = (kill.get(key) for key in ("worker", "limit", "reached", "runs"))
        if not (isinstance(limit, int) and isinstance(reached, int) and isinstance(numbers, list)):
            return
        owners = Counter(
            self.in_flight[number].run.sandbox_id
            for number in numbers
            if isinstance(number, int) and number in self.in_flight
        )
        ids = tuple(owner for owner in owners if owner)
        name = f"{self.name}/{str(worker)[:50]}"
        self._on_kill(WorkerKill(worker=name, limit=limit, reached=reached, sandbox_ids=ids))


def _names(value: object) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
