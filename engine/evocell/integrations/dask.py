"""Dask: engines with guests on a cluster's workers.

Only ``with evocell.Engine(cluster=client) as engine:`` changes. Each Dask worker holds a node, with as many
guest processes as it has threads. Dask carries bytes: sources, arguments, limits and seeds of requests one
way, results the other. It pickles the names of the functions below, but no data of guests.

Batches of requests are Dask tasks, each bound to one worker, so they appear on Dask's dashboard and share the
cluster with other users. A task costs the caller, the scheduler and the worker some 5 ms together, so batches
that are answered soon are messages beside the tasks, and a task a second, a turn, stands for them: a node
begins with no such batch before its turn. Urgent messages (joining, stopping, polling) bypass the tasks.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import count
from typing import Any, TypeVar

import trio
from attrs import define, field, frozen
from distributed import Client, Future

from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.errors import ClusterLost, ConfigurationError, EvocellError
from evocell.execution.interface import Worker as GuestWorker
from evocell.integrations.cluster.opening import open_cluster_worker
from evocell.integrations.cluster.protocol import Link, NodeFailed, NodeLost
from evocell.integrations.dask_worker import (
    LATE,
    QUEUED,
    SOON_S,
    TURN_S,
    answer_beside,
    answer_in_turn,
    answer_late,
    answer_soon,
    close_node,
    hold_turn,
)

__all__ = ["DaskCluster", "pool_of"]

CONNECT_S = 10.0
"""Timeout of the scheduler's first answer."""

CLOSE_S = 10.0
"""Timeout of the nodes' end."""

DEMAND_PER_NODE = 10
"""Unschedulable tasks by which an adaptive cluster sees demand for one more worker.

Dask estimates half a second for an unknown task, and by default grows by a thread per five seconds of work.
"""

_MOST_DEMAND = 1000
_POLL_S = 0.25
_GONE_S = 10.0
"""Most seconds for which the scheduler's word is awaited that a worker is gone which does not answer."""
_TURNS = 2
_DEMAND = "evocell-demand"

T = TypeVar("T")

_log = logging.getLogger("evocell")


@frozen(kw_only=True)
class DaskCluster:
    """A Dask cluster for an engine: ``Engine(cluster=DaskCluster(client=client, processes=4))``.

    Attributes:
        client: A client of the cluster, made without ``asynchronous=True``. The engine has a connection of
            its own to the same scheduler, with the same security, and neither uses nor closes this one.
        processes: Guest processes of each node; None for the number of the Dask worker's threads.
        images_dir: Directory of built images that all nodes share, such as one on NFS, which must belong to
            the user that workers run as and be closed to others; None for the user's cache directory of each
            machine.
        patience_s: Seconds for which the engine waits for a node.

    Raises:
        ConfigurationError: A field is invalid.
    """

    client: Client = field()
    processes: int | None = None
    images_dir: str | None = None
    patience_s: float = 120.0

    def __attrs_post_init__(self) -> None:
        """Validate the fields."""
        if not isinstance(self.client, Client):
            raise ConfigurationError(
                f"client must be a distributed.Client, not {type(self.client).__name__}; "
                "write Client(cluster)",
                "client",
            )
        if getattr(self.client, "_asynchronous", False):
            raise ConfigurationError(
                "client was made with asynchronous=True, and an engine needs one that works while its "
                "caller waits; make another: Client(client.scheduler.address)",
                "client",
            )
        if self.processes is not None and self.processes < 1:
            raise ConfigurationError(
                f"processes must be a number of guest processes, or None, not {self.processes!r}", "processes"
            )
        if not self.patience_s > 0:
            raise ConfigurationError(f"patience_s must be above 0, not {self.patience_s!r}", "patience_s")

    def open_worker(
        self,
        config: Config,
        snapshots: SnapshotStore,
        *,
        progress: Callable[..., None] | None = None,
    ) -> AbstractAsyncContextManager[GuestWorker]:
        """Open a worker on the cluster; see `evocell.integrations.cluster.opening`."""
        return open_cluster_worker(self, config, snapshots, progress=progress)

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        """Connect one engine to the scheduler.

        Raises:
            ClusterLost: It does not answer.
        """
        if self.client.status != "running":
            raise ClusterLost(f"the Dask client is {self.client.status}; make a new one, and a new engine")
        scheduler: Any = self.client.scheduler
        address = scheduler.address
        connect = functools.partial(
            Client,
            address,
            security=self.client.security,
            set_as_default=False,
            timeout=CONNECT_S,
            name="evocell",
        )
        try:
            own = await trio.to_thread.run_sync(connect)
        except (OSError, TimeoutError) as error:
            raise ClusterLost(f"the Dask scheduler at {address} does not answer: {error}") from error
        try:
            link = DaskLink(own, address)
            async with trio.open_nursery() as nursery:
                await nursery.start(link.serve)
                yield link
                with trio.move_on_after(CLOSE_S, shield=True):
                    await link.close_nodes()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(functools.partial(_close, own))


def pool_of(cluster: object) -> DaskCluster:
    """Return the pool of a client.

    Raises:
        ConfigurationError: It is not a client.
    """
    if not isinstance(cluster, Client):
        raise ConfigurationError(
            f"cluster must be a distributed.Client or a DaskCluster, not {type(cluster).__name__}; "
            "write Engine(cluster=Client(cluster))",
            "cluster",
        )
    return DaskCluster(client=cluster)


@define
class _Turns:
    """Turns of a node.

    Attributes:
        futures: The tasks that wait for a turn, or have it.
        renewed_at: When the last one was submitted, in seconds.
        soon: Whether its last batch was answered soon.
    """

    futures: list[Future[None]] = field(factory=list)
    renewed_at: float = -math.inf
    soon: bool = False


class DaskLink:
    """One engine's connection to a scheduler; implements `evocell.integrations.cluster.protocol.Link`.

    Args:
        client: The engine's own client.
        address: The scheduler's address.
    """

    def __init__(self, client: Client, address: str) -> None:
        self.label = f"the Dask cluster at {address}"
        self._client: Any = client
        self._address = address
        self._token = secrets.token_hex(8)
        self._loop: asyncio.AbstractEventLoop = client.loop.asyncio_loop  # type: ignore[union-attr]
        self._trio = trio.lowlevel.current_trio_token()
        self._members: dict[str, str] = {}
        self._opened: set[str] = set()
        self._in_order: set[str] = set()
        self._changed = trio.Event()
        self._trouble: str | None = None
        self._numbers = count(1)
        self._demand: list[Future[None]] = []
        self._turns: dict[str, _Turns] = {}
        self._stale = False

    @property
    def members(self) -> Mapping[str, str]:
        """The current workers; see `Link`."""
        return self._members

    @property
    def trouble(self) -> str | None:
        """Why the scheduler is unreachable; see `Link`."""
        return self._trouble

    async def wait_change(self) -> None:
        """Wait until the set of workers may have changed; see `Link`."""
        await self._changed.wait()

    def left_in_order(self, address: str) -> bool:
        """Return whether a lost worker was retired or closed; see `Link`."""
        return address in self._in_order

    # ------------------------------------------------------------------ members

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the scheduler until cancelled. Reports started once the workers are known."""
        await self._attach()
        task_status.started()
        was_there = True
        while True:
            await trio.sleep(_POLL_S)
            is_there = self._client.status == "running"
            if is_there and (self._stale or not was_there):
                try:
                    await self._attach()
                except Exception as error:  # noqa: BLE001 - Dask raises whatever its transport raises
                    _log.warning("%s does not say which workers there are: %s", self.label, error)
                else:
                    self._trouble, was_there = None, True
            elif not is_there and was_there:
                was_there = False
                self._trouble = f"the Dask scheduler at {self._address} does not answer any more"
                self._members.clear()
                self._tell()

    async def _attach(self) -> None:
        async def attach() -> dict[str, Any]:
            self._client.subscribe_topic("all", self._happened)
            identity: dict[str, Any] = await self._client.scheduler.identity(n_workers=-1)
            return identity

        self._stale = False
        identity = await self._on_loop(attach)
        self._trouble = None
        self._members.clear()
        for address, facts in identity["workers"].items():
            self._members[address] = _name(facts.get("name"), address)
        self._tell()

    def _happened(self, event: tuple[float, Any]) -> None:
        """Handle an event of the scheduler; on the client's loop."""
        _, told = event
        if isinstance(told, dict) and told.get("action") in ("add-worker", "remove-worker"):
            with suppress(trio.RunFinishedError):
                self._trio.run_sync_soon(
                    self._note, told["action"], str(told["worker"]), bool(told.get("expected"))
                )

    def _note(self, action: str, address: str, expected: bool) -> None:  # noqa: FBT001 - as the scheduler says it
        if action == "remove-worker":
            self._members.pop(address, None)
            self._opened.discard(address)
            self._turns.pop(address, None)
            if expected:
                self._in_order.add(address)
            self._tell()
        else:
            self._stale = True  # the event lacks its name

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # ------------------------------------------------------------------ messages

    async def ask(self, addresses: Sequence[str], message: bytes) -> dict[str, bytes | EvocellError]:
        """Send a message to nodes, bypassing the tasks; see `Link`."""
        there = [address for address in addresses if address in self._members]
        found: dict[str, bytes | EvocellError] = {
            address: NodeLost(f"{address} is gone") for address in addresses if address not in self._members
        }
        if not there:
            return found
        self._opened.update(there)
        run = functools.partial(
            self._client.run, answer_beside, self._token, message, workers=there, on_error="return"
        )
        try:
            answers = await self._on_loop(run)
        except Exception as error:  # noqa: BLE001 - Dask raises whatever its transport raises
            return found | {address: NodeLost(f"{address} cannot be asked: {error}") for address in there}
        for address in there:
            answer = answers.get(address)
            found[address] = answer if isinstance(answer, bytes) else _failure(address, answer)
        return found

    async def work(self, address: str, message: bytes) -> bytes:
        """Send a message to a node, in its turn or as a task of its worker; see `Link`."""
        if address not in self._members:
            raise NodeLost(f"{address} is gone")
        turns = self._turns.setdefault(address, _Turns())
        begun = trio.current_time()
        answer: object = QUEUED
        ticket = next(self._numbers)
        if turns.soon:
            answer = await self._soon(address, turns, ticket, message)
        if answer == QUEUED:
            answer = await self._task(address, answer_in_turn, message)
        elif answer == LATE:
            answer = await self._task(address, answer_late, ticket)
        turns.soon = trio.current_time() - begun < SOON_S
        if not isinstance(answer, bytes):
            raise NodeFailed(f"{address} answered with something that is no bytes")
        return answer

    async def _soon(self, address: str, turns: _Turns, ticket: int, message: bytes) -> object:
        """Send a message beside the tasks, and see that the node has a turn for it."""

        async def send() -> object:
            now = self._loop.time()
            turns.futures = [future for future in turns.futures if not future.done()]
            if len(turns.futures) < _TURNS and (not turns.futures or now > turns.renewed_at + TURN_S / 2):
                turns.renewed_at = now
                turns.futures.append(self._submit(address, hold_turn))
            answers = await self._client.run(
                answer_soon, self._token, ticket, message, workers=[address], on_error="return"
            )
            return answers.get(address)

        answer: object
        try:
            answer = await self._on_loop(send)
        except Exception as error:  # noqa: BLE001 - Dask raises whatever its transport raises
            answer = error
        if isinstance(answer, bytes | str):
            return answer
        failure = _failure(address, answer)
        if isinstance(failure, NodeLost):
            # Until the scheduler says that it died or was retired, or is itself known to be gone, it would
            # get other batches and lose them.
            with trio.move_on_after(_GONE_S):
                while address in self._members:
                    await self.wait_change()
        raise failure

    async def _task(self, address: str, function: Callable[..., bytes], argument: object) -> object:
        """Have a worker call a function as a task."""

        async def work() -> object:
            future = self._submit(address, function, argument)
            try:
                return await future
            except asyncio.CancelledError:
                await self._cancelled(future)
                raise

        try:
            return await self._on_loop(work)
        except Exception as error:
            raise _failure(address, error) from error

    def _submit(self, address: str, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Submit a task to a worker; on the client's loop."""
        key = f"evocell-{self._token}-{next(self._numbers)}"
        future: Future[T] = self._client.submit(
            function, self._token, *arguments, key=key, workers=[address], pure=False, retries=0
        )
        return future

    async def want(self, nodes: int) -> None:
        """Submit as many unschedulable tasks as an adaptive cluster needs to grow; see `Link`."""
        n_tasks = min(_MOST_DEMAND, nodes * DEMAND_PER_NODE)

        async def change() -> None:
            for future in self._demand[n_tasks:]:
                await self._cancelled(future)
            del self._demand[n_tasks:]
            for _ in range(n_tasks - len(self._demand)):
                key = f"{_DEMAND}-{self._token}-{next(self._numbers)}"
                self._demand.append(
                    self._client.submit(_nothing, key=key, resources={_DEMAND: 1}, pure=False, retries=0)
                )

        with suppress(Exception):  # best effort
            await self._on_loop(change)

    async def _cancelled(self, future: Future[Any]) -> None:
        await self._client.cancel([future])

    async def close_nodes(self) -> None:
        """End the nodes of this engine."""
        await self.want(0)
        there = [address for address in self._opened if address in self._members]
        if there and self._trouble is None:
            run = functools.partial(
                self._client.run, close_node, self._token, workers=there, on_error="return"
            )
            with suppress(Exception):  # an unreachable node ends when its lease expires
                await self._on_loop(run)

    async def _on_loop(self, function: Callable[[], Awaitable[T]]) -> T:
        """Await a coroutine in the client's loop, in another thread.

        Cancellation: It is cancelled there, without waiting.
        """
        over = trio.Event()

        async def await_it() -> T:
            return await function()

        def tell(_: object) -> None:
            with suppress(trio.RunFinishedError):
                self._trio.run_sync_soon(over.set)

        pending = asyncio.run_coroutine_threadsafe(await_it(), self._loop)
        pending.add_done_callback(tell)
        try:
            await over.wait()
        except trio.Cancelled:
            pending.cancel()
            raise
        return pending.result()


def _nothing() -> None:
    """Stand for demand; no worker has the resource for this task."""


def _failure(address: str, error: object) -> EvocellError:
    """Translate an error of Dask to the failure of a node."""
    if isinstance(error, ModuleNotFoundError):
        return NodeFailed(f"{address} cannot import {error.name}; install evocell with the extra dask there")
    if error is None or isinstance(error, OSError | asyncio.CancelledError) or _is_loss(error):
        return NodeLost(f"{address} is gone, or its scheduler: {error}")
    return NodeFailed(f"{address} failed: {type(error).__name__}: {str(error)[:500]}")


def _is_loss(error: object) -> bool:
    names = {
        "KilledWorker",
        "CommClosedError",
        "FutureCancelledError",
        "FuturesCancelledError",
        "CancelledError",
    }
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _name(name: object, address: str) -> str:
    """Return the display name of a worker, which for Dask may be a number or its address."""
    if isinstance(name, int):
        return f"node-{name}"
    return name[:100] if isinstance(name, str) and name else address


def _close(client: Any) -> None:
    with suppress(Exception):  # there may be nothing left to close
        client.unsubscribe_topic("all")
        client.close(timeout=2)
