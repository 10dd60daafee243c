"""Server: shared workers, one session per client, transports."""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import trio
from attrs import asdict, evolve

from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.errors import CapacityError, ConfigurationError, EngineClosed, EvocellError
from evocell.execution.interface import OpenWorker
from evocell.guests.scratch import OwnedDirectory, memory_place
from evocell.pipe import errors
from evocell.pipe.handshake import Hello
from evocell.pipe.limits import PipeLimits
from evocell.pipe.serving import ServedConnection
from evocell.pipe.session import Session
from evocell.wire.frames import Framing
from evocell.workers.open_worker import open_worker as open_configured_worker
from evocell.workers.shared_workers import SharedWorkers
from evocell_runtime.build import BuildProgress

__all__ = ["PipeServer", "is_breach", "open_server", "server_version"]

_TIME_TO_SPEAK_S = 0.25
"""Seconds before which a connection is not closed for another one, so that a hello in transit is read..."""

_CROWD = 8
"""... unless the limit is exceeded by this factor."""

_log = logging.getLogger("evocell")


def server_version() -> str:
    """Return the name and version that a server sends to its clients."""
    try:
        return f"evocell {version('evocell')}"
    except PackageNotFoundError:
        return "evocell (not installed)"


def is_breach(why: EvocellError) -> bool:
    """Return whether a connection ended because of a violation or failure of the client."""
    return not isinstance(why, errors.ConnectionClosed | EngineClosed)


class PipeServer:
    """Serves clients; made by `open_server`.

    Args:
        nursery: The nursery of the sessions.
        config: Settings of the engines. The number of sandboxes is divided among the clients.
        limits: Limits of each client.
        max_clients: Most sessions, including detached ones.
        may_detach: Whether sessions may outlive their connections.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        config: Config,
        *,
        limits: PipeLimits,
        max_clients: int,
        may_detach: bool,
    ) -> None:
        self._nursery = nursery
        self._config = config
        self._limits = limits
        self._max_clients = max_clients
        self._may_detach = may_detach
        self._sessions: dict[str, Session] = {}
        self._namespaces: dict[str, Session] = {}
        self._connections: dict[ServedConnection, None] = {}  # in order of arrival
        self._n_named = 0
        self._guests: SharedWorkers | None = None
        self._failure: EvocellError | None = None
        self._ready = trio.Event()

    @property
    def failure(self) -> EvocellError | None:
        """Why the image failed; None if it is ready or being made."""
        return self._failure

    @property
    def version(self) -> str:
        """The server's name and version."""
        return server_version()

    @property
    def image(self) -> Mapping[str, Any]:
        """Whether the image is ready, its id, and the number of concurrent calls."""
        guests = self._guests
        return {
            "ready": guests is not None,
            "image_id": None if guests is None else guests.image_id,
            "slots": None if guests is None else guests.slots,
        }

    @property
    def is_shared(self) -> bool:
        """Whether there may be several clients."""
        return self._max_clients > 1

    @property
    def session_names(self) -> list[str]:
        """Names of the current sessions."""
        return list(self._sessions)

    def open_session(self, hello: Hello) -> Session:
        """Return a client's session, a new one or the one it resumes.

        Raises:
            ConfigurationError: It requests an option that this server does not offer.
            CapacityError: There are too many sessions.
        """
        if hello.attach is not None:
            return self._attach(hello.attach)
        if hello.detach and not self._may_detach:
            raise ConfigurationError(
                "detach needs a server on a socket: one on standard input ends with it", "detach"
            )
        if hello.namespace is not None:
            self._check_namespace(hello.namespace)
        if len(self._sessions) >= self._max_clients:
            raise CapacityError(
                f"{self._max_clients} clients have a session, and no more may; close one, or raise "
                "--max-clients",
                "sessions",
                self._max_clients,
                len(self._sessions) + 1,
            )
        self._n_named += 1
        session = Session(f"session-{self._n_named}", self._config_for(hello.namespace))
        session.detached = hello.detach
        self._sessions[session.name] = session
        if hello.namespace is not None:
            self._namespaces[hello.namespace] = session
        self._nursery.start_soon(self._keep, session, hello.namespace)
        return session

    async def serve(
        self,
        receive: trio.abc.ReceiveStream,
        send: trio.abc.SendStream,
        *,
        framing: Framing = "stream",
        token: str | None = None,
    ) -> EvocellError:
        """Serve one client until its connection is over and, unless it is detached, its session too.

        Returns:
            Why the connection ended.
        """
        connection = ServedConnection(receive, send, self, limits=self._limits, framing=framing, token=token)
        self._make_room()
        self._connections[connection] = None
        try:
            why = await connection.serve()
        finally:
            self._connections.pop(connection)
            if connection.session is not None:
                self._part(connection.session)
        if connection.session is not None and not connection.session.detached:
            await connection.session.ended.wait()
        told = logging.WARNING if self.is_shared and is_breach(why) else logging.INFO
        _log.log(told, "a connection ended: %s", why)
        return why

    def _make_room(self) -> None:
        """Close the longest waiting connections without a hello, if there are too many.

        Authenticated clients have sessions, whose number is bounded. A client sends its hello right after
        connecting, so the longest silent connections are those that only occupy a slot.
        """
        most = self._limits.max_waiting
        waiting = [one for one in self._connections if one.is_waiting]
        over = max(0, len(waiting) + 1 - most)
        heard = trio.current_time() - _TIME_TO_SPEAK_S
        doomed = [one for one in waiting if one.since < heard][:over]
        if over - len(doomed) > _CROWD * most:
            doomed = waiting[:over]
        for one in doomed:
            one.channel.close(errors.Busy("too many connections wait to say hello", most))

    async def open_guests(self, open_worker: OpenWorker) -> None:
        """Keep the workers open until cancelled; waiting clients get the error on failure."""
        token = trio.lowlevel.current_trio_token()

        def progress(step: BuildProgress) -> None:
            token.run_sync_soon(self._tell_all, "image.progress", asdict(step))

        try:
            async with AsyncExitStack() as stack:
                home = stack.enter_context(OwnedDirectory(memory_place()))
                worker = await stack.enter_async_context(
                    open_worker(self._config, SnapshotStore(home / "code"), progress=progress)
                )
                self._guests = SharedWorkers(worker, apart=self.is_shared)
                self._ready.set()
                self._tell_all("image.ready", self.image)
                await trio.sleep_forever()
        except EvocellError as error:
            self._failure = error
            self._tell_all("image.failed", errors.to_wire(error))
        finally:
            self._guests = None
            if self._failure is None:
                self._failure = EngineClosed("the server is closed")
            self._ready.set()

    async def _lend(self) -> OpenWorker:
        await self._ready.wait()
        if self._guests is None:
            raise EngineClosed("the server is closed") if self._failure is None else self._failure
        return self._guests.open_worker

    async def _keep(self, session: Session, namespace: str | None) -> None:
        try:
            await session.live(self._lend)
        finally:
            self._sessions.pop(session.name, None)
            if namespace is not None:
                self._namespaces.pop(namespace, None)

    def _part(self, session: Session) -> None:
        """Handle the end of a session's connection: end the session, or keep a detached one for a while."""
        if not session.detached:
            session.end()
        elif session.channel is None:
            self._nursery.start_soon(self._forget_late, session)

    async def _forget_late(self, session: Session) -> None:
        with trio.move_on_after(self._limits.detach_s):
            await session.ended.wait()
        if session.channel is None:
            session.end()

    def _attach(self, key: str) -> Session:
        found = None
        for session in self._sessions.values():
            if session.detached and hmac.compare_digest(session.key.encode(), key.encode()):
                found = session
        if found is None:
            raise ConfigurationError(
                "attach names no detached session of this server; it may have ended", "attach"
            )
        if found.channel is not None:
            found.channel.close(errors.ConnectionClosed("the session was attached by another connection"))
        return found

    def _check_namespace(self, namespace: str) -> None:
        if self._config.state_dir is None:
            raise ConfigurationError(
                "namespace needs a server that keeps state; start it with the setting state_dir", "namespace"
            )
        if namespace in self._namespaces:
            raise ConfigurationError(f"another client works in the namespace {namespace!r}", "namespace")

    def _config_for(self, namespace: str | None) -> Config:
        if self._max_clients == 1:
            return self._config
        state_dir: Path | None = None
        if namespace is not None and self._config.state_dir is not None:
            state_dir = self._config.state_dir / "namespaces" / namespace
        share = max(1, self._config.default_max_processes // self._max_clients)
        return evolve(self._config, state_dir=state_dir, default_max_processes=share)

    def _tell_all(self, method: str, params: Mapping[str, Any]) -> None:
        for connection in tuple(self._connections):
            connection.tell(method, params)


@asynccontextmanager
async def open_server(
    config: Config,
    *,
    limits: PipeLimits | None = None,
    max_clients: int = 16,
    may_detach: bool = True,
    open_worker: OpenWorker = open_configured_worker,
) -> AsyncIterator[PipeServer]:
    """Open a server, to be used by `PipeServer.serve`; the image is prepared in the background.

    Args:
        config: Settings of the engines.
        limits: Limits of each client.
        max_clients: Most sessions; a single one gets the whole configuration for itself.
        may_detach: Whether sessions may outlive their connections.
        open_worker: Opens the workers.

    Cancellation: All sessions end, and no process remains.
    """
    async with trio.open_nursery() as workers:
        async with trio.open_nursery() as sessions:
            server = PipeServer(
                sessions,
                config,
                limits=limits or PipeLimits(),
                max_clients=max_clients,
                may_detach=may_detach,
            )
            workers.start_soon(server.open_guests, open_worker)
            yield server
            sessions.cancel_scope.cancel()
        workers.cancel_scope.cancel()
