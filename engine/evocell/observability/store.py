"""The durable store: one SQLite database in WAL mode, written by one thread in batches.

Whoever has something to write leaves it and goes on; `flush` waits until everything that was left before it
is committed, and raises if some of it could not be. Several processes may have one store open.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import trio
from attrs import define, field

from evocell.errors import StoreError
from evocell.observability.schema import APPLICATION_ID, MIGRATIONS, VERSION

__all__ = ["FILE_NAME", "Store", "Write", "open_reader", "open_store"]

FILE_NAME = "evocell.db"
"""Name of the database in a state directory."""

LINGER_S = 0.05
"""How long the writer gathers when nobody waits for it."""

MOST_WAITING = 50_000
"""Writes that may wait; then whoever has another one waits, too, rather than memory growing."""

BUSY_S = 30.0
"""How long one process waits for another's write to end."""

_PRIVATE_MODE = 0o700

Write: TypeAlias = Callable[[sqlite3.Connection], object]
"""Changes the database inside a transaction that is not its own; it may be called again if that failed."""

T = TypeVar("T")

_log = logging.getLogger("evocell")


@define(eq=False)
class _Ticket:
    """Somebody who waits for what was left before."""

    done: Callable[[], None]
    failures: list[str] = field(factory=list)


REST_S = 5.0
"""How long a fork of the process waits for a transaction that is under way."""


class Store:
    """A database to write to and read from, from any thread.

    Args:
        path: The file; it is created, with its directory, if it is not there.
        durable: Whether a commit is on disk before it counts. False leaves that to the operating system,
            for a store that ends with the engine.

    Raises:
        StoreError: It cannot be opened, is no store of ours, or was written by a later version.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self._work = threading.Condition()
        self._waiting: deque[Write | _Ticket] = deque()
        self._tickets = 0
        self._idle = False
        self._closing = False
        self._failures: list[str] = []
        with _store_errors(path):
            path.parent.mkdir(mode=_PRIVATE_MODE, parents=True, exist_ok=True)
            self._connection = _connect(path)
            try:
                _prepare(self._connection, path, durable=durable)
                self._reader = _connect(path, read_only=True)
            except BaseException:
                self._connection.close()
                raise
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        _forks.watch(self)
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
            StoreError: It, or something that was left before it, could not be written.
        """
        answers: list[T] = []
        self.write(lambda connection: answers.append(write(connection)))
        self.flush_blocking()
        return answers[-1]

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Leave one statement to be executed."""
        self.write(lambda connection: connection.execute(sql, parameters))

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Leave one statement to be executed once for each row."""
        self.write(lambda connection: connection.executemany(sql, rows))

    async def flush(self) -> None:
        """Wait until everything that was left before is committed.

        Raises:
            StoreError: Something of it, or of what was left since the last flush, could not be written.

        Cancellation: It is written all the same.
        """
        event = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def done() -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(event.set)

        ticket = self._ask(done)
        await event.wait()
        self._raise_for(ticket)

    def flush_blocking(self) -> None:
        """Do what `flush` does, in a thread that may wait."""
        event = threading.Event()
        ticket = self._ask(event.set)
        event.wait()
        self._raise_for(ticket)

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Read what is committed.

        Raises:
            StoreError: It cannot be read.
        """
        with self._reading, _store_errors(self.path):
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

    def _ask(self, done: Callable[[], None]) -> _Ticket:
        ticket = _Ticket(done)
        with self._work:
            if self._closing:
                raise StoreError(f"the store {self.path} is closed", str(self.path))
            self._waiting.append(ticket)
            self._tickets += 1
            self._work.notify_all()
        return ticket

    def _raise_for(self, ticket: _Ticket) -> None:
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
                work.wait()
            self._idle = False
            if not (self._tickets or self._closing):
                work.wait(LINGER_S)
            taken = list(self._waiting)
            self._waiting.clear()
            self._tickets = 0
            work.notify_all()  # whoever waits for room
            return taken

    def _commit(self, taken: Sequence[Write | _Ticket]) -> None:
        writes = [one for one in taken if not isinstance(one, _Ticket)]
        try:
            self._in_transaction(writes)
        except Exception:  # noqa: BLE001 - which of them it was is found out one by one
            for write in writes:
                try:
                    self._in_transaction([write])
                except Exception as error:  # noqa: BLE001 - others may still be written
                    _log.error("the store %s could not write: %s", self.path, error)
                    self._failures.append(f"{type(error).__name__}: {error}")
        tickets = [one for one in taken if isinstance(one, _Ticket)]
        if tickets:
            failures, self._failures = self._failures, []
            for ticket in tickets:
                ticket.failures = failures
                ticket.done()
        else:
            del self._failures[1000:]

    def _in_transaction(self, writes: Sequence[Write]) -> None:
        if not writes:
            return
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

    def rest(self) -> list[threading.Lock]:
        """Wait until no thread of this process is at work in the database, and keep them all out.

        Returns:
            What to release to let them in again.
        """
        locks = (self._writing, self._reading)
        return [lock for lock in locks if lock.acquire(timeout=REST_S)]


class _Forks:
    """Has SQLite at rest whenever the process is forked.

    SQLite has locks of its own for the whole process. A child that is forked while another thread holds one
    of them would wait for it for ever at its first use of any database, and loops that fork right after an
    evaluation are common.
    """

    def __init__(self) -> None:
        self._stores: weakref.WeakSet[Store] = weakref.WeakSet()
        self._held: list[threading.Lock] = []
        os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._after)

    def watch(self, store: Store) -> None:
        """Have a store rest at each fork from now on."""
        self._stores.add(store)

    def _before(self) -> None:
        self._held = [lock for store in list(self._stores) for lock in store.rest()]

    def _after(self) -> None:
        held, self._held = self._held, []
        for lock in held:
            lock.release()


_forks = _Forks()


def open_reader(state_dir: Path) -> sqlite3.Connection:
    """Open the store of a state directory for reading only, beside whoever writes to it.

    Args:
        state_dir: The directory, or the database itself.

    Raises:
        StoreError: There is none, it is not ours, or it was written by another version.
    """
    path = state_dir / FILE_NAME if state_dir.is_dir() else state_dir
    if not path.is_file():
        raise StoreError(f"there is no store at {path}; give the state_dir of an engine", str(path))
    with _store_errors(path):
        connection = _connect(path, read_only=True)
        try:
            version = _version(connection, path)
            _check_readable(version, path)
        except BaseException:
            connection.close()
            raise
        return connection


@asynccontextmanager
async def open_store(path: Path, *, durable: bool) -> AsyncIterator[Store]:
    """Open a store for a block of work; see `Store`."""
    store = await trio.to_thread.run_sync(partial(Store, path, durable=durable))
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.close)


def _check_readable(version: int, path: Path) -> None:
    if version != VERSION:
        way = "open it with an engine once" if version < VERSION else "use a later one"
        raise StoreError(f"{path} has version {version} and this evocell reads {VERSION}; {way}", str(path))


def _connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    if not read_only and not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _prepare(connection: sqlite3.Connection, path: Path, *, durable: bool) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
    version = _version(connection, path)
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a later evocell (its version is {version}, this one's {VERSION}); "
            "use that, or another state_dir",
            str(path),
        )
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path)  # another process may have been faster
        for migration in MIGRATIONS:
            if migration.version > version:
                for statement in migration.statements:
                    connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of a database, 0 for an empty one, and refuse what is not ours."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != APPLICATION_ID and not (empty and version == 0):
        raise StoreError(f"{path} is a database of something else; choose another state_dir", str(path))
    return version


@contextlib.contextmanager
def _store_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        hint = "; look at it with: evocell store check" if path.exists() else ""
        raise StoreError(f"the store {path} cannot be used: {error}{hint}", str(path)) from error
    except OSError as error:
        raise StoreError(f"the store {path} cannot be used: {error.strerror or error}", str(path)) from error
