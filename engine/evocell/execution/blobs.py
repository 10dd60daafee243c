"""Long byte strings that cross a connection once, however many runs refer to them.

A batch sends the same arguments for every candidate, and the same code for every case. Parts of a request
that are long enough go by a name, the hash of their content. The worker's process keeps what it was sent
on a shelf bounded in bytes; the engine remembers what it has sent, on a list with the same bound. The two
may differ: a run that refers to something gone is answered with what is missing, and is sent again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import msgpack

from evocell.errors import ProtocolError
from evocell.execution.connection import Connection
from evocell.execution.run import Run, Sighting

__all__ = [
    "ANSWER_MISSING",
    "BLOB",
    "NAMED_BYTES",
    "SHELF_BYTES",
    "Recent",
    "RunSender",
    "Shelf",
    "name_of",
    "packed",
]

BLOB_BYTES = 4096
"""Parts longer than this go by name."""

SHELF_BYTES = 256 << 20
"""What a worker's process keeps of what it was sent."""

NAMED_BYTES = 64 << 20
"""What the engine keeps the names of: hashing a megabyte takes longer than a short call."""

BLOB = "blob"
"""The notification that brings one."""

ANSWER_MISSING = "missing"
"""The key of an answer that says which are not there."""

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping that forgets what was not used for longest, once its values are too large together.

    Args:
        max_bytes: The sum of sizes it holds at most.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: K) -> bool:
        """Whether a key is held; if so, it counts as used."""
        if key not in self._held:
            return False
        self._held.move_to_end(key)
        return True

    def get(self, key: K) -> V | None:
        """Return a value, which counts as used, or None."""
        return self._held[key][0] if key in self else None

    def put(self, key: K, value: V, size: int) -> list[K]:
        """Hold a value of `size` bytes, in place of the one there was; returns the keys it drove out."""
        self.forget(key)
        self._held[key] = value, size
        self.held_bytes += size
        dropped: list[K] = []
        while self.held_bytes > self._max_bytes:
            gone, (_, freed) = self._held.popitem(last=False)
            self.held_bytes -= freed
            dropped.append(gone)
        return dropped

    def forget(self, key: K) -> None:
        """Drop a value if it is there."""
        found = self._held.pop(key, None)
        if found is not None:
            self.held_bytes -= found[1]


def name_of(blob: bytes) -> str:
    """The name of a blob."""
    return hashlib.sha256(blob).hexdigest()


class Shelf:
    """The worker's side: keeps blobs, and puts runs together from them.

    Args:
        max_bytes: How much it keeps.
    """

    def __init__(self, max_bytes: int = SHELF_BYTES) -> None:
        self._blobs: Recent[str, bytes] = Recent(max_bytes)

    def take(self, params: Mapping[str, Any]) -> None:
        """Keep what a notification brought."""
        blob = bytes(params["data"])
        self._blobs.put(str(params["name"]), blob, len(blob))

    def run(self, params: Mapping[str, Any]) -> Run | dict[str, list[str]]:
        """The run a request describes, or the answer that says what is missing for it.

        Raises:
            ProtocolError: It describes none.
        """
        missing: list[str] = []

        def find(name: str) -> bytes:
            blob = self._blobs.get(name)
            if blob is None:
                missing.append(name)
                return b""
            return blob

        run = Run.from_wire(msgpack.unpackb(params["run"]), find)
        return {ANSWER_MISSING: missing} if missing else run


def packed(seen: Sighting) -> bytes:
    """What was seen of a run, as the answer to the request for it."""
    data: bytes = msgpack.packb(seen.to_wire())
    return data


class RunSender:
    """The engine's side: sends runs over one connection, and what they refer to ahead of them.

    Args:
        connection: Where to.
        names: Names of blobs that are known; shared by all connections.
        max_bytes: How much the other side keeps.
    """

    def __init__(
        self, connection: Connection, names: Recent[bytes, str], max_bytes: int = SHELF_BYTES
    ) -> None:
        self._connection = connection
        self._names = names
        self._sent: Recent[str, None] = Recent(max_bytes)
        self._largest = max_bytes // 4  # one that fills the shelf would drive all others off it
        self.missed = 0
        """How often the other side had lost what it was believed to have."""

    async def run(self, run: Run) -> Sighting:
        """Have a run done there.

        Raises:
            ConnectionLost: The other side went away first.
            RequestFailed: It refused.
            KeyError, TypeError, ValueError: Its answer is no sighting.
        """
        # Whoever misses something twice in a row gets it all in one piece.
        for refer in (self._refer, self._refer, _enclose):
            blobs: dict[str, bytes] = {}
            plain = run.to_wire(partial(refer, blobs))
            for name, blob in blobs.items():
                if name not in self._sent:
                    # Noted first, so that another run does not send it as well; written before that one's
                    # request, because messages are written in the order in which they are asked for.
                    self._sent.put(name, None, len(blob))
                    await self._connection.notify(BLOB, {"name": name, "data": blob})
            # In one piece: the reader of frames then has few values to follow.
            packed = msgpack.packb(plain)
            answer = await self._connection.request("run", {"run": packed, "alone": run.session is None})
            if isinstance(answer, bytes):
                return Sighting.from_wire(msgpack.unpackb(answer))
            self.missed += 1
            for name in answer[ANSWER_MISSING]:
                self._sent.forget(name)
        raise ProtocolError("a worker misses what its request held")

    def _refer(self, blobs: dict[str, bytes], part: bytes) -> bytes | str:
        if not BLOB_BYTES < len(part) <= self._largest:
            return part
        name = self._names.get(part)
        if name is None:
            name = name_of(part)
            self._names.put(part, name, len(part))
        blobs[name] = part
        return name


def _enclose(_: dict[str, bytes], part: bytes) -> bytes | str:
    return part
