"""A worker process as its owner holds it: two streams, and a way to end it."""

from __future__ import annotations

import array
import fcntl
import os
import subprocess
import sys
import termios

import trio

__all__ = ["WorkerChild"]

_POLL_S = 0.005

# glibc's own threshold, but fixed: else it grows with the first large block that is freed, and what a guest's
# store takes in one piece, and mostly never touches, comes out of used heap: 340 KB a session.
_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": "131072"}

_MODULE = "evocell.guests.main"
# Nothing of what is imported becomes garbage, so looking for some would only take time.
_PROGRAM = (
    f"import gc; gc.disable(); from {_MODULE} import main; gc.freeze(); gc.enable(); raise SystemExit(main())"
)


class WorkerChild:
    """One worker process, just started.

    It is in a process group of its own: a terminal sends its Ctrl-C to a whole group, and a worker that is
    only just starting would die of it before it could say that it wants to ignore it.

    Attributes:
        pid: Its process id.
        send: Its standard input.
        receive: Its standard output.

    Raises:
        OSError: It could not be started.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, on a program of ours
            [sys.executable, "-c", _PROGRAM, _MODULE],  # the name is for who looks at the processes
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**_ALLOCATION, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            process_group=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.pid = self._process.pid
        with self._process.stdin as sink, self._process.stdout as source:
            self.send = trio.lowlevel.FdStream(os.dup(sink.fileno()))
            self.receive = trio.lowlevel.FdStream(os.dup(source.fileno()))

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def unread_bytes(self) -> int:
        """How much it has written that nobody has read yet."""
        return _held_by(self.receive)

    @property
    def unheard_bytes(self) -> int:
        """How much was written to it that it has not read yet."""
        return _held_by(self.send)

    def kill(self) -> None:
        """Kill it; nothing happens if it has ended."""
        self._process.kill()

    async def end(self, grace_s: float) -> None:
        """End it: its input ends first, and after a while it is killed.

        Args:
            grace_s: Seconds it may take to end by itself.
        """
        await self.send.aclose()
        with trio.move_on_after(grace_s):
            await self._wait()
        if self.is_alive:
            self.kill()
            await self._wait()
        await self.receive.aclose()

    async def _wait(self) -> None:
        while self.is_alive:  # noqa: ASYNC110 - for a moment, and only at its end
            await trio.sleep(_POLL_S)


def _held_by(pipe: trio.lowlevel.FdStream) -> int:
    """Bytes that are in a pipe; 0 once this end is closed."""
    size = array.array("i", [0])
    try:
        fcntl.ioctl(pipe.fileno(), termios.FIONREAD, size)
    except (OSError, ValueError):
        return 0
    return size[0]
