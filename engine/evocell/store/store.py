"""The durable store: one SQLite database in WAL mode, written in batches by a thread, or by a lone caller.

Callers queue writes without waiting; `flush` waits until everything queued before is committed, and raises if
part of it could not be. Several processes may have one store open.

Writes that fail for a transient reason, such as a full disk, stay in memory, in order, and are retried;
until they are written every `flush` raises.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from evocell.errors import StoreError
from evocell.store.database import BUSY_S, connect, grow_log, is_trouble, prepare, store_errors, watch_forks
from evocell.store.queued import LATER_S, LaterWrites, Once, Ticket, Write
from evocell_runtime.private import make_private, shared_file

__all__ = ["Store", "Write", "open_store"]

LINGER_S = 0.05
"""Seconds for which the writer gathers writes while no ticket is queued."""

MOST_WAITING = 50_000
"""Writes that may be queued; at this bound `Store.write` blocks, so that memory does not grow."""

MOST_STUCK = 10_000
"""Failed writes that are kept for a retry; further ones are lost, and reported."""

QUICK_S = 0.001
"""Seconds that commits take at most, on an average of the last ones, where a lone caller makes one itself."""

MOST_HERE = 32
"""Writes that a caller commits itself."""

RETRY_S = 5.0
"""Interval of retries of failed writes while the queue is empty."""

REST_S = 5.0
"""Seconds for which a fork of the process waits for a transaction under way."""

T = TypeVar("T")

_log = logging.getLogger("evocell")


class Store:
    """A database to write to and read from, from any thread.

    Attributes:
        path: The file.
        durable: Whether a commit is on disk before it counts.
        told: Called, in the thread that commits, with a reason and the number of waiting writes: when writes
            begin to fail, and, with an empty reason, when everything has been written after all.

    Args:
        path: The file; it is created, with its directory, if missing.
        durable: False leaves it to the operating system when a commit is on disk, for a store that ends
            with the engine.

    Raises:
        StoreError: It cannot be opened, is not evocell's, or was written by a later version.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self.durable = durable
        self.told: Callable[[str, int], None] | None = None
        self._work = threading.Condition()
        self._waiting: deque[Write | Ticket] = deque()
        self._later = LaterWrites()
        self._later_failed = False
        self._tickets = 0
        self._idle = False
        self._closing = False
        self._failures: list[str] = []
        self._stuck: list[Write] = []
        self.trouble = ""
        """Why writes currently fail; empty if they do not."""
        self.losses = 0
        """Number of writes lost so far; for `flush`."""
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
        self._commit_s = math.inf
        self._committing = threading.Lock()
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

    def write(self, write: Write, *, wait: bool = True) -> None:
        """Queue a change; it is committed together with others, in order.

        Args:
            write: Called in the thread that commits with the connection, inside a transaction.
            wait: Whether to block while the queue is full.

        Raises:
            StoreError: The store is closed.
        """
        work = self._work
        with work:
            if self._closing:
                raise StoreError(f"the store {self.path} is closed", str(self.path))
            while wait and len(self._waiting) >= MOST_WAITING and self._thread.is_alive():
                work.notify_all()  # ends the gathering
                work.wait(1.0)
            self._waiting.append(write)
            if self._idle:
                work.notify_all()

    def write_later(self, write: Write, n_bytes: int) -> None:
        """Queue a change that no `flush` waits for, and that may be lost: if it fails it is dropped.

        It is committed with others of its kind, when no other writes come or there are many of them.

        Args:
            write: As for `write`.
            n_bytes: What it weighs.

        Raises:
            StoreError: The store is closed.
        """
        with self._work:
            if self._closing:
                raise StoreError(f"the store {self.path} is closed", str(self.path))
            if self._later.add(write, n_bytes) and self._idle:
                self._work.notify_all()

    def ask(self, write: Callable[[sqlite3.Connection], T]) -> T:
        """Make a change, wait until it is committed, and return its value.

        Raises:
            StoreError: It, or a write queued before it, could not be written; it is not retried.
        """
        answers: list[T] = []
        self.write(Once(lambda connection: answers.append(write(connection))))
        self.flush_blocking()
        return answers[-1]

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Queue one statement."""
        self.write(lambda connection: connection.execute(sql, parameters))

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Queue one statement to be executed once for each row."""
        self.write(lambda connection: connection.executemany(sql, rows))

    async def flush(self, *, since: int | None = None, alone: bool = False) -> None:
        """Wait until everything queued before is committed.

        Args:
            alone: Whether nothing else is under way on the event loop. The commit then takes place on the
                loop, which spares waking two threads, if the last ones took less than a millisecond.
            since: The value of `losses` when the caller's work began; losses since then raise here even if
                another caller's flush has reported them. None for the failures that no flush has reported.

        Raises:
            StoreError: A write failed; it is either retried or lost.

        Cancellation: The writes are committed all the same.
        """
        if alone and (here := self._commit_here(since)) is not None:
            self._raise_for(here)
            return
        event = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def done() -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(event.set)

        ticket = self._ask(done, since)
        await event.wait()
        self._raise_for(ticket)

    def flush_blocking(self) -> None:
        """Do what `flush` does, blocking the calling thread."""
        event = threading.Event()
        ticket = self._ask(event.set)
        event.wait()
        self._raise_for(ticket)

    def catch_up(self) -> None:
        """Block until the writer has processed all that was queued before, committed or not.

        That includes what was queued with `write_later`.
        """
        event = threading.Event()
        self._ask(event.set, self.losses, with_later=True)
        event.wait()

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Query the committed data.

        Raises:
            StoreError: It cannot be read.
        """
        with self._reading, store_errors(self.path):
            return self._reader.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Commit the queued writes, and close; idempotent. Failures are logged."""
        # First, so that the writer's connection is the last: it takes the write-ahead log into the database
        # and removes it, which one for reading cannot.
        with self._reading:
            self._reader.close()
        with self._work:
            self._closing = True
            self._work.notify_all()
        self._thread.join()

    def rest(self) -> list[threading.Lock]:
        """Wait until no thread of this process uses the database, and block them all.

        Returns:
            The locks to release to let them in again.
        """
        locks = (self._writing, self._reading)
        return [lock for lock in locks if lock.acquire(timeout=REST_S)]

    def _ask(self, done: Callable[[], None], since: int | None = None, *, with_later: bool = False) -> Ticket:
        ticket = Ticket(done, since)
        with self._work:
            if self._closing:
                raise StoreError(f"the store {self.path} is closed", str(self.path))
            self._waiting.append(ticket)
            self._later.is_due |= with_later
            self._tickets += 1
            self._work.notify_all()
        return ticket

    def _raise_for(self, ticket: Ticket) -> None:
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
            if self.durable:
                with self._writing:
                    grow_log(self._connection, self.path)
            while self._wait():
                with self._committing:
                    if self._later.is_due:
                        self._commit_later()
                    self._commit(self._take())
                    if self._later.are_many:
                        self._commit_later()
            with self._committing:
                self._commit_later()
                if self._stuck:
                    self._commit(())
        finally:
            with self._work:
                self._closing = True
                left = list(self._waiting)
                self._waiting.clear()
                self._work.notify_all()
            for one in left:
                if isinstance(one, Ticket):
                    one.failures.append("the writer has ended")
                    one.done()
            if self._stuck:
                _log.error("the store %s is closed with changes that could not be written", self.path)
            with self._writing:
                self._connection.close()

    def _wait(self) -> bool:
        """Wait until there is something to commit, or to try again; return False at the end."""
        work = self._work
        with work:
            while not self._waiting:
                if self._closing:
                    return False
                self._idle = True
                if not work.wait(RETRY_S if self._stuck else LATER_S if self._later else None):
                    self._later.is_due = True
                    return True
            self._idle = False
            if not (self._tickets or self._closing):
                work.wait(LINGER_S)
            return True

    def _take(self) -> list[Write | Ticket]:
        """Take the entries to commit together next; `_committing` is held, so that they stay in order."""
        with self._work:
            taken = list(self._waiting)
            self._waiting.clear()
            self._tickets = 0
            self._work.notify_all()  # writers blocked on a full queue
            return taken

    @trio.lowlevel.enable_ki_protection
    def _commit_here(self, since: int | None) -> Ticket | None:
        """Commit what is queued in this thread; None if that is left to the writer."""
        if self._commit_s > QUICK_S or self._stuck or not self._committing.acquire(blocking=False):
            return None
        try:
            if self._closing or self._tickets or not 0 < len(self._waiting) <= MOST_HERE:
                return None
            if not self._can_begin():
                return None
            ticket = Ticket(lambda: None, since)
            self._commit([*self._take(), ticket])
            return ticket
        finally:
            self._committing.release()

    def _commit_later(self) -> None:
        """Commit what may be lost, in a transaction of its own; it is dropped if that fails."""
        with self._work:
            writes = self._later.take()
        if not writes or self._stuck:
            return
        try:
            self._in_transaction(writes)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing depends on it
            if not self._later_failed:
                _log.warning("the store %s could not keep what it may lose: %s", self.path, error)
            self._later_failed = True

    # Theory of operation
    # -------------------
    # `_waiting` is one queue of writes and tickets. The writer's thread takes all of it at once and commits
    # its writes, behind those of `_stuck`, in one transaction. A ticket stands for a waiting `flush`; it is
    # answered after the commit of everything queued before it, and a queued ticket ends the gathering.
    #
    # A transaction that fails is rolled back. If the cause may pass (`is_trouble`: full disk, locked file),
    # the writes move to `_stuck`, in order, and `trouble` holds the reason; each later commit tries them
    # first, and until they are written every ticket reports `trouble`. If the cause is a write itself, the
    # writes are committed one by one, and the culprit is lost.
    #
    # A write is lost if it is at fault itself or beyond `MOST_STUCK`. Each loss counts in `losses` and adds
    # a sentence to `_failures`. Tickets without `since` take `_failures`, which is then cleared: such flushes
    # report a loss once. Concurrent evaluations must each learn of a loss, whichever flushes first; their
    # tickets carry the count of losses from their start as `since`, and are compared with `losses`.
    # A `Once` is not tried again: its caller is waiting and gets `trouble` as a failure.
    #
    # `_later` has what may be lost. It is committed apart, so that it neither delays nor fails anything else.
    #
    # `_committing` is held from when entries are taken until they are committed, by the writer or by a lone
    # caller that commits on its own thread (`_commit_here`).
    def _commit(self, taken: Sequence[Write | Ticket]) -> None:
        stuck = self._write([*self._stuck, *(one for one in taken if not isinstance(one, Ticket))])
        for one in stuck:
            if isinstance(one, Once):
                self._failures.append(self.trouble)
        again = [one for one in stuck if not isinstance(one, Once)]
        for _ in again[MOST_STUCK:]:
            self._lose(f"{MOST_STUCK:,} changes wait already because of this: {self.trouble}")
        self._stuck = again[:MOST_STUCK]
        tickets = [one for one in taken if isinstance(one, Ticket)]
        for ticket in tickets:
            ticket.trouble = self.trouble if self._stuck else ""
            if ticket.since is None:
                ticket.failures += self._failures
            elif self.losses > ticket.since:
                ticket.failures.append(self._last_loss)
        if any(ticket.since is None for ticket in tickets):
            self._failures = []
        for ticket in tickets:
            ticket.done()
        del self._failures[1000:]

    def _write(self, writes: Sequence[Write]) -> Sequence[Write]:
        """Commit as many writes as possible; return the others, a tail of the writes, to be retried."""
        if not writes:
            return ()
        try:
            self._in_transaction(writes)
        except Exception as error:  # noqa: BLE001 - the culprit is found one by one
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
        self.losses += 1
        self._last_loss = why
        self._failures.append(why)

    def _in_trouble(self, error: Exception, writes: Sequence[Write]) -> Sequence[Write]:
        if not self.trouble:
            _log.error("the store %s cannot be written: %s; it is tried again", self.path, error)
            if self.told is not None:
                self.told(str(error), len(writes))
        self.trouble = str(error)
        return writes

    def _out_of_trouble(self) -> Sequence[Write]:
        if self.trouble:
            _log.warning("the store %s can be written again, and nothing that waited is lost", self.path)
            self.trouble = ""
            if self.told is not None:
                self.told("", 0)
        return ()

    def _in_transaction(self, writes: Sequence[Write]) -> None:
        connection, started = self._connection, time.perf_counter()
        with self._writing:
            if not connection.in_transaction:
                connection.execute("BEGIN IMMEDIATE")
            try:
                for write in writes:
                    write(connection)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        took_s = time.perf_counter() - started
        self._commit_s = took_s if self._commit_s == math.inf else (3 * self._commit_s + took_s) / 4

    def _can_begin(self) -> bool:
        """Begin a transaction, unless another process is in one: that may take seconds."""
        connection = self._connection
        with self._writing:
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error:
                return False
            finally:
                connection.execute(f"PRAGMA busy_timeout = {round(1000 * BUSY_S)}")
            return True


@asynccontextmanager
async def open_store(path: Path, *, durable: bool) -> AsyncIterator[Store]:
    """Open a store for the duration of a block; see `Store`."""
    store = await trio.to_thread.run_sync(partial(Store, path, durable=durable))
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.close)
