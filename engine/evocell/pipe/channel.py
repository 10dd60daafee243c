"""One end of a pipe over byte streams: a `Machine` with a reader and a writer task.

All buffers are bounded. Unsent messages wait in a queue bounded in bytes; while it is full, producers of
results block and nothing more is read. A peer that reads nothing for `stall_s` seconds is disconnected.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import trio
from attrs import define, field, frozen

from evocell.errors import EvocellError, ProtocolError
from evocell.pipe.errors import Busy, ConnectionClosed, InternalError, RequestCancelled
from evocell.pipe.machine import (
    Answered,
    Event,
    Greeted,
    Machine,
    NotificationReceived,
    Reading,
    Refused,
    RequestReceived,
    RequestWithdrawn,
)
from evocell.pipe.packing import is_long
from evocell.wire.frames import Message, Notification, Request, Response, frame_of

__all__ = ["Channel", "Handler", "ReceivedEvent"]

_READ_BYTES = 1 << 16
_WRITE_BYTES = 1 << 16
_LONG_BYTES = 1 << 18
_FAREWELL_S = 0.5

_log = logging.getLogger("evocell")

_CLOSED = ConnectionClosed("the connection was closed")

Handler = Callable[[int, str, Mapping[str, Any]], Awaitable[Any]]
"""Answers a request: gets its id, method and parameters."""


@define(eq=False)
class _Pending:
    """A request of this end waiting for its answer."""

    over: trio.Event = field(factory=trio.Event)
    answer: Answered | None = None


class Channel:
    """One end of a connection. Run `serve` in a task; it ends with the connection.

    Args:
        receive: Stream of incoming bytes.
        send: Stream of outgoing bytes.
        machine: The state of this end.
        handler: Answers requests. An `EvocellError` that it raises becomes the other end's error; any other
            exception is logged, and the other end gets an `InternalError`.
        greeted: Answers the client's hello, on a server.
        told: Called with each notification, in the order of the stream; None drops them.
    """

    def __init__(
        self,
        receive: trio.abc.ReceiveStream,
        send: trio.abc.SendStream,
        machine: Machine,
        handler: Handler,
        *,
        greeted: Callable[[Greeted], Awaitable[None]] | None = None,
        told: Callable[[str, Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._receive = receive
        self._stream = send
        self.machine = machine
        self._handler = handler
        self._greeted = greeted
        self._told = told
        self._pending: dict[int, _Pending] = {}
        self._scopes: dict[int, trio.CancelScope] = {}
        self._outgoing: deque[bytes] = deque()
        self._unsent = 0
        self._something = trio.Event()
        self._drained = trio.Event()
        self._turn = trio.Lock()
        self._ended: EvocellError | None = None
        self._life: trio.CancelScope | None = None
        self._reason: EvocellError | None = None

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for the other end to read."""
        return self._unsent

    @property
    def closed(self) -> bool:
        """Whether the connection is over."""
        return self._ended is not None

    @property
    def closing(self) -> bool:
        """Whether the connection is closing or over."""
        return self._reason is not None or self._ended is not None

    async def serve(self) -> EvocellError:
        """Read, answer and write until the connection is over.

        Returns:
            Why it ended: a `ProtocolError` if the other end broke a rule.

        Cancellation: Every request under way is cancelled; the connection is over.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            async with trio.open_nursery() as answering:
                self._life = answering.cancel_scope
                if self._reason is not None:
                    answering.cancel_scope.cancel()
                try:
                    why = await self._read(answering)
                    self._reason = why if self._reason is None else self._reason
                finally:
                    # Before waiting for the handler tasks, which may themselves wait for an answer.
                    self._end(_CLOSED if self._reason is None else self._reason)
                    answering.cancel_scope.cancel()
            await self._say_farewell()
            nursery.cancel_scope.cancel()
        assert self._ended is not None
        return self._ended

    def close(self, reason: EvocellError) -> None:
        """End the connection, sending the reason to the other end; `serve` returns soon."""
        if self._reason is None:
            self._reason = reason
        if self._life is not None:
            self._life.cancel()

    async def request(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        sent: Callable[[int], None] | None = None,
        trusting: bool = True,
    ) -> Any:
        """Send a request, and wait for its answer.

        Args:
            method: The method.
            params: Arguments by name.
            sent: Called with the request's id before the other end can react.
            trusting: Whether a cancelled request waits until the other end has answered, so that its work
                has stopped there. An end that does not trust the other one does not wait.

        Raises:
            ConnectionClosed: The connection is over.
            EvocellError: The error that the other end answered with.

        Cancellation: The other end is notified.
        """
        self._refuse_closed()
        async with self._turn:
            await self._room()
            self._refuse_closed()
            if self.machine.waiting >= self.machine.limits.max_in_flight:
                raise Busy(f"{self.machine.waiting:,} requests to the other end are not answered")
            msgid = self.machine.reserve()
            pending = self._pending[msgid] = _Pending()
            try:
                data = await self._encode(Request(msgid, method, dict(params)))
                self._refuse_closed()
            except BaseException:
                del self._pending[msgid]
                self.machine.release(msgid)
                raise
            if sent is not None:
                sent(msgid)
            self._push(data)
        try:
            await pending.over.wait()
        except trio.Cancelled:
            if self._ended is None:
                self._push(self.machine.cancel(msgid))
            if trusting:
                with trio.CancelScope(shield=True):
                    await pending.over.wait()
            raise
        finally:
            del self._pending[msgid]
        if pending.answer is None:
            raise ConnectionClosed(str(self._ended)) from self._ended
        if pending.answer.error is not None:
            raise pending.answer.error
        return pending.answer.result

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification, once the send queue has room.

        Raises:
            ConnectionClosed: The connection is over.
        """
        self._refuse_closed()
        async with self._turn:
            await self._room()
            self._push(await self._encode(Notification(method, dict(params))))

    def notify_nowait(self, method: str, params: Mapping[str, Any]) -> bool:
        """Send a notification unless the send queue is full; returns whether it was sent."""
        if self._ended is not None or self._unsent > self.machine.limits.max_unsent_bytes:
            return False
        self._push(self.machine.notify(method, params))
        return True

    def accept(self, data: bytes) -> None:
        """Send the answer to a hello."""
        self._push(data)

    async def _read(self, nursery: trio.Nursery) -> EvocellError:
        try:
            while True:
                data = await self._receive.receive_some(_READ_BYTES)
                if not data:
                    self.machine.receive_end()
                    return ConnectionClosed("the other end closed the connection")
                found = await self._found(bytes(data))
                for message, n_bytes in found.messages:
                    await self._take(self.machine.take(message, n_bytes), nursery)
                if found.error is not None:
                    return found.error
                await self._room()
        except ProtocolError as error:
            return error
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return ConnectionClosed("the connection broke")

    async def _found(self, data: bytes) -> Reading:
        """Parse messages from bytes; long input in a thread, so that it does not block other tasks."""
        machine = self.machine
        if machine.pending_bytes + len(data) < _LONG_BYTES:
            return machine.read(data)
        return await trio.to_thread.run_sync(machine.read, data)

    async def _take(self, event: Event, nursery: trio.Nursery) -> None:
        match event:
            case Answered(msgid):
                if (pending := self._pending.get(msgid)) is not None:
                    pending.answer = event
                    pending.over.set()
            case RequestReceived(msgid):
                # Created here and not by the task, which may start only after the cancellation was read.
                scope = self._scopes[msgid] = trio.CancelScope()
                nursery.start_soon(self._answer, event, scope)
            case RequestWithdrawn(msgid):
                if (asked := self._scopes.get(msgid)) is not None:
                    asked.cancel()
            case Refused(msgid, error):
                async with self._turn:
                    await self._room()
                    self._push(self.machine.fail(msgid, error))
            case Greeted():
                assert self._greeted is not None
                await self._greeted(event)
            case NotificationReceived(method, params):
                if self._told is not None:
                    self._told(method, params)

    async def _answer(self, request: RequestReceived, scope: trio.CancelScope) -> None:
        error: EvocellError = RequestCancelled()
        result: Any = None
        done = False
        try:
            with scope:
                try:
                    result = await self._handler(request.msgid, request.method, request.params)
                    done = True
                except EvocellError as failure:
                    error = failure
                except Exception as fault:  # noqa: BLE001 - one request's fault is no other's
                    _log.exception("the request %r failed", request.method)
                    error = InternalError(
                        f"{request.method} failed inside the server: {type(fault).__name__}"
                    )
        finally:
            del self._scopes[request.msgid]
        async with self._turn:
            await self._room()
            sent = await self._answered(request.msgid, result) if done else None
            self._push(sent or self._failed(request.msgid, error))

    async def _answered(self, msgid: int, result: Any) -> bytes:
        try:
            data = await self._encode(Response(msgid, None, result))
        except ProtocolError as error:
            return self._failed(msgid, error)
        self.machine.settle(msgid)
        return data

    async def _encode(self, message: Message) -> bytes:
        """Encode a message; a long one in a thread, so that it does not block other tasks."""
        if is_long(frame_of(message)):
            return await trio.to_thread.run_sync(self.machine.encode, message)
        return self.machine.encode(message)

    def _failed(self, msgid: int, error: EvocellError) -> bytes:
        try:
            return self.machine.fail(msgid, error)
        except ProtocolError as unsayable:
            return self.machine.fail(msgid, InternalError(f"{type(error).__name__}: {unsayable}"))

    def _push(self, data: bytes) -> None:
        self._outgoing.append(data)
        self._unsent += len(data)
        self._something.set()

    async def _room(self) -> None:
        """Wait until the send queue has room."""
        while self._unsent > self.machine.limits.max_unsent_bytes:
            await self._drained.wait()

    async def _write(self) -> None:
        while True:
            await self._something.wait()
            try:
                while self._outgoing:
                    await self._write_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.close(ConnectionClosed("the connection broke"))
                return
            self._something = trio.Event()

    async def _write_some(self) -> None:
        """Send the next message, or several short ones, in pieces."""
        chunk = self._outgoing.popleft()
        while self._outgoing and len(chunk) + len(self._outgoing[0]) <= _WRITE_BYTES:
            chunk += self._outgoing.popleft()
        view = memoryview(chunk)
        for start in range(0, len(view), _WRITE_BYTES):
            piece = view[start : start + _WRITE_BYTES]
            with trio.move_on_after(self.machine.limits.stall_s) as patience:
                await self._stream.send_all(piece)
            if patience.cancelled_caught:
                self._outgoing.clear()
                stall = f"the other end has read nothing for {self.machine.limits.stall_s:g} s"
                self.close(ConnectionClosed(stall))
                await trio.sleep_forever()
            self._unsent -= len(piece)
            self._drained.set()
            self._drained = trio.Event()

    async def _say_farewell(self) -> None:
        """Flush the last messages for a short time, and send the reason for closing."""
        assert self._reason is not None
        with suppress(ProtocolError):
            self._push(self.machine.close(self._reason))
        with trio.move_on_after(_FAREWELL_S):
            while self._unsent:
                await self._drained.wait()

    def _refuse_closed(self) -> None:
        if self._ended is not None:
            raise ConnectionClosed(str(self._ended)) from self._ended

    def _end(self, why: EvocellError) -> None:
        if self._ended is None:
            self._ended = why
        for pending in self._pending.values():
            pending.over.set()


@frozen
class ReceivedEvent:
    """An event of an engine behind a pipe.

    Attributes:
        seq: Its number in the session, from 1; what to resume after.
        at: When, in seconds since 1970.
        name: Its name, such as ``"sandbox.create.stop"``.
        measurements: Numbers by name, with their units in the names.
        metadata: Further fields.
        dropped: Number of events of the subscription lost before this one, because the client was too slow or
            resumed too late.
    """

    seq: int
    at: float
    name: str
    measurements: Mapping[str, float] = field(factory=dict)
    metadata: Mapping[str, Any] = field(factory=dict)
    dropped: int = 0
