"""Concurrent requests and responses over a pair of byte streams."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any

import trio
from attrs import define, field

from evocell.errors import EvocellError, ProtocolError
from evocell.wire.frames import FrameLimits, FrameReader, Notification, Request, Response, encode_message

__all__ = ["FRAME_LIMITS", "Answer", "Connection", "ConnectionLost", "Outgoing", "Posted", "RequestFailed"]

FRAME_LIMITS = FrameLimits(max_bytes=1 << 29, max_items=4096, max_depth=8)
"""Limits between an engine and its workers: few values, some of them long."""

_READ_BYTES = 1 << 16
_CANCEL = "cancel"

Handler = Callable[[str, dict[str, Any]], Awaitable[Any]]
Answer = Callable[[dict[str, Any] | None, Any], None]


class ConnectionLost(EvocellError):
    """The other side was lost, or violated the protocol; no further request will be answered."""


class RequestFailed(EvocellError):
    """The other side answered with an error."""


@define(eq=False)
class _Pending:
    """A request waiting for its answer."""

    over: trio.Event = field(factory=trio.Event)
    answer: Response | None = None
    on_end: Callable[[], object] = bool

    def end(self) -> None:
        """Wake the task that waits; the request was answered, or the other side lost."""
        if not self.over.is_set():
            self.over.set()
            self.on_end()


class Connection:
    """One end of a pair of streams. Each end may send requests and answer them.

    Run `serve` in a task; it ends when the other side is lost.

    Args:
        receive: Stream of incoming messages.
        send: Stream of outgoing messages.
        handler: Answers requests: gets a method and its parameters. An `EvocellError` it raises
            becomes an error for the other side. A request that is cancelled there is cancelled here.
        notified: Called with each notification, before anything sent after it is processed.
        quick: Called first with each request and a function that takes the answer (an error or None,
            and a result). It returns a function that cancels the request, or None to decline; then
            `handler` gets the request in a task.
    """

    def __init__(
        self,
        receive: trio.abc.ReceiveStream,
        send: trio.abc.SendStream,
        handler: Handler | None = None,
        *,
        notified: Callable[[str, dict[str, Any]], None] | None = None,
        quick: Callable[[str, dict[str, Any], Answer], Callable[[], object] | None] | None = None,
    ) -> None:
        self._receive = receive
        self._outgoing = Outgoing(send)
        self._quick = quick
        self._handler = handler
        self._notified = notified
        self._ids = count(1)
        self._pending: dict[int, _Pending] = {}
        self._stops: dict[int, Callable[[], object]] = {}
        self.is_lost = False
        """Whether the other side is lost: every request fails from now on."""
        self._why_lost = "the connection is closed"

    @property
    def waiting(self) -> int:
        """Requests that wait for an answer."""
        return len(self._pending)

    @property
    def stoppable(self) -> int:
        """Unanswered requests of the other side."""
        return len(self._stops)

    @property
    def sent_bytes(self) -> int:
        """Total length of all messages sent."""
        return self._outgoing.put_bytes

    async def request(self, method: str, params: dict[str, Any], *, sent: Callable[[], object] = bool) -> Any:
        """Send a request, and wait for the answer.

        Args:
            method: The request's method.
            params: Its parameters.
            sent: Called when it has been written; not if the other side is lost.

        Raises:
            ConnectionLost: The other side went away first.
            RequestFailed: It answered with an error.

        Cancellation: The other side is told to stop, and this waits until it has stopped.
        """
        msgid, pending = self._new_request()
        try:
            await self._ask(msgid, pending, method, params, sent)
        except trio.Cancelled:
            await self._stop(msgid, pending)
            raise
        finally:
            del self._pending[msgid]
        return self._result(pending)

    def post(self, method: str, params: dict[str, Any], *, ended: Callable[[], object]) -> Posted:
        """Send a request without waiting for the answer.

        Args:
            method: The request's method.
            params: Its parameters.
            ended: Called once when it has been answered, or the other side is lost.
        """
        msgid, pending = self._new_request()
        pending.on_end = ended
        if self.is_lost:
            pending.end()
        else:
            self._outgoing.put(encode_message(Request(msgid, method, params)))
        return Posted(self, msgid, pending)

    async def _stop(self, msgid: int, pending: _Pending) -> None:
        """Tell the other side to stop a request, and wait until it has."""
        with trio.CancelScope(shield=True):
            if not pending.over.is_set():
                await self.notify(_CANCEL, {"msgid": msgid})
                await pending.over.wait()

    async def probe(self, method: str, *, sent: Callable[[], None]) -> Any:
        """Probe whether the other side responds, with a request that takes it no time.

        Args:
            method: The request's method.
            sent: Called when the request has been written.

        Raises:
            ConnectionLost: The other side was lost.
            RequestFailed: It answered with an error.

        Cancellation: Does not wait for the other side, which may be hung.
        """
        msgid, pending = self._new_request()
        try:
            await self._ask(msgid, pending, method, {}, sent)
        finally:
            del self._pending[msgid]
        return self._result(pending)

    def _new_request(self) -> tuple[int, _Pending]:
        msgid = next(self._ids) & 0xFFFFFFFF
        pending = self._pending[msgid] = _Pending()
        return msgid, pending

    async def _ask(
        self,
        msgid: int,
        pending: _Pending,
        method: str,
        params: dict[str, Any],
        sent: Callable[[], object] = bool,
    ) -> None:
        if not self.is_lost:
            await self._write(Request(msgid, method, params))
            sent()
            await pending.over.wait()

    def _result(self, pending: _Pending) -> Any:
        if pending.answer is None:
            raise ConnectionLost(self._why_lost)
        if pending.answer.error is not None:
            raise RequestFailed(str(pending.answer.error.get("message", "the request failed")))
        return pending.answer.result

    async def notify(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification; no effect if the other side is lost."""
        await self._write(Notification(method, params))

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification, without waiting until it is written."""
        self._outgoing.put(encode_message(Notification(method, params)))

    async def serve(self) -> str:
        """Read messages and answer requests until the other side is lost.

        Returns:
            Why it ended, in a sentence.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._outgoing.serve)
                try:
                    self._end(await self._read(nursery))
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            self._end("the connection was closed")
        return self._why_lost

    async def _read(self, nursery: trio.Nursery) -> str:
        reader = FrameReader(FRAME_LIMITS)
        while True:
            try:
                data = await self._receive.receive_some(_READ_BYTES)
                if not data:
                    return "the other side closed the connection"
                for message in reader.feed(bytes(data)):
                    self._take(message, nursery)
                self._outgoing.release()
            except ProtocolError as error:
                return str(error)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return "the connection broke"

    def _take(self, message: Request | Response | Notification, nursery: trio.Nursery) -> None:
        match message:
            case Response(msgid):
                if (pending := self._pending.get(msgid)) is not None:
                    pending.answer = message
                    pending.end()
            case Request(msgid):
                if not self._take_quickly(message):
                    # Created here and not by the task, which may start only after the cancellation was read.
                    scope = trio.CancelScope()
                    self._stops[msgid] = scope.cancel
                    nursery.start_soon(self._answer, message, scope)
            case Notification(method, params) if method == _CANCEL:
                if (stop := self._stops.get(params.get("msgid", 0))) is not None:
                    stop()
            case Notification(method, params) if self._notified is not None:
                self._notified(method, params)

    def _take_quickly(self, request: Request) -> bool:
        if self._quick is None:
            return False
        msgid = request.msgid
        self._stops[msgid] = bool  # placeholder; removed by an immediate answer
        try:
            stop = self._quick(request.method, request.params, partial(self._answer_quickly, msgid))
        except EvocellError as failure:
            self._answer_now(msgid, _told(failure), None)
            return True
        if stop is None:
            del self._stops[msgid]
        elif msgid in self._stops:
            self._stops[msgid] = stop
        return stop is not None

    def release(self) -> None:
        """Flush the answers to quick requests; they may be held back until then."""
        self._outgoing.release()

    def _answer_quickly(self, msgid: int, error: dict[str, Any] | None, result: Any) -> None:
        self._stops.pop(msgid, None)
        self._outgoing.hold(encode_message(Response(msgid, error, result)))

    def _answer_now(self, msgid: int, error: dict[str, Any] | None, result: Any) -> None:
        self._stops.pop(msgid, None)
        self._outgoing.put(encode_message(Response(msgid, error, result)))

    async def _answer(self, request: Request, scope: trio.CancelScope) -> None:
        error: dict[str, Any] | None = {"code": "cancelled", "message": "the request was cancelled"}
        result = None
        with scope:
            try:
                if self._handler is None:
                    raise ProtocolError("this end answers no requests")
                result = await self._handler(request.method, request.params)
                error = None
            except EvocellError as failure:
                error = _told(failure)
        self._answer_now(request.msgid, error, result)
        await self._outgoing.written()

    async def _write(self, message: Request | Response | Notification) -> None:
        self._outgoing.put(encode_message(message))
        await self._outgoing.written()

    def _end(self, why: str) -> None:
        if not self.is_lost:
            self.is_lost, self._why_lost = True, why
        for pending in tuple(self._pending.values()):
            pending.end()


class Posted:
    """A request that was sent and may still be under way; made by `Connection.post`.

    Its owner calls `close` in the end.
    """

    def __init__(self, connection: Connection, msgid: int, pending: _Pending) -> None:
        self._connection = connection
        self._msgid = msgid
        self._pending = pending

    async def wait(self) -> Any:
        """Wait for the answer.

        Raises:
            ConnectionLost: The other side went away first.
            RequestFailed: It answered with an error.
        """
        await self._pending.over.wait()
        return self._connection._result(self._pending)  # noqa: SLF001 - a part of it

    async def close(self) -> None:
        """Stop the request if it is still under way, and wait until it has stopped; idempotent.

        Cancellation: It waits all the same.
        """
        connection = self._connection
        await connection._stop(self._msgid, self._pending)  # noqa: SLF001 - a part of it
        connection._pending.pop(self._msgid, None)  # noqa: SLF001


def _told(failure: EvocellError) -> dict[str, Any]:
    return {"code": type(failure).__name__, "message": str(failure)}


class Outgoing:
    """Outgoing buffer of a stream. Run `serve` in a task, for what the stream does not accept at once.

    Args:
        stream: The stream. Nothing else may write to it.
    """

    def __init__(self, stream: trio.abc.SendStream) -> None:
        self._stream = stream
        self._pipe = stream if isinstance(stream, trio.lowlevel.FdStream) else None
        self._waiting: deque[bytes] = deque()
        self._more = trio.Event()
        self._empty = trio.Event()
        self._broken = False
        self._held: list[bytes] = []
        self.put_bytes = 0
        """Total length of all messages put."""

    def put(self, data: bytes) -> None:
        """Write a message, now or after those before it. Dropped if the other side is lost."""
        self.put_bytes += len(data)
        if self._held:
            self._held.append(data)
            data = b"".join(self._held)
            self._held = []
        if self._pipe is not None and not self._waiting and not self._broken:
            data = data[self._write_now(self._pipe, data) :]
        if data and not self._broken:
            self._waiting.append(data)
            self._more.set()

    def hold(self, data: bytes) -> None:
        """Buffer a message, to be written together with the next ones or by `release`."""
        self.put_bytes += len(data)
        self._held.append(data)

    def release(self) -> None:
        """Write the held messages."""
        if self._held:
            self.put(b"")

    async def written(self) -> None:
        """Wait until everything put is written, or the other side is lost.

        Cancellation: The messages are written all the same.
        """
        while self._waiting:
            await self._empty.wait()

    async def serve(self) -> None:
        """Write what the stream did not accept at once.

        Cancellation: The stream may have half a message, and is unusable; waiting tasks are released.
        """
        try:
            while True:
                await self._more.wait()
                self._more = trio.Event()
                try:
                    while self._waiting:  # the first stays queued until written: none may overtake it
                        await self._stream.send_all(self._waiting[0])
                        self._waiting.popleft()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._give_up()
                self._tell_empty()
        finally:
            self._give_up()
            self._tell_empty()

    def _give_up(self) -> None:
        """Drop all messages, and write no further ones."""
        self._broken = True
        self._waiting.clear()

    def _tell_empty(self) -> None:
        """Wake the tasks that wait until everything is written."""
        self._empty.set()
        self._empty = trio.Event()

    def _write_now(self, pipe: trio.lowlevel.FdStream, data: bytes) -> int:
        """Write as much as the pipe accepts; returns the number of bytes."""
        try:
            return os.write(pipe.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:  # the reader of the other direction reports the end
            self._broken = True
            return len(data)
