"""Messages on their way into a stream: in order, each whole, and at once where the stream takes them.

A message of a hundred bytes into a pipe with room takes two microseconds; waiting for the event loop to say
that there is room takes fifty.
"""

from __future__ import annotations

import os
from collections import deque

import trio

__all__ = ["Outgoing"]


class Outgoing:
    """What is to be written to a stream. Run `serve` in a task, for what the stream does not take at once.

    Args:
        stream: Where to. Nothing else may write to it.
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
        """Length of all messages put so far."""

    def put(self, data: bytes) -> None:
        """Write a message, now or as soon as those before it are written. Lost if the other side is gone."""
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
        """Put a message, to be written with the next ones, or by `release`, in one go."""
        self.put_bytes += len(data)
        self._held.append(data)

    def release(self) -> None:
        """Write what is held."""
        if self._held:
            self.put(b"")

    async def written(self) -> None:
        """Wait until everything that was put is written, or the other side is gone.

        Cancellation: It is written all the same.
        """
        while self._waiting:
            await self._empty.wait()

    async def serve(self) -> None:
        """Write what the stream did not take at once.

        Cancellation: The stream may have half a message, and is of no more use; nobody waits any longer.
        """
        try:
            while True:
                await self._more.wait()
                self._more = trio.Event()
                try:
                    while self._waiting:  # the first stays until it is written: none may overtake it
                        await self._stream.send_all(self._waiting[0])
                        self._waiting.popleft()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._give_up()
                self._tell_empty()
        finally:
            self._give_up()
            self._tell_empty()

    def _give_up(self) -> None:
        """Write nothing any more."""
        self._broken = True
        self._waiting.clear()

    def _tell_empty(self) -> None:
        """Have those go on who wait until nothing is left to be written."""
        self._empty.set()
        self._empty = trio.Event()

    def _write_now(self, pipe: trio.lowlevel.FdStream, data: bytes) -> int:
        """Write what fits into the pipe; returns how much."""
        try:
            return os.write(pipe.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:  # the reader of the other direction says how it ended
            self._broken = True
            return len(data)
