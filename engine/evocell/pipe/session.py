"""Session of one client on a server: its engine and state.

Every client has its own engine, so no client can address, see or count another's sandboxes; the workers are
shared. A session ends with its connection, unless the client asked for a detached one.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from evocell.api.async_engine import AsyncEngine
from evocell.config import Config
from evocell.console.progress import silent
from evocell.errors import EngineClosed, EvocellError
from evocell.execution.interface import OpenWorker
from evocell.pipe.channel import Channel
from evocell.pipe.errors import InternalError

__all__ = ["Session"]

_KEY_BYTES = 24
_log = logging.getLogger("evocell")

MakeEngine = Callable[..., AbstractAsyncContextManager[AsyncEngine]]


class Session:
    """One client's engine, with the key to resume it.

    Attributes:
        name: Its name on the server.
        key: The secret for resuming it; only the client knows it.
        detached: Whether it outlives its connection.
        channel: Its current connection, or None.
        ended: Set when the engine is closed.

    Args:
        name: Its name.
        config: The settings of its engine.
        make_engine: Makes the engine.
    """

    def __init__(self, name: str, config: Config, *, make_engine: MakeEngine = AsyncEngine) -> None:
        self.name = name
        self.key = secrets.token_hex(_KEY_BYTES)
        self.detached = False
        self.channel: Channel | None = None
        self.ended = trio.Event()
        self._config = config
        self._make_engine = make_engine
        self._engine: AsyncEngine | None = None
        self._opened = trio.Event()
        self._failure: EvocellError | None = None
        self._over = trio.Event()
        self._life = trio.CancelScope()

    async def live(self, open_worker: Callable[[], Any]) -> None:
        """Keep an engine open until `end`.

        Args:
            open_worker: Waits until the workers are ready; returns the function that opens a worker on them.
        """
        try:
            with self._life:
                lend: OpenWorker = await open_worker()
                async with self._make_engine(self._config, progress=silent, open_worker=lend) as engine:
                    self._engine = engine
                    self._opened.set()
                    await self._over.wait()
        except EvocellError as error:
            self._failure = error
        except Exception as fault:  # noqa: BLE001 - the other sessions go on
            _log.exception("the engine of %s failed", self.name)
            self._failure = InternalError(f"the engine failed inside the server: {type(fault).__name__}")
        finally:
            self._engine = None
            if self._failure is None:
                self._failure = EngineClosed("the session is over")
            self._opened.set()
            self.ended.set()

    async def engine(self) -> AsyncEngine:
        """Return the engine, once it is open.

        Raises:
            EvocellError: It cannot be opened, or the session is over.
        """
        await self._opened.wait()
        if self._engine is None:
            raise EngineClosed("the session is over") if self._failure is None else self._failure
        return self._engine

    @property
    def last_event(self) -> int:
        """Number of its latest event; 0 without events or subscriptions."""
        return 0 if self._engine is None else self._engine.event_stream.last_seq

    def end(self) -> None:
        """Stop and remove everything in the session; `ended` is set when that is done."""
        self._over.set()
        if self._engine is None:
            self._life.cancel()
