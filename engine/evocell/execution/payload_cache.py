"""Long byte strings that cross a connection once, however many runs refer to them.

A batch sends the same arguments for every candidate, and the same code for every case. Parts of a request
that are long enough go by a name, the hash of their content. The worker's process keeps what it was sent
on a shelf bounded in bytes; the engine remembers what it has sent, on a list with the same bound. The two
may differ: a run that refers to something gone is answered with what is missing, and is sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgpack

from evocell.errors import ProtocolError
from evocell.execution.messages import GuestRequest, GuestResult
from evocell.execution.rpc import Connection
from evocell.lru import LruCache

__all__ = [
    "ANSWER_MISSING",
    "BLOB",
    "CACHE_BYTES",
    "NAMED_BYTES",
    "PayloadCache",
    "RequestSender",
    "name_of",
    "packed",
]

BLOB_BYTES = 4096
"""Parts longer than this go by name."""

CACHE_BYTES = 256 << 20
"""What a worker's process keeps of what it was sent."""

NAMED_BYTES = 64 << 20
"""What the engine keeps the names of: hashing a megabyte takes longer than a short call."""

BLOB = "blob"
"""The notification that brings one."""

ANSWER_MISSING = "missing"
"""The key of an answer that says which are not there."""


def name_of(blob: bytes) -> str:
    """The name of a blob."""
    return hashlib.sha256(blob).hexdigest()


class PayloadCache:
    """The worker's side: keeps blobs, and puts runs together from them.

    Args:
        max_bytes: How much it keeps.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._blobs: LruCache[str, bytes] = LruCache(max_bytes)

    def take(self, params: Mapping[str, Any]) -> None:
        """Keep what a notification brought."""
        blob = bytes(params["data"])
        self._blobs.put(str(params["name"]), blob, len(blob))

    def run(self, params: Mapping[str, Any]) -> GuestRequest | dict[str, list[str]]:
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

        request = GuestRequest.from_wire(msgpack.unpackb(params["run"]), find)
        return {ANSWER_MISSING: missing} if missing else request


def packed(seen: GuestResult) -> bytes:
    """What was seen of a run, as the answer to the request for it."""
    data: bytes = msgpack.packb(seen.to_wire())
    return data


class RequestSender:
    """The engine's side: sends runs over one connection, and what they refer to ahead of them.

    Args:
        connection: Where to.
        names: Names of blobs that are known; shared by all connections.
        max_bytes: How much the other side keeps.
    """

    def __init__(
        self, connection: Connection, names: LruCache[bytes, str], max_bytes: int = CACHE_BYTES
    ) -> None:
        self._connection = connection
        self._names = names
        self._sent: LruCache[str, None] = LruCache(max_bytes)
        self._largest = max_bytes // 4  # one that fills the shelf would drive all others off it
        self.missed = 0
        """How often the other side had lost what it was believed to have."""

    async def run(self, request: GuestRequest) -> GuestResult:
        """Have a run done there.

        Raises:
            ConnectionLost: The other side went away first.
            RequestFailed: It refused.
            KeyError, TypeError, ValueError: Its answer is no result.
        """
        # A worker that misses something twice in a row gets it all in one piece.
        for refer in (self._refer, self._refer, _enclose):
            blobs: dict[str, bytes] = {}
            plain = request.to_wire(partial(refer, blobs))
            for name, blob in blobs.items():
                if name not in self._sent:
                    # Noted first, so that another run does not send it as well; written before that one's
                    # request, because messages are written in the order in which they are asked for.
                    self._sent.put(name, None, len(blob))
                    await self._connection.notify(BLOB, {"name": name, "data": blob})
            # In one piece: the reader of frames then has few values to follow.
            packed = msgpack.packb(plain)
            answer = await self._connection.request("run", {"run": packed, "alone": request.session is None})
            if isinstance(answer, bytes):
                return GuestResult.from_wire(msgpack.unpackb(answer))
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
