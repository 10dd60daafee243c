"""Engine side of a node: its state, its cached data, and its requests under way."""

from __future__ import annotations

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
"""Longer items are sent in pieces, ahead of requests that need them; Dask warns of arguments from 10 MB."""

INLINE_BYTES = 256 << 10
"""Most bytes of items sent with a batch; others are sent ahead of it."""

ASK_S = 60.0
"""Timeout of a node's answer to messages that are not about guest requests."""

_MISSES = 3
_SENTENCE_CHARS = 500


@define(eq=False)
class Waiting:
    """A request that a task waits for.

    Attributes:
        run: The request.
        number: Its number in messages.
        packed: The request in transferable form.
        suspect: Whether it, or another request in its batch, may have killed a node; then it is sent alone.
        missed: Number of times a node lacked data for it.
        node: The node it is on; None while it waits to be sent.
        seen: Its result.
        lost: Why it was lost with its node.
        error: Why it cannot be done at all.
        over: Set when one of the last three is set.
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
        """Wake the waiting task with the result; only the first call counts."""
        if not self.over.is_set():
            self.seen, self.lost, self.error = seen, lost, error
            self.over.set()


class RemoteNode:
    """A node of the pool, from joining to end.

    Args:
        address: The pool's address of its process.
        name: Its name.
        link: The pool.
        luggage: Packs the data of requests.
        export: Returns the file with an image's snapshot, which is written once.
        own_image: Id of the default image.
        on_kill: Called when it killed a guest process for its memory.
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
        self.own_queue: deque[Waiting] = deque()
        """Requests of sessions on this node."""
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
        self._back = 0
        self._asking_back = False
        self._may_back = 0
        """Requests that it was asked to give back and has not."""
        self._orders = trio.Event()
        self._readings: dict[str, float] = {}

    @property
    def is_up(self) -> bool:
        """Whether it accepts requests."""
        return self.status == "up" and self._nursery is not None

    @property
    def room(self) -> int:
        """Number of further requests to assign."""
        return max(0, self.pace.window - len(self.in_flight)) if self.is_up else 0

    @property
    def is_full(self) -> bool:
        """Whether it has a batch to begin when it is done with another, so that a further node had work."""
        return len(self.in_flight) > self.pace.batch

    @property
    def load(self) -> float:
        """Requests under way per guest process."""
        return len(self.in_flight) / max(1, self.processes)

    @property
    def has_suspect(self) -> bool:
        """Whether it has a suspect request, which may have killed a node."""
        return any(waiting.suspect for waiting in self.in_flight.values())

    def come_up(self, processes: int) -> None:
        """Mark it as accepting requests."""
        self.processes = processes
        self.pace = Pace(processes)
        self.status = "up"

    def refuse(self, why: str) -> None:
        """Assign no more requests, and move those under way to other nodes."""
        self.status, self.problem = "refused", why[:_SENTENCE_CHARS]
        self.lose(NodeLost(why, told=True))

    def leave(self, lost: NodeLost) -> None:
        """Mark it as lost."""
        self.status = "starting"
        self._living.cancel()
        self.lose(lost)

    def lose(self, lost: NodeLost) -> None:
        """Fail all tasks that wait for this node."""
        for waiting in [*self.in_flight.values(), *self.own_queue]:
            waiting.settle(lost=lost)
        self.in_flight.clear()
        self.own_queue.clear()

    def info(self) -> WorkerInfo:
        """Return its state."""
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
        """Send it a message, and wait for the answer.

        Raises:
            NodeLost: It was lost, or does not answer.
            NodeFailed: It refuses, or fails.
            ProtocolError: Its answer is malformed.
        """
        with trio.move_on_after(timeout_s):
            answers = await self._link.ask([self.address], pack(message))
            answer = answers.get(self.address)
            if isinstance(answer, bytes):
                return self.told(answer)
            raise answer or NodeLost(f"{self.name} is gone")
        raise NodeLost(f"{self.name} has not answered for {timeout_s:g} s")

    def told(self, data: bytes, max_bytes: int = BRIEF_BYTES) -> dict[str, Any]:
        """Decode an answer.

        Raises:
            NodeFailed: It refuses.
            ProtocolError: The answer is malformed.
        """
        answer = read_answer(data, max_bytes)
        if "refused" in answer:
            raise NodeFailed(f"{self.name}: {str(answer['refused'])[:2000]}")
        return answer

    def read(self, answer: Mapping[str, Any]) -> None:
        """Store its readings."""
        for key in ("memory_bytes", "cpu_s", "guests", "up"):
            value = answer.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1 << 62:
                self._readings[key] = value

    async def ship(self, kind: str, name: str, data: bytes) -> dict[str, Any]:
        """Send a long item in pieces; returns the answer to the last."""
        answer: dict[str, Any] = {}
        for offset in range(0, max(1, len(data)), PIECE_BYTES):
            piece = {"op": "piece", "kind": kind, "name": name, "offset": offset, "total": len(data)}
            answer = await self.ask(
                {**piece, "data": data[offset : offset + PIECE_BYTES]}, timeout_s=10 * ASK_S
            )
        return answer

    # ------------------------------------------------------------------ orders

    def stop(self, number: int) -> None:
        """Queue an order to stop a request."""
        if self.in_flight.pop(number, None) is not None:
            self._cancel.append(number)
            self._orders.set()

    def give_back(self, count: int) -> None:
        """Queue an order to give back requests that it has not begun, unless there is one already."""
        if not self._back and not self._asking_back:
            self._back = count
            self._orders.set()

    def end_session(self, session: str) -> None:
        """Queue an order to end a session."""
        self.sessions.discard(session)
        self._end.append(session)
        self._orders.set()

    async def live(self) -> None:
        """Send batches and queued orders until it leaves."""
        with self._living:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                while True:
                    await self._orders.wait()
                    self._orders = trio.Event()
                    orders = {"op": "orders", "cancel": self._cancel, "end": self._end, "back": self._back}
                    self._asking_back = self._back > 0
                    self._may_back += self._back
                    self._cancel, self._end, self._back = [], [], 0
                    try:
                        await self.ask(orders)
                    except NodeLost:
                        continue  # its loss is detected by the watch on members
                    except (NodeFailed, ProtocolError) as error:
                        self.refuse(str(error))
                    finally:
                        self._asking_back = False

    # ------------------------------------------------------------------ runs

    def begin(self, batch: Collection[Waiting], again: Callable[[Waiting], None]) -> None:
        """Send a batch of requests to a live node; waiting tasks get the results.

        Args:
            batch: The requests.
            again: Called with each that is to be resent, here or elsewhere.
        """
        for waiting in batch:
            waiting.node = self
            self.in_flight[waiting.number] = waiting
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
        except EvocellError as error:  # a local failure: a tree that does not exist any more
            for waiting in batch:
                self.in_flight.pop(waiting.number, None)
                waiting.settle(error=error)

    def _drop(self, waiting: Waiting, lost: NodeLost) -> None:
        if self.in_flight.pop(waiting.number, None) is not None:
            waiting.settle(lost=lost)

    async def _message(self, batch: Collection[Waiting]) -> dict[str, Any]:
        """Build the message of a batch with its data, sending long items ahead."""
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
        """Ensure that the node has an image, sending the snapshot if need be; it is compiled there."""
        answer = await self.ask({"op": "has_image", "image": image})
        if answer.get("here") is not True:
            path = await self._export(image)
            data = await trio.Path(path).read_bytes()
            await self.ship("image", image, data)
        self._images.add(image)

    async def _ahead(self, kind: str, things: dict[str, bytes]) -> dict[str, bytes]:
        """Send the items ahead that are too long for a batch; returns the others."""
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
        """Process the results in an answer; returns the requests still under way.

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
        for waiting in asked.values():  # neither: they were stopped by an order
            self._drop(waiting, NodeLost(f"{self.name} knows nothing of a run", told=True))
        return left

    def _take_one(self, waiting: Waiting, answer: object, again: Callable[[Waiting], None]) -> None:
        if not isinstance(answer, dict):
            raise ProtocolError("its answer says nothing of a run")
        if self.in_flight.get(waiting.number) is not waiting:
            return  # no task waits for it any more
        if "result" in answer:
            seen = read_result(answer["result"], waiting.run.limits)
            del self.in_flight[waiting.number]
            self.finished += 1
            if seen.result is not None:
                self.pace.saw(seen.result.ran_s)
            waiting.settle(seen=seen)
        elif "back" in answer:
            self._come_back(waiting, again)
        elif "missing" in answer:
            self._forget(answer["missing"], waiting)
            del self.in_flight[waiting.number]
            waiting.node = None
            again(waiting)
        else:
            lost = f"{self.name} lost it: {str(answer.get('gone'))[:_SENTENCE_CHARS]}"
            self._drop(waiting, NodeLost(lost))

    def _come_back(self, waiting: Waiting, again: Callable[[Waiting], None]) -> None:
        """Queue a request again that the node has not begun."""
        if not self._may_back:
            raise ProtocolError("it gives back what it was not asked for")
        self._may_back -= 1
        del self.in_flight[waiting.number]
        waiting.node = None
        again(waiting)

    def _forget(self, missing: object, waiting: Waiting) -> None:
        """Record the data that the node lacks although it was believed to have it."""
        waiting.missed += 1
        if not isinstance(missing, dict) or waiting.missed > _MISSES:
            raise ProtocolError("it misses again and again what it was sent")
        for name in _names(missing.get("blob")):
            self._blobs.forget(name)
        for digest in _names(missing.get("tree")):
            self._trees.forget(digest)
        self._images.difference_update(_names(missing.get("image")))

    def _tell_kill(self, kill: object) -> None:
        """Report a guest process killed for its memory, if the node's report is valid."""
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
