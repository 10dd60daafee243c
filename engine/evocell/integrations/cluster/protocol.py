"""What a pool of machines must do, so that an engine's guests can live on it.

A pool knows nothing of guests. It says which nodes there are, carries a message to one and brings the answer
back, and tells when a node or the pool is gone. Messages are bytes that need not be read on the way.

At the other end of each there is one `evocell.integrations.cluster.node.NodeDoor` for each engine, in a
process that may start other processes. It takes any message, from any thread, and answers each once:
``door.answer(message)`` returns a future of bytes. It is made before the first message, and closed with its
process, or when the pool is told that the engine goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from evocell.errors import EvocellError

__all__ = ["Link", "NodeFailed", "NodeLost", "Pool"]


class NodeLost(EvocellError):
    """A node is gone, and with it what it was asked to do.

    Attributes:
        told: Whether the pool gave it back in an orderly way, so that nothing in it is to blame.
    """

    def __init__(self, message: str, told: bool = False) -> None:  # noqa: FBT001, FBT002 - survives pickling
        super().__init__(message, told)
        self.told = told


class NodeFailed(EvocellError):
    """A node is there, and cannot do what it was asked to do; the message says why."""


class Link(Protocol):
    """A pool, as the engine that uses it holds it; all of it in the engine's trio loop.

    Attributes:
        label: What to call the pool in a sentence, with its address.
    """

    label: str

    @property
    def members(self) -> Mapping[str, str]:
        """The nodes there are now: addresses, each of which means one process for ever, and their names.

        A name may come back at another address, when a process took the place of another.
        """
        ...

    @property
    def trouble(self) -> str | None:
        """Why the pool itself cannot be reached, in a sentence; None as long as it can."""
        ...

    async def wait_change(self) -> None:
        """Wait until `members` or `trouble` may have changed since this was called."""
        ...

    def left_in_order(self, address: str) -> bool:
        """Whether a node that is gone was given back, and did not die."""
        ...

    async def ask(self, addresses: Sequence[str], message: bytes) -> dict[str, bytes | EvocellError]:
        """Have nodes answer a message at once, whatever they are doing.

        Returns:
            For each node its answer, or why there is none: `NodeLost` or `NodeFailed`.

        Cancellation: Nothing waits; nodes may have got the message.
        """
        ...

    async def work(self, address: str, message: bytes) -> bytes:
        """Have one node answer a message that takes it time, when its turn has come.

        The pool may queue it behind other work, of other users as well; never on another node.

        Raises:
            NodeLost: The node is gone, or the pool.
            NodeFailed: It raised.

        Cancellation: Nothing waits. If its turn has not come the node never gets it.
        """
        ...

    async def want(self, nodes: int) -> None:
        """Tell a pool that can grow how many nodes would have something to do beside those there are."""
        ...


class Pool(Protocol):
    """A pool, as its user describes it to an engine."""

    @property
    def processes(self) -> int | None:
        """Guest processes of each node; None for as many as the pool gives a node threads."""
        ...

    @property
    def images_dir(self) -> str | None:
        """Directory of built images that all nodes share; None for each node's own cache."""
        ...

    @property
    def patience_s(self) -> float:
        """Seconds for which the engine waits for a node when there is none."""
        ...

    def link(self) -> AbstractAsyncContextManager[Link]:
        """Reach the pool, for one engine; its nodes' doors are closed at the end of the block."""
        ...
