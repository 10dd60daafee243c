"""Server side of one connection: handshake, requests, notifications."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol

import msgpack
import trio
from attrs import asdict

from evocell.errors import ConfigurationError, EvocellError
from evocell.pipe import errors
from evocell.pipe.channel import Channel
from evocell.pipe.description import describe
from evocell.pipe.errors import Busy, ConnectionClosed, MethodNotFound, Unauthorized, UnsupportedProtocol
from evocell.pipe.functions import ClientContext
from evocell.pipe.handshake import Hello, Subscription, shown_limits
from evocell.pipe.limits import PROTOCOL, PipeLimits
from evocell.pipe.machine import Greeted, Machine
from evocell.pipe.methods import Method, find_method
from evocell.pipe.packing import is_long
from evocell.pipe.serialization import decode, encode
from evocell.pipe.session import Session
from evocell.telemetry.stream import Subscription as EventSubscription
from evocell.wire.frames import Framing

__all__ = ["Host", "ServedConnection"]

_log = logging.getLogger("evocell")


class Host(Protocol):
    """The interface of the server that a connection uses."""

    @property
    def image(self) -> Mapping[str, Any]:
        """Whether the image is ready, and its id."""
        ...

    @property
    def failure(self) -> EvocellError | None:
        """Why the image failed; None if it is ready or being made."""
        ...

    @property
    def version(self) -> str:
        """The server's name and version."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether there may be several clients."""
        ...

    def open_session(self, hello: Hello) -> Session:
        """Return a client's session, a new one or the one it resumes."""
        ...


class ServedConnection:
    """One client connection, from its hello to its end.

    Args:
        receive: Stream of incoming bytes.
        send: Stream of outgoing bytes.
        host: The server.
        limits: Limits of the client.
        framing: How messages follow one another.
        token: The token that the client must send; None to accept any connection.
    """

    def __init__(
        self,
        receive: trio.abc.ReceiveStream,
        send: trio.abc.SendStream,
        host: Host,
        *,
        limits: PipeLimits,
        framing: Framing = "stream",
        token: str | None = None,
    ) -> None:
        self._host = host
        self._limits = limits
        self._token = token
        self.since = trio.current_time()
        self.session: Session | None = None
        """The client's session; None before the hello."""
        machine = Machine("server", limits, framing=framing)
        self.channel = Channel(receive, send, machine, self._handle, greeted=self._greet)
        self._context = ClientContext(self.channel)
        self._n_asking = 0
        self._greeted = trio.Event()
        self._subscribed: trio.CancelScope | None = None
        self._nursery: trio.Nursery | None = None
        self._own: dict[str, Callable[[Mapping[str, Any]], Awaitable[Any]]] = {
            "ping": self._ping,
            "describe": self._describe,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "shutdown": self._shutdown,
        }

    @property
    def is_waiting(self) -> bool:
        """Whether the client has not sent its hello yet, and its connection is not closing."""
        return self.session is None and not self.channel.closing

    async def serve(self) -> EvocellError:
        """Serve the client until the connection is over.

        Returns:
            Why it ended.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._expect_hello)
            try:
                why = await self.channel.serve()
            finally:
                self._nursery = None
                if self.session is not None and self.session.channel is self.channel:
                    self.session.channel = None
            nursery.cancel_scope.cancel()
        return why

    def tell(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a droppable notification, if the handshake is complete."""
        if self.session is not None:
            self.channel.notify_nowait(method, params)

    async def _expect_hello(self) -> None:
        with trio.move_on_after(self._limits.hello_s):
            await self._greeted.wait()
            return
        self.channel.close(errors.Unauthorized(f"there was no hello within {self._limits.hello_s:g} s"))

    async def _greet(self, greeted: Greeted) -> None:
        machine = self.channel.machine
        try:
            hello = self._read_hello(greeted.params)
            session = self._host.open_session(hello)
        except EvocellError as error:
            self.channel.accept(machine.fail(greeted.msgid, error))
            self.channel.close(error)
            await trio.lowlevel.checkpoint()
            return
        self.session = session
        session.channel = self.channel
        result = {
            "protocol": PROTOCOL,
            "server": self._host.version,
            "session": {
                "name": session.name,
                "key": session.key if session.detached else None,
                "attached": hello.attach is not None,
                "last_event": session.last_event,
            },
            "image": dict(self._host.image),
            "limits": dict(shown_limits(self._limits)),
            "types": asdict(hello.types),
        }
        self.channel.accept(machine.accept(greeted.msgid, result, hello.types))
        if self._host.failure is not None:  # all others have been notified before
            self.tell("image.failed", errors.to_wire(self._host.failure))
        self._greeted.set()

    def _read_hello(self, params: Mapping[str, Any]) -> Hello:
        asked = params.get("protocol", PROTOCOL)
        if asked != PROTOCOL:
            raise UnsupportedProtocol(f"this server speaks protocol {PROTOCOL}, not {asked!r}", [PROTOCOL])
        hello: Hello = decode(dict(params), Hello, "hello", self._context)
        if self._token is not None and not hmac.compare_digest(
            (hello.token or "").encode(), self._token.encode()
        ):
            raise Unauthorized("the token is missing or wrong; it is in the file that --token-file names")
        return hello

    async def _handle(self, msgid: int, method: str, params: Mapping[str, Any]) -> Any:
        own = self._own.get(method)
        if own is not None:
            return await own(params)
        found = find_method(method)
        if found.owner_only and self._host.is_shared:
            raise MethodNotFound(
                f"{method} is about what clients share, or files; a server with a single client offers it "
                "(evocell serve on standard input, or with --max-clients 1)",
                method,
            )
        context = ClientContext(self.channel)
        given = found.read(params, context)
        with self._asking(context):
            return await self._call(msgid, found, given)

    @contextmanager
    def _asking(self, context: ClientContext) -> Iterator[None]:
        """Bound the requests that block threads on a client, since threads are shared by all clients."""
        if context.holds_threads and self._n_asking >= self._limits.max_asking:
            raise Busy(
                f"{self._n_asking} requests that lend functions are under way, and no more may be",
                self._limits.max_asking,
            )
        self._n_asking += context.holds_threads
        try:
            yield
        finally:
            self._n_asking -= context.holds_threads

    async def _call(self, msgid: int, found: Method, given: Mapping[str, Any]) -> Any:
        assert self.session is not None
        engine = await self.session.engine()
        method = found.name
        if found.blocks:
            part, _, name = method.partition(".")
            ask = partial(getattr(getattr(engine, part), name), **given)
            return encode(await trio.to_thread.run_sync(ask), found.result)
        if found.streams:
            return await self._stream(msgid, getattr(engine, method)(**given), found)
        return await _encoded(await getattr(engine, method)(**given), found)

    async def _stream(self, msgid: int, parts: Any, found: Method) -> dict[str, int]:
        n_parts = 0
        async with parts as stream:
            async for part in stream:
                await self.channel.notify("part", {"msgid": msgid, "part": await _encoded(part, found)})
                n_parts += 1
        return {"parts": n_parts}

    async def _ping(self, params: Mapping[str, Any]) -> None:
        _refuse_arguments("ping", params)

    async def _describe(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        _refuse_arguments("describe", params)
        return describe()

    async def _subscribe(self, params: Mapping[str, Any]) -> dict[str, int]:
        wanted: Subscription = decode(dict(params), Subscription, "subscribe", self._context)
        assert self.session is not None
        stream = (await self.session.engine()).event_stream
        opened = stream.subscribe(wanted.prefix, after=wanted.after, capacity=self._limits.max_queued_events)
        self._stop_events()
        assert self._nursery is not None
        scope = self._subscribed = trio.CancelScope()
        self._nursery.start_soon(self._send_events, opened, scope)
        return {"last": stream.last_seq}

    async def _unsubscribe(self, params: Mapping[str, Any]) -> None:
        _refuse_arguments("unsubscribe", params)
        self._stop_events()

    def _stop_events(self) -> None:
        if self._subscribed is not None:
            self._subscribed.cancel()
            self._subscribed = None

    async def _send_events(self, opened: EventSubscription, scope: trio.CancelScope) -> None:
        told = 0
        with opened, scope, suppress(ConnectionClosed):
            while True:
                await opened.wait()
                events = opened.take()
                if not events:
                    return  # the session has ended
                for event in events:
                    lost = opened.missed + opened.dropped
                    plain = msgpack.unpackb(event.packed)
                    await self.channel.notify("event", {**plain, "dropped": lost - told})
                    told = lost

    async def _shutdown(self, params: Mapping[str, Any]) -> None:
        _refuse_arguments("shutdown", params)
        assert self.session is not None
        self.session.detached = False
        self.session.end()
        await self.session.ended.wait()
        assert self._nursery is not None
        self._nursery.start_soon(self._leave)

    async def _leave(self) -> None:
        """Close after the answer to the shutdown has been queued."""
        while self.channel.machine.in_flight:
            await trio.lowlevel.checkpoint()
        self.channel.close(ConnectionClosed("the session was shut down"))


async def _encoded(result: Any, found: Method) -> Any:
    """Convert a result to plain data; a long one in a thread, so that it does not block other clients."""
    if is_long(result):
        return await trio.to_thread.run_sync(encode, result, found.result)
    return encode(result, found.result)


def _refuse_arguments(method: str, params: Mapping[str, Any]) -> None:
    if params:
        raise ConfigurationError(f"{method} takes no arguments, and got {', '.join(params)}", method)
