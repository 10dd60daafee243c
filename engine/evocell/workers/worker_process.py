"""One worker process from its start to its end: started, opened, given requests, watched, ended."""

from __future__ import annotations

import array
import fcntl
import logging
import os
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import trio

from evocell.errors import ProtocolError
from evocell.execution.messages import CopyRefused, GuestRequest, GuestResult, ImageRefused
from evocell.execution.payload_cache import RequestSender
from evocell.execution.rpc import Connection, ConnectionLost, RequestFailed
from evocell.lru import LruCache
from evocell.models.info import WorkerKill
from evocell.workers.hang_detector import IDLE_PING_S, PING_S, HangDetector

__all__ = ["GRACE_S", "START_S", "WorkerChild", "WorkerProcess"]

START_S = 120.0
"""How long a worker may take to start and open the image; a cold disk is slow."""
GRACE_S = 2.0
"""How long a worker that was told to end may take."""
STALL_S = 60.0
"""A worker in which one slice of a guest takes so long is replaced; a slice takes milliseconds."""

SHORT_S = 0.005
"""Runs that take less time than this, in seconds, count as short."""
SHORT_AHEAD, LONG_AHEAD = 4, 2
"""Short and long runs that a worker is given at most, the one at work included."""
_SMOOTHING = 0.2

_log = logging.getLogger("evocell")

_POLL_S = 0.005
# glibc's own threshold, but fixed: else it grows with the first large block that is freed, and what a guest's
# store takes in one piece, and mostly never touches, comes out of used heap: 340 KB a session.
_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": "131072"}
_MODULE = "evocell.guests.main"
# Nothing of what is imported becomes garbage, so looking for some would only take time.
_PROGRAM = (
    f"import gc; gc.disable(); from {_MODULE} import main; gc.freeze(); gc.enable(); raise SystemExit(main())"
)


class WorkerProcess:
    """A worker process, which `live` starts and ends. Once over it never comes back; another takes its place.

    Args:
        name: The name of its place in the pool.
        opening: What the process is told to open.
        names: Names of blobs that are known; shared by all workers.
        cache_bytes: How much of what runs refer to it keeps.
        on_kill: Told when it is to be killed for what it holds.
    """

    def __init__(
        self,
        name: str,
        opening: Mapping[str, Any],
        names: LruCache[bytes, str],
        cache_bytes: int,
        *,
        on_kill: Callable[[WorkerKill], None],
    ) -> None:
        self.name = name
        self._opening = dict(opening)
        self._names = names
        self._cache_bytes = cache_bytes
        self._on_kill = on_kill
        self._owners: Counter[str] = Counter()
        self._process: WorkerChild | None = None
        self._connection: Connection | None = None
        self._sender: RequestSender | None = None
        self._verdict: str | None = None
        self._scope = trio.CancelScope()
        self._busy = trio.Event()
        self._changed = trio.Event()
        self._dismissed = trio.Event()
        self.over = trio.Event()
        """Set when it answers nothing any more, and its sessions are gone."""
        self.gone = trio.Event()
        """Set when there is no process any more."""
        self.refused: str | None = None
        """Why the process could not open the image, if that is why it ended."""
        self.leaving = False
        """Whether another takes its place, and it is given no further sessions."""
        self.under_way: Counter[str | None] = Counter()
        """Runs in it, by session; those that need none are under None."""
        self.n_under_way = 0
        """How many runs are in it."""
        self.capacity = 0
        """How many sessions there is room for in it."""
        self.finished = 0
        """Runs that came to an end in it."""
        self._typical_s = 0.0

    @property
    def is_up(self) -> bool:
        """Whether its process has opened the image and has not ended."""
        # A process that is ending closes its pipes before it is seen to have ended.
        if self._connection is None or self._connection.is_lost or self._verdict is not None:
            return False
        return self._process is not None and self._process.is_alive

    @property
    def room(self) -> int:
        """How many more runs it should be given that could go elsewhere, or wait.

        One at work has a few short ones waiting, so that it need not wait for the next. Of long ones it has
        only one: which worker will be free first is known when it is.
        """
        ahead = SHORT_AHEAD if self._typical_s < SHORT_S else LONG_AHEAD
        return max(0, ahead - self.n_under_way)

    @property
    def pid(self) -> int | None:
        """The process, as long as it can be given work."""
        return self._process.pid if self._process is not None and self.is_up else None

    @property
    def missed(self) -> int:
        """How often it had lost what it was believed to have."""
        return 0 if self._sender is None else self._sender.missed

    @property
    def sent_bytes(self) -> int:
        """Length of all messages that were sent to it."""
        return 0 if self._connection is None else self._connection.sent_bytes

    def note_kill(self, why: str) -> None:
        """Take note why the process is being killed."""
        self._verdict = why

    def note_memory_kill(self, *, limit: int, reached: int) -> None:
        """Take note that the process is being killed for the memory it holds, in bytes."""
        owners = tuple(sandbox_id for sandbox_id in self._owners if sandbox_id)
        self._on_kill(WorkerKill(worker=self.name, limit=limit, reached=reached, sandbox_ids=owners))
        self.note_kill(f"its memory reached {reached:,} bytes, over worker_max_memory, {limit:,}")

    def drain(self) -> None:
        """Have it end once no run is under way; it must be given no more."""
        self._dismissed.set()

    def exit_reason(self) -> str:
        """Say what became of the process while it had calls under way."""
        how = "died" if self._verdict is None else "was killed"
        why = "" if self._verdict is None else f": {self._verdict}"
        return f"{self.name} {how} with calls under way{why}"

    async def run(self, request: GuestRequest) -> GuestResult:
        """Have a run done.

        Raises:
            ConnectionLost: The process went away first.
            ProtocolError: It refused, or answered with nonsense, and is replaced.
        """
        sender = self._sender
        if sender is None:
            raise ConnectionLost(f"{self.name} is not up")
        self._count_in(request.session)
        self._owners[request.sandbox_id] += 1
        try:
            seen = await sender.run(request)
        except RequestFailed as error:
            raise ProtocolError(f"{self.name} refused a run: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._scope.cancel()
            raise ProtocolError(f"{self.name} answered with nonsense, and is replaced: {error}") from error
        else:
            self.finished += 1
            if seen.result is not None:
                self._typical_s += _SMOOTHING * (seen.result.ran_s - self._typical_s)
            return seen
        finally:
            self._owners[request.sandbox_id] -= 1
            if not self._owners[request.sandbox_id]:
                del self._owners[request.sandbox_id]
            self._count_out(request.session)

    async def wait_without(self, session: str) -> None:
        """Wait until no run in a session is under way."""
        while session in self.under_way:
            await self._changed.wait()

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """Ask the process for something that is no run.

        Raises:
            ConnectionLost: It is not up, or went away first.
            RequestFailed: It answered with an error.
        """
        if self._connection is None:
            raise ConnectionLost(f"{self.name} is not up")
        return await self._connection.request(method, params)

    async def copying(self, sessions: Sequence[str | None], method: str, params: dict[str, Any]) -> Any:
        """Have something done about a copy of a session, which counts as a run in each that is named.

        Raises:
            CopyRefused: It cannot be done, or the process went away first.
            ProtocolError: It failed there.
        """
        if self._connection is None:
            raise CopyRefused(f"{self.name}, which held its state, is gone")
        for session in sessions:
            self._count_in(session)
        try:
            answer = await self._connection.request(method, params)
        except ConnectionLost:
            raise CopyRefused(self.exit_reason()) from None
        except RequestFailed as error:
            raise ProtocolError(f"{self.name} failed at {method}: {error}") from error
        finally:
            for session in sessions:
                self._count_out(session)
        self.finished += 1
        if "refused" in answer:
            raise (ImageRefused if answer.get("image") else CopyRefused)(answer["refused"])
        return answer["done"]

    async def live(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the process and watch over it until it ends. Started once it is up, or over.

        Cancellation: The process is ended.
        """
        try:
            process = WorkerChild()
        except OSError as error:
            _log.warning("%s cannot be started: %s", self.name, error)
            self.over.set()
            self.gone.set()
            task_status.started()
            return
        connection = Connection(process.receive, process.send)
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._serve, connection)
                    if await self._open(process, connection):
                        self._process, self._connection = process, connection
                        self._sender = RequestSender(connection, self._names, self._cache_bytes)
                        task_status.started()
                        nursery.start_soon(self._watch, process, connection)
                        await self._dismissed.wait()
                        await self._wait_idle()
                    nursery.cancel_scope.cancel()
        finally:
            never_up, self._connection = self._connection is None, None
            self.over.set()
            with trio.CancelScope(shield=True):
                await process.end(GRACE_S)
            self.gone.set()
            if never_up:
                task_status.started()

    async def _open(self, process: WorkerChild, connection: Connection) -> bool:
        """Have a process that was just started open the image; whether it did."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill_late, self.name, process)
            opened = False
            try:
                self.capacity = int(await connection.request("open", self._opening))
                opened = True
            except RequestFailed as error:
                self.refused = str(error)
            except ConnectionLost:
                pass
            nursery.cancel_scope.cancel()
        return opened

    async def _serve(self, connection: Connection) -> None:
        await connection.serve()
        self._scope.cancel()

    async def _watch(self, process: WorkerChild, connection: Connection) -> None:
        """Ask the process now and then whether it is there, and kill it when it will not answer any more."""
        detector = HangDetector(process.pid)
        async with trio.open_nursery() as nursery:
            while True:
                with trio.move_on_after(IDLE_PING_S):
                    await self._busy.wait()
                    await trio.sleep(PING_S)
                question = _Question(connection)
                # On its own: what a hanging worker does not read cannot be written to the end.
                nursery.start_soon(question.ask)
                why = await detector.wait(question.answered, excused=partial(_excused, process, question))
                if why is None and question.stalled_s > STALL_S:
                    why = f"a slice of a guest has been running for {question.stalled_s:.0f} s"
                if why is not None:
                    self.note_kill(why)
                    _log.warning("%s (process %d) killed: %s", self.name, process.pid, why)
                    process.kill()  # its end is seen where its output is read
                    return

    async def _wait_idle(self) -> None:
        while self.under_way:
            await self._changed.wait()

    def _count_in(self, session: str | None) -> None:
        self.under_way[session] += 1
        self.n_under_way += 1
        self._busy.set()

    def _count_out(self, session: str | None) -> None:
        self.n_under_way -= 1
        self.under_way[session] -= 1
        if not self.under_way[session]:
            del self.under_way[session]
            self._changed.set()
            self._changed = trio.Event()
        if not self.n_under_way:
            self._busy = trio.Event()


class _Question:
    """A question whether the other side is there, and its answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.answered = trio.Event()
        self.is_sent = False
        self.stalled_s = 0.0

    def _sent(self) -> None:
        self.is_sent = True

    async def ask(self) -> None:
        """Ask; a side that is gone counts as one that has answered."""
        with suppress(ConnectionLost, RequestFailed, TypeError, ValueError):
            self.stalled_s = float(await self._connection.probe("ping", sent=self._sent))
        self.answered.set()


def _excused(process: WorkerChild, question: _Question) -> bool:
    """Whether a process has nothing to answer, or something it has said has not been read."""
    asked = question.is_sent or process.unheard_bytes > 0
    return not asked or process.unread_bytes > 0


async def _kill_late(name: str, process: WorkerChild) -> None:
    """Kill a process that has not started when its time is over."""
    await trio.sleep(START_S)
    _log.warning("%s (process %d) killed: it did not start within %g s", name, process.pid, START_S)
    process.kill()


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
        """Bytes it has written that were not read yet."""
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
