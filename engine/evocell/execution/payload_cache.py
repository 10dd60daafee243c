"""Content-addressed transfer of long byte strings, so that each crosses a connection once.

A batch sends the same arguments for every candidate, and the same code for every case. Long parts of a
request are replaced by a name, the hash of their content. The worker process caches the blobs it received,
bounded in bytes; the engine keeps the names of those it has sent, with the same bound. The two may differ: a
request that refers to an evicted blob is answered with the missing names, and is sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any

import msgpack

from evocell.errors import ProtocolError
from evocell.execution.follow_ups import FOLLOW_UP, FollowUpRequest
from evocell.execution.messages import GuestRequest, GuestResult, Successor
from evocell.execution.rpc import Connection, Posted
from evocell.lru import LruCache
from evocell.wire.frames import pack

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
"""Length in bytes above which a part is sent by name."""

CACHE_BYTES = 256 << 20
"""Default size of a worker process's cache, in bytes."""

NAMED_BYTES = 64 << 20
"""Bytes of blobs whose names the engine caches: hashing a megabyte takes longer than a short call."""

BLOB = "blob"
"""Notification that carries a blob."""

ANSWER_MISSING = "missing"
"""Key of an answer that lists missing blobs."""


def name_of(blob: bytes) -> str:
    """Return the name of a blob."""
    return hashlib.sha256(blob).hexdigest()


class PayloadCache:
    """Worker side: keeps blobs, and assembles requests from them.

    Args:
        max_bytes: Size of the cache.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._blobs: LruCache[str, bytes] = LruCache(max_bytes)

    def take(self, params: Mapping[str, Any]) -> None:
        """Keep the blob of a notification."""
        blob = bytes(params["data"])
        self._blobs.put(str(params["name"]), blob, len(blob))

    def run(self, params: Mapping[str, Any]) -> GuestRequest | dict[str, list[str]]:
        """Assemble a request from its description; returns the answer with the missing names if any are.

        Raises:
            ProtocolError: The description is malformed.
        """
        missing: list[str] = []
        request = GuestRequest.from_wire(msgpack.unpackb(params["run"]), partial(self._find, missing))
        return {ANSWER_MISSING: missing} if missing else request

    def follow_up(self, params: Mapping[str, Any]) -> tuple[int, FollowUpRequest] | None:
        """Assemble a call behind a compilation, with the number of that; None if parts of it are missing.

        Raises:
            ProtocolError: The description is malformed.
        """
        missing: list[str] = []
        found = FollowUpRequest.from_wire(params["follow_up"], partial(self._find, missing))
        return None if missing else found

    def _find(self, missing: list[str], name: str) -> bytes:
        blob = self._blobs.get(name)
        if blob is None:
            missing.append(name)
            return b""
        return blob


def packed(seen: GuestResult) -> bytes:
    """Return a result as the answer to its request."""
    return pack(seen.to_wire())


class RequestSender:
    """Engine side: sends requests over one connection, preceded by the blobs they refer to.

    Args:
        connection: The connection.
        names: Cache of blob names; shared by all connections.
        max_bytes: Size of the other side's cache.
    """

    def __init__(
        self, connection: Connection, names: LruCache[bytes, str], max_bytes: int = CACHE_BYTES
    ) -> None:
        self._connection = connection
        self._names = names
        self._sent: LruCache[str, None] = LruCache(max_bytes)
        self._largest = max_bytes // 4  # a blob that fills the cache would evict all others
        self._compilations = count(1)
        self.missed = 0
        """Number of times the other side lacked a blob it was believed to have."""

    async def run(
        self, request: GuestRequest, *, post: Callable[[Successor, int], Posted] | None = None
    ) -> GuestResult:
        """Run a request on the other side.

        Args:
            request: The request.
            post: Sends the call behind it, if it is a compilation with one, given its number.

        Raises:
            ConnectionLost: The other side was lost first.
            RequestFailed: It refused.
            KeyError, TypeError, ValueError: Its answer is not a result.
        """
        params: dict[str, Any] = {"alone": request.session is None}
        follow_up = None if post is None else request.follow_up
        if follow_up is not None:
            params["leads"] = next(self._compilations)

        def sent() -> None:
            if follow_up is not None and post is not None:
                follow_up.sent_with(partial(post, follow_up, params["leads"]))
            request.sent()

        # After two misses in a row the request is sent whole.
        for refer in (self._refer, self._refer, _enclose):
            blobs: dict[str, bytes] = {}
            plain = request.to_wire(partial(refer, blobs))
            for name, blob in self._unsent(blobs):
                await self._connection.notify(BLOB, {"name": name, "data": blob})
            # As one blob: the frame reader then has few values to parse.
            answer = await self._connection.request("run", {"run": pack(plain), **params}, sent=sent)
            if isinstance(answer, bytes):
                return GuestResult.from_wire(msgpack.unpackb(answer))
            self.missed += 1
            for name in answer[ANSWER_MISSING]:
                self._sent.forget(name)
        raise ProtocolError("a worker misses what its request held")

    def post(self, follow_up: Successor, behind: int, *, ended: Callable[[], object]) -> Posted:
        """Send a call behind a compilation.

        Args:
            follow_up: The call.
            behind: Number of the compilation.
            ended: Called once when it has ended, or the other side is lost.
        """
        blobs: dict[str, bytes] = {}
        packed = follow_up.to_wire(behind, partial(self._refer, blobs))
        for name, blob in self._unsent(blobs):
            self._connection.tell(BLOB, {"name": name, "data": blob})
        return self._connection.post(FOLLOW_UP, {"follow_up": packed}, ended=ended)

    def _unsent(self, blobs: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Return the blobs to be sent now."""
        for name, blob in blobs.items():
            if name not in self._sent:
                # Recorded first, so that a concurrent request does not send it as well; it is written
                # before that request, because messages are written in the order of submission.
                self._sent.put(name, None, len(blob))
                yield name, blob

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
