"""The durable store: one SQLite database in WAL mode, written by one thread in batches.

Whoever has something to write leaves it and goes on; `flush` waits until everything that was left before it
is committed, and raises if some of it could not be. Several processes may have one store open.

What a full disk, or another trouble that may pass, keeps from being written stays in memory, in order, and is
tried again; until it is written every `flush` raises.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import trio
from attrs import define, field

from evocell.errors import StoreError
from evocell.store.database import connect, is_trouble, prepare, store_errors, watch_forks
from evocell_runtime.private import make_private, shared_file

__all__ = ["Store", "Write", "open_store"]

LINGER_S = 0.05
"""How long the writer gathers when nobody waits for it."""

MOST_WAITING = 50_000
"""Writes that may wait; then whoever has another one waits, too, rather than memory growing."""

MOST_STUCK = 10_000
"""Writes that are kept to be tried again; those beyond are lost, and reported."""

RETRY_S = 5.0
"""After how long the writer tries again by itself what could not be written."""

REST_S = 5.0
"""How long a fork of the process waits for a transaction that is under way."""

Write: TypeAlias = Callable[[sqlite3.Connection], object]
"""Changes the database inside a transaction that is not its own; it may be called again if that failed."""

T = TypeVar("T")

_log = logging.getLogger("evocell")


@define(eq=False)
class _Ticket:
    """Somebody who waits for what was left before.

    Attributes:
        done: Called when it has been written, or could not be.
        since: Losses before this many are not this one's business; None for those not told of yet.
        failures: Why something is lost.
        trouble: Why something is not written yet; empty if all is.
    """

    done: Callable[[], None]
    since: int | None = None
    failures: list[str] = field(factory=list)
    trouble: str = ""


@define(eq=False)
class _Once:
    """A write that nobody wants any more once it has failed."""

    write: Write

    def __call__(self, connection: sqlite3.Connection) -> object:
        return self.write(connection)


class Store:
    """A database to write to and read from, from any thread.

    Attributes:
        path: The file.
        durable: Whether a commit is on disk before it counts.
        told: Called, in the writer's thread, with the reason when writing begins to fail, and with an empty
            one when all of it is written after all; and how many writes wait.

    Args:
        path: The file; it is created, with its directory, if it is not there.
        durable: False leaves it to the operating system when a commit is on disk, for a store that ends
            with the engine.

    Raises:
        StoreError: It cannot be opened, is no store of ours, or was written by a later version.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self.durable = durable
        self.told: Callable[[str, int], None] | None = None
        self._work = threading.Condition()
        self._waiting: deque[Write | _Ticket] = deque()
        self._tickets = 0
        self._idle = False
        self._closing = False
        self._failures: list[str] = []
        self._stuck: list[Write] = []
        self._trouble = ""
        self._losses = 0
        self._last_loss = ""
        with store_errors(path):
            problem = make_private(path.parent) or shared_file(path)
            if problem is not None:
                raise StoreError(problem, str(path))
            self._connection = connect(path)
            try:
                prepare(self._connection, path, durable=durable)
                self._reader = connect(path, read_only=True)
            except BaseException:
                self._connection.close()
                raise
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        watch_forks(self)
        self._thread = threading.Thread(target=self._write_all, name="evocell-store", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    @property
    def trouble(self) -> str:
        """Why writing fails at the moment; empty if it does not."""
        return self._trouble

    @property
    def losses(self) -> int:
        """How many writes were given up so far; for `flush`."""
        return self._losses

    def write(self, write: Write, *, wait: bool = True) -> None:
        """Leave a change to be made; it is committed together with others, in order.

        Args:
            write: Called in the writer's thread with the connection, inside a transaction.
            wait: Whether to wait while too much is waiting already.

        Raises:
            StoreError: The store is closed.
        """
        work = self._work
        with work:
            if self._closing:
                raise StoreError(f"the store {self.path} is closed", str(self.path))
            while wait and len(self._waiting) >= MOST_WAITING and self._thread.is_alive():
                work.notify_all()  # the writer gathers no longer
                work.wait(1.0)
            self._waiting.append(write)
            if self._idle:
                work.notify_all()

    def ask(self, write: Callable[[sqlite3.Connection], T]) -> T:
        """Make a change, wait until it is committed, and return what it returned.

        Raises:
            StoreError: It, or something that was left before it, could not be written; it is not tried again.
        """
        answers: list[T] = []
        self.write(_Once(lambda connection: answers.append(write(connection))))
        self.flush_blocking()
        return answers[-1]

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Leave one statement to be executed."""
        self.write(lambda connection: connection.execute(sql, parameters))

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Leave one statement to be executed once for each row."""
        self.write(lambda connection: connection.executemany(sql, rows))

    async def flush(self, *, since: int | None = None) -> None:
        """Wait until everything that was left before is committed.

        Args:
            since: What `losses` was when whoever asks began; what was given up since then is reported to it
                even if somebody else has been told. None for what nobody has been told of.

        Raises:
            StoreError: Something of it could not be written, and either is tried again or is lost.

        Cancellation: It is written all the same.
        """
        event = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def done() -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(event.set)

        ticket = self._ask(done, since)
        await event.wait()
        self._raise_for(ticket)

    def flush_blocking(self) -> None:
        """Do what `flush` does, in a thread that may wait."""
        event = threading.Event()
        ticket = self._ask(event.set)
        event.wait()
        self._raise_for(ticket)

    def catch_up(self) -> None:
        """Wait in this thread until the writer has come to everything that was left, written or not."""
        event = threading.Event()
        self._ask(event.set, self._losses)
        event.wait()

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Read what is committed.

        Raises:
            StoreError: It cannot be read.
        """
        with self._reading, store_errors(self.path):
            return self._reader.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Write what is left, and close; idempotent. What could not be written is in the log."""
        with self._work:
            self._closing = True
            self._work.notify_all()
        # The writer's connection is the last: it takes the write-ahead log into the database and removes it.
        with self._reading:
            self._reader.close()
        self._thread.join()

    def rest(self) -> list[threading.Lock]:
        """Wait until no thread of this process is at work in the database, and keep them all out.

        Returns:
            What to release to let them in again.
        """
        locks = (self._writing, self._reading)
        return [lock for lock in locks if lock.acquire(timeout=REST_S)]

    def _ask(self, done: Callable[[], None], since: int | None = None) -> _Ticket:
        ticket = _Ticket(done, since)
        with self._work:
            if self._closing:
                raise StoreError(f"the store {self.path} is closed", str(self.path))
            self._waiting.append(ticket)
            self._tickets += 1
            self._work.notify_all()
        return ticket

    def _raise_for(self, ticket: _Ticket) -> None:
        if ticket.trouble:
            raise StoreError(
                f"the store {self.path} cannot be written: {ticket.trouble}; what is not written stays in "
                "memory and is tried again",
                str(self.path),
            )
        if ticket.failures:
            raise StoreError(
                f"{len(ticket.failures)} changes could not be written to the store {self.path}: "
                f"{ticket.failures[0]}",
                str(self.path),
            )

    def _write_all(self) -> None:
        try:
            while (taken := self._take()) is not None:
                self._commit(taken)
            if self._stuck:
                self._commit(())
        finally:
            with self._work:
                self._closing = True
                left = list(self._waiting)
                self._waiting.clear()
                self._work.notify_all()
            for one in left:
                if isinstance(one, _Ticket):
                    one.failures.append("the writer has ended")
                    one.done()
            if self._stuck:
                _log.error("the store %s is closed with changes that could not be written", self.path)
            with self._writing:
                self._connection.close()

    def _take(self) -> list[Write | _Ticket] | None:
        """Return what is to be written next, together; None when there will be no more."""
        work = self._work
        with work:
            while not self._waiting:
                if self._closing:
                    return None
                self._idle = True
                if not work.wait(RETRY_S if self._stuck else None):
                    return []
            self._idle = False
            if not (self._tickets or self._closing):
                work.wait(LINGER_S)
            taken = list(self._waiting)
            self._waiting.clear()
            self._tickets = 0
            work.notify_all()  # whoever waits for room
            return taken

    def _commit(self, taken: Sequence[Write | _Ticket]) -> None:
        stuck = self._write([*self._stuck, *(one for one in taken if not isinstance(one, _Ticket))])
        for one in stuck:
            if isinstance(one, _Once):
                self._failures.append(self._trouble)
        again = [one for one in stuck if not isinstance(one, _Once)]
        for _ in again[MOST_STUCK:]:
            self._lose(f"{MOST_STUCK:,} changes wait already because of this: {self._trouble}")
        self._stuck = again[:MOST_STUCK]
        tickets = [one for one in taken if isinstance(one, _Ticket)]
        for ticket in tickets:
            ticket.trouble = self._trouble if self._stuck else ""
            if ticket.since is None:
                ticket.failures += self._failures
            elif self._losses > ticket.since:
                ticket.failures.append(self._last_loss)
        if any(ticket.since is None for ticket in tickets):
            self._failures = []
        for ticket in tickets:
            ticket.done()
        del self._failures[1000:]

    def _write(self, writes: Sequence[Write]) -> Sequence[Write]:
        """Write what can be written; return what is to be tried again, which is the last of them."""
        if not writes:
            return ()
        try:
            self._in_transaction(writes)
        except Exception as error:  # noqa: BLE001 - which of them it was is found out one by one
            if is_trouble(error):
                return self._in_trouble(error, writes)
        else:
            return self._out_of_trouble()
        for n, write in enumerate(writes):
            try:
                self._in_transaction([write])
            except Exception as error:  # noqa: BLE001 - others may still be written
                if is_trouble(error):
                    return self._in_trouble(error, writes[n:])
                _log.error("the store %s could not write: %s", self.path, error)
                self._lose(f"{type(error).__name__}: {error}")
        return self._out_of_trouble()

    def _lose(self, why: str) -> None:
        self._losses += 1
        self._last_loss = why
        self._failures.append(why)

    def _in_trouble(self, error: Exception, writes: Sequence[Write]) -> Sequence[Write]:
        if not self._trouble:
            _log.error("the store %s cannot be written: %s; it is tried again", self.path, error)
            if self.told is not None:
                self.told(str(error), len(writes))
        self._trouble = str(error)
        return writes

    def _out_of_trouble(self) -> Sequence[Write]:
        if self._trouble:
            _log.warning("the store %s can be written again, and nothing that waited is lost", self.path)
            self._trouble = ""
            if self.told is not None:
                self.told("", 0)
        return ()

    def _in_transaction(self, writes: Sequence[Write]) -> None:
        connection = self._connection
        with self._writing:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for write in writes:
                    write(connection)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise


@asynccontextmanager
async def open_store(path: Path, *, durable: bool) -> AsyncIterator[Store]:
    """Open a store for a block of work; see `Store`."""
    store = await trio.to_thread.run_sync(partial(Store, path, durable=durable))
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.close)
