"""Blocking client: the methods of `Engine`, served by a remote engine."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Self

from evocell.api.engine import Engine
from evocell.api.portal import TrioThread
from evocell.pipe.channel import ReceivedEvent
from evocell.pipe.client import AsyncClient

__all__ = ["Client"]


class Client(Engine):
    """An engine at the other end of a pipe, with the methods of `Engine`; may be used from any thread.

    Made by `spawn`, `unix` and `tcp`. Closing it, or the end of its ``with`` block, ends the session and its
    sandboxes, unless it is detached.

    Args:
        opening: Makes the connection, in a thread of its own.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[AsyncClient]]) -> None:
        self._thread = TrioThread(opening, name="evocell-client")
        self._engine = self._thread.resource
        self._async_side = self._thread, self._engine
        # The thread does not reference this object: dropping its last reference ends the thread.
        weakref.finalize(self, self._thread.stop_soon).atexit = False

    @classmethod
    def spawn(
        cls,
        *options: str,
        command: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        progress: Callable[..., None] | None = None,
    ) -> Self:
        """Start a server for this client alone; see `AsyncClient.spawn`."""
        return cls(partial(AsyncClient.spawn, *options, command=command, env=env, progress=progress))

    @classmethod
    def unix(cls, path: str | PathLike[str], **options: Any) -> Self:
        """Connect to a server on a Unix socket; see `AsyncClient.unix`."""
        return cls(partial(AsyncClient.unix, path, **options))

    @classmethod
    def tcp(cls, host: str, port: int, *, token: str | Path, **options: Any) -> Self:
        """Connect to a server on a TCP port; see `AsyncClient.tcp`."""
        return cls(partial(AsyncClient.tcp, host, port, token=token, **options))

    @property
    def _client(self) -> AsyncClient:
        assert isinstance(self._engine, AsyncClient)
        return self._engine

    @property
    def session(self) -> dict[str, Any]:
        """Name and key of the session, and the number of its last event at the handshake."""
        return self._client.session

    @property
    def server(self) -> str:
        """The server's name and version."""
        return self._client.server

    @property
    def fitness(self) -> Any:
        """The fitness of individuals behind the pipe; its methods are those of `FitnessRecorder`."""
        return self._client.part("fitness", self._thread.call)

    @property
    def lineage(self) -> Any:
        """The lineage of individuals behind the pipe; its methods are those of `LineageTracker`."""
        return self._client.part("lineage", self._thread.call)

    def ping(self) -> None:
        """Check that the server responds; see `AsyncClient.ping`."""
        self._thread.call(self._client.ping)

    def describe(self) -> dict[str, Any]:
        """Return the server's description of the protocol."""
        return self._thread.call(self._client.describe)

    def shutdown(self) -> None:
        """End the session, even a detached one; see `AsyncClient.shutdown`."""
        self._thread.call(self._client.shutdown)

    def events(self, prefix: str = "", *, after: int | None = None) -> Iterator[ReceivedEvent]:
        """Subscribe to the session's events; closing the iterator ends the subscription."""
        opened = self._client.events(prefix, after=after)
        source = self._thread.call(opened.__aenter__)
        try:
            while True:
                yield self._thread.call(source.receive)
        finally:
            if self._thread.usable:
                self._thread.call(partial(opened.__aexit__, None, None, None))
