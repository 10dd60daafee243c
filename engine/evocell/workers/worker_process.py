"""Lifecycle of one worker process: start, opening the image, requests, supervision, end."""

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
from evocell.execution.messages import CopyRefused, GuestRequest, GuestResult, ImageRefused, Successor
from evocell.execution.payload_cache import RequestSender
from evocell.execution.rpc import Connection, ConnectionLost, Posted, RequestFailed
from evocell.lru import LruCache
from evocell.models.info import WorkerKill
from evocell.workers.hang_detector import IDLE_PING_S, PING_S, HangDetector

__all__ = ["GRACE_S", "START_S", "WorkerChild", "WorkerProcess"]

START_S = 120.0
"""Timeout of starting a worker and opening the image; a cold disk is slow."""
GRACE_S = 2.0
"""Timeout of a worker that was told to end."""
STALL_S = 60.0
"""A worker in which one slice of a guest takes this long is replaced; a slice takes milliseconds."""

SHORT_S = 0.005
"""Requests that take less than this, in seconds, count as short."""
SHORT_AHEAD, LONG_AHEAD = 4, 2
"""Most short and long requests assigned to one worker, including the one being run."""
_SMOOTHING = 0.2

_log = logging.getLogger("evocell")

_POLL_S = 0.005
# glibc's default threshold, but fixed: it would grow with the first large block freed, and a guest's store,
# one mostly untouched block, would then be allocated from used heap: 340 KB a session.
_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": "131072"}
_MODULE = "evocell.guests.main"
# Imports create no garbage, so collections during start-up would only take time.
_PROGRAM = (
    f"import gc; gc.disable(); from {_MODULE} import main; gc.freeze(); gc.enable(); raise SystemExit(main())"
)


class WorkerProcess:
    """One worker process, started and ended by `live`. It is not restarted; a new object takes its place.

    Args:
        name: The name of its slot in the pool.
        opening: The parameters of the request that opens the image.
        names: Names of known blobs; shared by all workers.
        cache_bytes: Size of its payload cache.
        on_kill: Called when the process is about to be killed for its memory.
        on_room: Called when a request that no task waits for has ended.
    """

    def __init__(
        self,
        name: str,
        opening: Mapping[str, Any],
        names: LruCache[bytes, str],
        cache_bytes: int,
        *,
        on_kill: Callable[[WorkerKill], None],
        on_room: Callable[[], object] = bool,
    ) -> None:
        self.name = name
        self._opening = dict(opening)
        self._names = names
        self._cache_bytes = cache_bytes
        self._on_kill = on_kill
        self._on_room = on_room
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
        """Set when it no longer answers, and its sessions are lost."""
        self.gone = trio.Event()
        """Set when the process has ended."""
        self.refused: str | None = None
        """Why the process could not open the image, if it ended for that."""
        self.leaving = False
        """Whether it is being replaced, and gets no further sessions."""
        self.under_way: Counter[str | None] = Counter()
        """Requests under way by session; those without a session are under None."""
        self.n_under_way = 0
        """How many runs are in it."""
        self.n_sessions = 0
        """How many sessions it holds; counted by the `SessionTable`."""
        self.capacity = 0
        """Number of sessions it has room for."""
        self.finished = 0
        """Number of requests it has finished."""
        self._typical_s = 0.0

    @property
    def is_up(self) -> bool:
        """Whether the process has opened the image and has not ended."""
        # An ending process closes its pipes before its end can be observed.
        return self.is_connected and self._process is not None and self._process.is_alive

    @property
    def is_connected(self) -> bool:
        """Whether it is up as far as its connection tells, which learns of its end a moment later."""
        connection = self._connection
        return connection is not None and not connection.is_lost and self._verdict is None

    @property
    def room(self) -> int:
        """Number of further requests to assign that could as well go elsewhere, or wait.

        A busy worker keeps a few short requests queued, so that it never idles. It gets one long request at a
        time: which worker will be free first is only known when one is.
        """
        ahead = SHORT_AHEAD if self._typical_s < SHORT_S else LONG_AHEAD
        return max(0, ahead - self.n_under_way)

    @property
    def pid(self) -> int | None:
        """Process id, as long as it accepts work."""
        return self._process.pid if self._process is not None and self.is_up else None

    @property
    def missed(self) -> int:
        """How often it lacked a blob that it was believed to have."""
        return 0 if self._sender is None else self._sender.missed

    @property
    def sent_bytes(self) -> int:
        """Total length of all messages sent to it."""
        return 0 if self._connection is None else self._connection.sent_bytes

    def note_kill(self, why: str) -> None:
        """Record why the process is being killed."""
        self._verdict = why

    def note_memory_kill(self, *, limit: int, reached: int) -> None:
        """Record that the process is being killed for holding `held_bytes`."""
        owners = tuple(sandbox_id for sandbox_id in self._owners if sandbox_id)
        self._on_kill(WorkerKill(worker=self.name, limit=limit, reached=reached, sandbox_ids=owners))
        self.note_kill(f"its memory reached {reached:,} bytes, over worker_max_memory, {limit:,}")

    def drain(self) -> None:
        """End the process once no request is under way; it must get no further ones."""
        self._dismissed.set()

    def exit_reason(self) -> str:
        """Return why the process ended, for the error of the calls it lost."""
        how = "died" if self._verdict is None else "was killed"
        why = "" if self._verdict is None else f": {self._verdict}"
        return f"{self.name} {how} with calls under way{why}"

    async def run(self, request: GuestRequest) -> GuestResult:
        """Run a request.

        Raises:
            ConnectionLost: The process ended first.
            ProtocolError: It refused, or sent a malformed answer, and is replaced.
        """
        sender = self._sender
        if sender is None:
            raise ConnectionLost(f"{self.name} is not up")
        self._count_in(request.session)
        self._owners[request.sandbox_id] += 1
        try:
            seen = await sender.run(request, post=partial(self._post, sender))
        except RequestFailed as error:
            raise ProtocolError(f"{self.name} refused a run: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._scope.cancel()
            raise ProtocolError(f"{self.name} answered with nonsense, and is replaced: {error}") from error
        else:
            self._note(seen)
            return seen
        finally:
            self._disown(request.sandbox_id)
            self._count_out(request.session)

    def _post(self, sender: RequestSender, follow_up: Successor, behind: int) -> Posted:
        """Send a call behind a compilation; it counts as a request under way."""
        owner = follow_up.sandbox_id

        def ended() -> None:
            self._disown(owner)
            self._count_out(None)
            self._on_room()

        self._count_in(None)
        self._owners[owner] += 1
        follow_up.note = self._note
        return sender.post(follow_up, behind, ended=ended)

    def _note(self, seen: GuestResult) -> None:
        self.finished += 1
        if seen.result is not None:
            self._typical_s += _SMOOTHING * (seen.result.ran_s - self._typical_s)

    def _disown(self, sandbox_id: str) -> None:
        self._owners[sandbox_id] -= 1
        if not self._owners[sandbox_id]:
            del self._owners[sandbox_id]

    async def wait_without(self, session: str) -> None:
        """Wait until no session has a request under way."""
        while session in self.under_way:
            await self._changed.wait()

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """Send the process a request of another kind than a run.

        Raises:
            ConnectionLost: It is not up, or ended first.
            RequestFailed: It answered with an error.
        """
        if self._connection is None:
            raise ConnectionLost(f"{self.name} is not up")
        return await self._connection.request(method, params)

    async def copying(self, sessions: Sequence[str | None], method: str, params: dict[str, Any]) -> Any:
        """Send a copying request; it counts as a request under way in each session it names.

        Raises:
            CopyRefused: It cannot be done, or the process ended first.
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
        """Start the process and supervise it until it ends. Reports started once it is up, or has ended.

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
        """Have a new process open the image; return whether it did."""
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
        """Probe the process periodically, and kill it when it no longer answers."""
        detector = HangDetector(process.pid)
        async with trio.open_nursery() as nursery:
            while True:
                with trio.move_on_after(IDLE_PING_S):
                    await self._busy.wait()
                    await trio.sleep(PING_S)
                question = _Question(connection)
                # In a task of its own: a write to a hung worker, which does not read, may block.
                nursery.start_soon(question.ask)
                why = await detector.wait(question.answered, excused=partial(_excused, process, question))
                if why is None and question.stalled_s > STALL_S:
                    why = f"a slice of a guest has been running for {question.stalled_s:.0f} s"
                if why is not None:
                    self.note_kill(why)
                    _log.warning("%s (process %d) killed: %s", self.name, process.pid, why)
                    process.kill()  # the reader of its output detects its end
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
    """A probe of the other side, and its answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.answered = trio.Event()
        self.is_sent = False
        self.stalled_s = 0.0

    def _sent(self) -> None:
        self.is_sent = True

    async def ask(self) -> None:
        """Send the probe; a lost connection counts as an answer."""
        with suppress(ConnectionLost, RequestFailed, TypeError, ValueError):
            self.stalled_s = float(await self._connection.probe("ping", sent=self._sent))
        self.answered.set()


def _excused(process: WorkerChild, question: _Question) -> bool:
    """Return whether the probe has not been written yet, or output of the process is unread."""
    asked = question.is_sent or process.unheard_bytes > 0
    return not asked or process.unread_bytes > 0


async def _kill_late(name: str, process: WorkerChild) -> None:
    """Kill a process that has not started within its timeout."""
    await trio.sleep(START_S)
    _log.warning("%s (process %d) killed: it did not start within %g s", name, process.pid, START_S)
    process.kill()


class WorkerChild:
    """One worker process, just started.

    It has its own process group: a terminal sends Ctrl-C to the whole foreground group, and a starting
    worker would die of it before it could ignore the signal.

    Attributes:
        pid: Its process id.
        send: Its standard input.
        receive: Its standard output.

    Raises:
        OSError: It could not be started.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, on a program of ours
            [sys.executable, "-c", _PROGRAM, _MODULE],  # the name identifies the worker in process listings
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
        """Whether the process has not ended."""
        return self._process.poll() is None

    @property
    def unread_bytes(self) -> int:
        """Bytes the process has written that were not read yet."""
        return _held_by(self.receive)

    @property
    def unheard_bytes(self) -> int:
        """Bytes written to the process that it has not read yet."""
        return _held_by(self.send)

    def kill(self) -> None:
        """Kill the process; no effect if it has ended."""
        self._process.kill()

    async def end(self, grace_s: float) -> None:
        """End the process: close its input, then kill it after the grace period.

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
    """Return the bytes in a pipe; 0 once this end is closed."""
    size = array.array("i", [0])
    try:
        fcntl.ioctl(pipe.fileno(), termios.FIONREAD, size)
    except (OSError, ValueError):
        return 0
    return size[0]
