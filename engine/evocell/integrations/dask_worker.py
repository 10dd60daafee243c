"""Dask, on its workers: the plugin with an engine's node, and the functions that the engine has them call."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress

from distributed import Worker, WorkerPlugin, get_worker, secede

from evocell.integrations.cluster.node import Machine, NodeDoor

__all__ = [
    "LATE",
    "QUEUED",
    "SOON_S",
    "TURN_S",
    "answer_beside",
    "answer_in_turn",
    "answer_late",
    "answer_soon",
    "close_node",
    "hold_turn",
]

TURN_S = 1.0
"""Seconds that a turn lasts."""

SOON_S = 1.0
"""Most seconds that a message beside the tasks takes; longer ones become tasks."""

QUEUED = "queued"
"""Answer to a message that was not delivered, since the node's turn did not come."""

LATE = "late"
"""Answer to a message whose answer is to be asked for by a task."""


class _Node(WorkerPlugin):
    """Dask plugin that ends an engine's node with its Dask worker, or when it is removed.

    Args:
        worker: The Dask worker.
    """

    def __init__(self, worker: Worker) -> None:
        limit = worker.memory_manager.memory_limit
        self.door = NodeDoor(
            Machine(name=str(worker.name), threads=worker.state.nthreads, memory_bytes=limit or None)
        )
        self.late: dict[int, Future[bytes]] = {}
        """Answers that tasks will ask for, by ticket."""
        self._loop = asyncio.get_running_loop()
        self._n_turns = 0
        self._turn = asyncio.Event()
        self._over = threading.Event()

    async def teardown(self, worker: Worker) -> None:  # noqa: ARG002 - as Dask has it
        """End the node."""
        self._over.set()
        await asyncio.to_thread(self.door.close)

    async def wait_turn(self, seconds: float) -> bool:
        """Wait for a turn of the node; return whether it has one. On the worker's loop."""
        if not self._turn.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._turn.wait(), seconds)
        return self._turn.is_set()

    def hold_turn(self) -> None:
        """Give the node a turn. Blocks for as long as it lasts."""
        self._loop.call_soon_threadsafe(self._count_turns, 1)
        self._over.wait(TURN_S)
        with suppress(RuntimeError):  # the loop is closed with the worker
            self._loop.call_soon_threadsafe(self._count_turns, -1)

    def _count_turns(self, more: int) -> None:
        self._n_turns += more
        if self._n_turns:
            self._turn.set()
        else:
            self._turn.clear()


async def answer_beside(token: str, message: bytes, dask_worker: Worker) -> bytes:
    """Answer a message at once, in the worker's loop; the first message creates the node."""
    name = _plugin_name(token)
    if name not in dask_worker.plugins:
        await dask_worker.plugin_add(_Node(dask_worker), name=name, catch_errors=False)
    return await asyncio.wrap_future(_node(dask_worker, token).door.answer(message))


async def answer_soon(token: str, ticket: int, message: bytes, dask_worker: Worker) -> bytes | str:
    """Answer a message in the worker's loop, once the node has a turn.

    Returns:
        The answer; or `QUEUED` if the turn does not come soon, and `LATE` if the answer does not.
    """
    node = _node(dask_worker, token)
    if not await node.wait_turn(SOON_S):
        return QUEUED
    answer = node.door.answer(message)
    done, _ = await asyncio.wait([asyncio.wrap_future(answer)], timeout=SOON_S)
    if done:
        return answer.result()
    node.late[ticket] = answer
    return LATE


def answer_late(token: str, ticket: int) -> bytes:
    """Return, as a Dask task, the answer that a message beside the tasks did not get."""
    answer = _node(get_worker(), token).late.pop(ticket)
    secede()
    return answer.result()


def answer_in_turn(token: str, message: bytes) -> bytes:
    """Answer a message as a Dask task, in a thread of the worker.

    It is scheduled among the worker's tasks and then secedes: queued requests keep the guest processes busy,
    which would be idle if the next batch came only after the answer to the one before.
    """
    node = _node(get_worker(), token)
    secede()
    return node.door.answer(message).result()


def hold_turn(token: str) -> None:
    """Stand, as a Dask task, for the messages that a node answers beside the tasks for a while."""
    node = _node(get_worker(), token)
    secede()
    node.hold_turn()


async def close_node(token: str, dask_worker: Worker) -> None:
    """End an engine's node, if it exists."""
    if _plugin_name(token) in dask_worker.plugins:
        await dask_worker.plugin_remove(_plugin_name(token))


def _node(worker: Worker, token: str) -> _Node:
    node = worker.plugins[_plugin_name(token)]
    assert isinstance(node, _Node)
    return node


def _plugin_name(token: str) -> str:
    return f"evocell-{token}"
