"""Host of guests on a pool's nodes; implements `evocell.execution.messages.Host`.

Requests wait in one queue. A node gets as many as keep its guest processes busy during a round trip, in
batches if they are short. Requests of a node that died go to another one; a request with which three nodes
died, the last two without another such request, is lost. Sessions of sandboxes stay on the caller's machine.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import trio

from evocell.errors import ClusterLost, ConfigurationError, EngineClosed, ProtocolError
from evocell.execution.messages import GuestRequest, GuestResult
from evocell.guests.scratch import OwnedDirectory
from evocell.integrations.cluster.home import Home
from evocell.integrations.cluster.joining import Terms
from evocell.integrations.cluster.luggage import Luggage
from evocell.integrations.cluster.messages import pack
from evocell.integrations.cluster.protocol import Link, NodeFailed, NodeLost
from evocell.integrations.cluster.remote import RemoteNode, Waiting
from evocell.models.info import WorkerInfo, WorkerKill

__all__ = ["ClusterHost"]

TRIES, MOST_TRIES = 3, 6
"""Most nodes that may die with a request; one more, up to a bound, for each that died without it."""

LOOK_S = 5.0
"""Seconds between two polls of a few nodes; many nodes are polled less often."""

NODES_PER_LOOK_S = 16
TROUBLE_S = 3.0
"""Seconds for which the pool may be unreachable before waiting requests fail."""

WORTH_S = 0.03
"""Seconds of work not begun from which a node is asked to give requests back, which costs two messages."""

_LEAST_SLOTS = 4
_MESSAGE_RUNS = 64
_POLL_S = 0.5


class ClusterHost:
    """Distributes requests over nodes.

    Args:
        link: The pool.
        terms: Requirements on nodes.
        luggage: Packs the data of requests.
        home: The processes of this machine.
        patience_s: Seconds for which requests wait without a node.
    """

    def __init__(self, link: Link, terms: Terms, luggage: Luggage, home: Home, *, patience_s: float) -> None:
        self._link = link
        self._terms = terms
        self._luggage = luggage
        self._home = home
        self._patience_s = patience_s
        self._nodes: dict[str, RemoteNode] = {}
        self._restarts: dict[str, int] = {}
        self._queue: deque[Waiting] = deque()
        self._suspects: deque[Waiting] = deque()
        self._sessions: dict[str, RemoteNode] = {}
        self._numbers = count(1)
        self._stir = trio.Event()
        self._changed = trio.Event()
        self._slots = _LEAST_SLOTS
        self._held_since = math.inf
        self._exported: dict[str, Path] = {}
        self._exporting = trio.Lock()
        self._directory: OwnedDirectory | None = None
        self._deaths = 0
        self._opened = False
        self._closed = False
        self._trouble: str | None = None
        self._alone_since = math.inf
        self.on_kill: Callable[[WorkerKill], None] | None = None

    # ------------------------------------------------------------------ runs

    @property
    def slots(self) -> int:
        """Number of requests that the nodes can usefully have under way; a few without nodes."""
        return self._slots

    async def wait_slots(self, seen: int) -> int:
        """Wait until `slots` is another number than `seen`, and return it."""
        while self._slots == seen:
            await self._changed.wait()
        return self._slots

    async def run(self, request: GuestRequest) -> GuestResult:
        """Run one request on a node, or locally if its session is local; see `Host`.

        Raises:
            ClusterLost: The pool cannot be reached, or has no node.
        """
        if request.session is not None and not request.passing:
            return await (await self._home.started()).run(request)
        packed = self._luggage.pack(request)
        tries, lost, before = 0, "the node is gone", self._deaths
        while tries < min(MOST_TRIES, TRIES + max(0, self._deaths - before - tries)):
            if self._closed:
                raise EngineClosed("the engine is closed")
            if self._trouble is not None:
                raise ClusterLost(self._trouble)
            waiting = Waiting(request, next(self._numbers), packed, suspect=tries > 0)
            await self._have_done(waiting)
            if waiting.error is not None:
                raise waiting.error
            if waiting.seen is not None:
                if request.session is not None and waiting.seen.unforked is not None:
                    self._unsettle(request.session)
                return waiting.seen
            assert waiting.lost is not None
            lost = waiting.lost.message
            tries += not waiting.lost.told
            if request.session is not None:
                break
        return GuestResult(lost=lost)

    async def _have_done(self, waiting: Waiting) -> None:
        """Wait for a request; it is stopped if the wait is cancelled."""
        self._enqueue(waiting)
        try:
            await waiting.over.wait()
        except trio.Cancelled:
            self._withdraw(waiting)
            raise
        finally:
            self._stir.set()

    def _enqueue(self, waiting: Waiting) -> None:
        home = None if waiting.run.session is None else self._sessions.get(waiting.run.session)
        if home is not None:
            home.own_queue.append(waiting)
        elif waiting.suspect:
            self._suspects.append(waiting)
        else:
            self._queue.append(waiting)
        self._stir.set()

    def _again(self, waiting: Waiting) -> None:
        """Resend a request at once for which a node lacked data."""
        home = None if waiting.run.session is None else self._sessions.get(waiting.run.session)
        queue = self._suspects if waiting.suspect else self._queue
        (queue if home is None else home.own_queue).appendleft(waiting)
        self._stir.set()

    def _withdraw(self, waiting: Waiting) -> None:
        if waiting.node is not None:
            waiting.node.stop(waiting.number)
        waiting.settle(error=EngineClosed("nobody waits for it"))
        for queue in (self._queue, self._suspects, *(node.own_queue for node in self._nodes.values())):
            with suppress(ValueError):
                queue.remove(waiting)

    # ------------------------------------------------------------------ dealing

    async def _deal(self) -> None:
        """Dispatch waiting requests to nodes whenever there is room."""
        wait_s = math.inf
        while True:
            with trio.move_on_after(wait_s):
                await self._stir.wait()
            self._stir = trio.Event()
            # Collects the requests that were started in the same turn of the loop.
            await trio.lowlevel.checkpoint()
            self._count_slots()
            wait_s = self._give()

    def _give(self) -> float:
        """Dispatch as much as possible; returns the seconds until a held batch is due."""
        up = [node for node in self._nodes.values() if node.is_up]
        for node in up:
            batch = [node.own_queue.popleft() for _ in range(min(node.room, len(node.own_queue)))]
            self._send(node, batch)
        while self._suspects:
            calm = [node for node in up if node.room and not node.has_suspect]
            if not calm:
                break
            self._send(min(calm, key=_load), [self._suspects.popleft()])
        while self._queue:
            free = [node for node in up if node.room]
            if not free:
                break
            node = min(free, key=_load)
            hungry = sum(len(one.in_flight) < one.pace.batch for one in free)
            fair = math.ceil(len(self._queue) / max(1, hungry))
            size = min(node.pace.batch, node.room, fair, _MESSAGE_RUNS)
            if size < node.pace.batch:
                now = trio.current_time()
                self._held_since = min(self._held_since, now)
                left_s = self._held_since + node.pace.hold_s(len(node.in_flight)) - now
                if left_s > 0:
                    return left_s
            self._held_since = math.inf
            self._send(node, [self._queue.popleft() for _ in range(size)])
        if not self._queue:
            self._level(up)
        return math.inf

    def _level(self, up: list[RemoteNode]) -> None:
        """Ask busy nodes for requests that they have not begun, if others have nothing to do."""
        for idle in up:
            want = idle.processes - len(idle.in_flight)
            busy = max(up, key=_load)
            spare = len(busy.in_flight) - busy.processes
            if want > 0 and spare > 0 and busy.pace.left_s(spare) > WORTH_S:
                busy.give_back(min(want, math.ceil(spare / 2)))

    def _send(self, node: RemoteNode, batch: list[Waiting]) -> None:
        batch = [waiting for waiting in batch if not waiting.over.is_set()]
        if not batch:
            return
        for waiting in batch:
            if (session := waiting.run.session) is not None:
                self._sessions[session] = node
                node.sessions.add(session)
        node.begin(batch, self._again)

    def _count_slots(self) -> None:
        slots = sum(node.pace.window for node in self._nodes.values() if node.is_up) or _LEAST_SLOTS
        if slots != self._slots:
            self._slots = slots
            self._tell()

    # ------------------------------------------------------------------ nodes

    async def supervise(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the pool until cancelled. Reports started once a node accepts requests.

        Raises:
            ClusterLost: No node joined in time, or every one was refused.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deal)
            nursery.start_soon(self._look)
            nursery.start_soon(self._follow, nursery)
            nursery.start_soon(self._mind_trouble)
            await self._wait_first()
            self._opened = True
            task_status.started()

    async def _wait_first(self) -> None:
        with trio.move_on_after(self._patience_s):
            while not any(node.is_up for node in self._nodes.values()):
                refused = [node.problem for node in self._nodes.values() if node.status == "refused"]
                if refused and len(refused) == len(self._nodes):
                    raise ClusterLost(
                        f"no node of {self._link.label} can be used: {'; '.join(map(str, refused))}"
                    )
                if self._trouble is not None:
                    raise ClusterLost(self._trouble)
                await self._changed.wait()
            return
        raise ClusterLost(self._no_node())

    def _no_node(self) -> str:
        refused = [str(node.problem) for node in self._nodes.values() if node.status == "refused"]
        why = f" ({'; '.join(refused)})" if refused else ""
        return (
            f"{self._link.label} has had no node that takes work for {self._patience_s:g} s{why}; "
            f"start some, "
            "and evaluate again: what was finished is in the store"
        )

    async def _follow(self, nursery: trio.Nursery) -> None:
        """Let new nodes join, and drop lost ones."""
        while True:
            members = dict(self._link.members)
            for address in self._nodes.keys() - members.keys():
                self._let_go(self._nodes.pop(address))
            for address in members.keys() - self._nodes.keys():
                node = self._nodes[address] = self._new_node(address, members[address])
                nursery.start_soon(self._welcome, node)
            self._tell()
            self._stir.set()
            await self._link.wait_change()

    def _new_node(self, address: str, name: str) -> RemoteNode:
        node = RemoteNode(
            address,
            name,
            self._link,
            self._luggage,
            export=self._export,
            own_image=self._terms.manifest.image_id,
            on_kill=self._tell_kill,
        )
        node.restarts = self._restarts.get(name, 0)
        return node

    async def _welcome(self, node: RemoteNode) -> None:
        try:
            await self._terms.join(node)
        except NodeLost as lost:
            node.leave(lost)
            return
        except (NodeFailed, ProtocolError) as error:
            node.refuse(str(error))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.live)
            await trio.lowlevel.checkpoint()
            self._tell()
            self._stir.set()

    def _let_go(self, node: RemoteNode) -> None:
        self._restarts[node.name] = node.restarts + 1
        told = self._link.left_in_order(node.address)
        how = "was taken out of the pool" if told else "died"
        self._deaths += node.is_up and not told
        node.leave(NodeLost(f"{node.name} ({node.address}) {how} with calls under way", told=told))
        for session in node.sessions:
            self._sessions.pop(session, None)

    async def _look(self) -> None:
        """Poll the nodes' state periodically, which also renews their leases."""
        while True:
            up = [node for node in self._nodes.values() if node.is_up]
            await trio.sleep(max(LOOK_S, len(up) / NODES_PER_LOOK_S))
            await self._look_at(up)

    async def _look_at(self, nodes: list[RemoteNode]) -> None:
        nodes = [node for node in nodes if node.is_up]
        if not nodes:
            return
        answers: Mapping[str, Any] = {}
        with trio.move_on_after(LOOK_S * 3):
            answers = await self._link.ask([node.address for node in nodes], pack({"op": "look"}))
        for node in nodes:
            answer = answers.get(node.address)
            if isinstance(answer, bytes):
                try:
                    node.read(node.told(answer))
                except (NodeFailed, ProtocolError) as error:
                    node.refuse(str(error))

    async def _mind_trouble(self) -> None:
        """Fail waiting requests when the pool is unreachable, or has been without nodes for too long."""
        since = math.inf
        want = 0
        while True:
            await trio.sleep(_POLL_S)
            now = trio.current_time()
            since = min(since, now) if self._link.trouble is not None else math.inf
            up = [node for node in self._nodes.values() if node.is_up]
            n_up = len(up)
            self._alone_since = math.inf if n_up else min(self._alone_since, now)
            self._trouble = None
            if now - since > TROUBLE_S:
                self._trouble = f"{self._link.trouble}; what was finished before is in the store"
            elif now - self._alone_since > self._patience_s:
                self._trouble = self._no_node()
            if self._trouble is not None:
                self._fail(ClusterLost(self._trouble))
                self._tell()
                if since == math.inf:
                    self._alone_since = now  # later requests get the full time again
                    self._trouble = None
            waits = bool(self._queue or self._suspects)
            behind = waits or not self._opened or (n_up > 0 and all(node.is_full for node in up))
            wanted = max(1, n_up) if behind else 0
            if wanted != want and self._link.trouble is None:
                want = wanted
                await self._link.want(want)

    def _fail(self, error: ClusterLost) -> None:
        waiting = [*self._queue, *self._suspects]
        for node in self._nodes.values():
            waiting += [*node.in_flight.values(), *node.own_queue]
            node.in_flight.clear()
            node.own_queue.clear()
        self._queue.clear()
        self._suspects.clear()
        for one in waiting:
            one.settle(error=error)

    async def _export(self, image: str) -> Path:
        """Return the file with an image's snapshot, which is written once."""
        async with self._exporting:
            if image not in self._exported:
                if self._directory is None:
                    self._directory = OwnedDirectory()
                path = self._directory.path / f"{image}.image"
                await (await self._home.started()).export_image(image, path)
                self._exported[image] = path
            return self._exported[image]

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _tell_kill(self, kill: WorkerKill) -> None:
        if self.on_kill is not None:
            self.on_kill(kill)

    # ------------------------------------------------------------------ the rest of a host

    async def end_session(self, session: str) -> None:
        """Drop a session, asynchronously if it is on a node; see `Host`."""
        node = self._unsettle(session)
        if node is None and self._home.pool is not None:
            await self._home.pool.end_session(session)

    def _unsettle(self, session: str) -> RemoteNode | None:
        node = self._sessions.pop(session, None)
        if node is not None:
            node.end_session(session)
        return node

    async def fork_session(self, session: str, new: str) -> bool:
        """Copy a local session's state; see `Host`."""
        return await (await self._home.started()).fork_session(session, new)

    async def freeze_session(
        self, request: GuestRequest, *, name: str, replace: bool, version: str | None
    ) -> str:
        """Freeze a local session into an image; see `Host`."""
        home = await self._home.started()
        return await home.freeze_session(request, name=name, replace=replace, version=version)

    async def export_session(self, session: str) -> dict[str, Any] | None:
        """Export a local session's state; see `Host`."""
        return await (await self._home.started()).export_session(session)

    async def import_session(self, session: str, state: Mapping[str, Any]) -> None:
        """Create a local session from exported state; see `Host`."""
        await (await self._home.started()).import_session(session, state)

    async def export_image(self, image: str | None, path: Path) -> str:
        """Write an image to a local file; see `Host`."""
        return await (await self._home.started()).export_image(image, path)

    async def import_image(self, path: Path, *, name: str | None, replace: bool) -> str:
        """Make an image from a local file; see `Host`."""
        return await (await self._home.started()).import_image(path, name=name, replace=replace)

    def session_home(self, session: str) -> str | None:
        """Return the name of the node or process that holds a session; None if none does."""
        if (node := self._sessions.get(session)) is not None:
            return node.name
        return None if self._home.pool is None else self._home.pool.session_home(session)

    def workers(self) -> list[WorkerInfo]:
        """Return the state of each node, and of the local processes once they are started."""
        nodes = sorted(self._nodes.values(), key=lambda node: (len(node.name), node.name))
        return [*(node.info() for node in nodes), *self._home.workers()]

    async def drain(self, name: str) -> None:
        """Replace a local process; see `Host`.

        Raises:
            ConfigurationError: It is a node, which only its pool can drain.
        """
        if any(node.name == name for node in self._nodes.values()):
            raise ConfigurationError(
                f"{name!r} is a node of {self._link.label}, which can take it out "
                f"(client.retire_workers); its "
                "calls are then made elsewhere",
                "name",
            )
        await (await self._home.started()).drain(name)

    async def wait_session_losses(self, seen: int) -> int:
        """Wait until the count of lost local sessions exceeds `seen`; see `Host`."""
        return await self._home.wait_session_losses(seen)

    async def aclose(self) -> None:
        """Refuse further requests; nodes end with the pool's link. Idempotent."""
        self._closed = True
        for waiting in [*self._queue, *self._suspects]:
            waiting.settle(error=EngineClosed("the engine is closed"))
        for node in self._nodes.values():
            for waiting in [*node.in_flight.values(), *node.own_queue]:
                waiting.settle(error=EngineClosed("the engine is closed"))
        await self._home.aclose()
        if self._directory is not None:
            self._directory.close()


def _load(node: RemoteNode) -> float:
    return node.load
