"""Interface of a pool of machines that can run an engine's guests.

A pool knows nothing about guests. It lists its nodes, delivers a message to a node and returns the answer,
and reports the loss of a node or of the pool. Messages are opaque bytes.

At each node there is one `evocell.integrations.cluster.node.NodeDoor` per engine, in a process that may start
child processes. It accepts any message, from any thread, and answers each once: ``door.answer(message)``
returns a future of bytes. It is made before the first message, and closed with its process, or when the
engine leaves the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from evocell.errors import EvocellError

__all__ = ["Link", "NodeFailed", "NodeLost", "Pool"]


class NodeLost(EvocellError):
    """A node was lost, with its requests.

    Attributes:
        told: Whether the pool released it in order, so that no request is to blame.
    """

    def __init__(self, message: str, told: bool = False) -> None:  # noqa: FBT001, FBT002 - survives pickling
        super().__init__(message, told)
        self.told = told


class NodeFailed(EvocellError):
    """A node failed to handle a request; the message says why."""


class Link(Protocol):
    """An engine's connection to a pool; used in the engine's trio loop only.

    Attributes:
        label: Name of the pool in messages, with its address.
    """

    label: str

    @property
    def members(self) -> Mapping[str, str]:
        """The current nodes: names by address; an address identifies one process for ever.

        A name may recur at another address, when a process was replaced.
        """
        ...

    @property
    def trouble(self) -> str | None:
        """Why the pool itself is unreachable, in a sentence, or None."""
        ...

    async def wait_change(self) -> None:
        """Wait until `members` or `trouble` may have changed."""
        ...

    def left_in_order(self, address: str) -> bool:
        """Return whether a lost node was released in order, and did not die."""
        ...

    async def ask(self, addresses: Sequence[str], message: bytes) -> dict[str, bytes | EvocellError]:
        """Send a message to nodes and get their answers at once, regardless of their load.

        Returns:
            For each node its answer, or the failure: `NodeLost` or `NodeFailed`.

        Cancellation: Does not wait; nodes may have received the message.
        """
        ...

    async def work(self, address: str, message: bytes) -> bytes:
        """Send a long-running message to one node, scheduled by the pool.

        The pool may queue it behind other work, also of other users, but never on another node.

        Raises:
            NodeLost: The node or the pool was lost.
            NodeFailed: It raised.

        Cancellation: Does not wait. A message still queued is never delivered.
        """
        ...

    async def want(self, nodes: int) -> None:
        """Tell an elastic pool the number of additional nodes that could be used."""
        ...


class Pool(Protocol):
    """A user's description of a pool for an engine."""

    @property
    def processes(self) -> int | None:
        """Guest processes of each node; None for the number of its threads."""
        ...

    @property
    def images_dir(self) -> str | None:
        """Directory of built images that all nodes share; None for each node's own cache."""
        ...

    @property
    def patience_s(self) -> float:
        """Seconds for which the engine waits for a node."""
        ...

    def link(self) -> AbstractAsyncContextManager[Link]:
        """Connect one engine to the pool; its nodes' doors are closed at the end of the block."""
        ...
