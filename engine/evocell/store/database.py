"""The database file of a store: opening, migration, refusal of foreign files, quiescence during forks."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from evocell.errors import StoreError
from evocell.store.schema import APPLICATION_ID, MIGRATIONS, VERSION

__all__ = [
    "FILE_NAME",
    "TROUBLES",
    "Resting",
    "connect",
    "database_in",
    "grow_log",
    "is_trouble",
    "open_reader",
    "prepare",
    "store_errors",
    "watch_forks",
]

FILE_NAME = "evocell.db"
"""Name of the database in a state directory."""

BUSY_S = 30.0
"""Seconds for which one process waits for another's write."""

LOG_BYTES = 4 << 20
"""Length of a write-ahead log at which SQLite takes it into the database, about: 1,000 pages."""

_FILLER_BYTES = 1 << 16

RETRY_S = 0.01
"""Seconds between two tries to change the journal of a database that another process is changing."""

HEADER = """
SELECT user_version, application_id, (SELECT count(*) FROM sqlite_schema)
FROM pragma_user_version, pragma_application_id
"""
"""The version, the application and the number of tables of a database, in one read: all of one moment."""

TROUBLES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
"""SQLite's result codes for faults of the disk, the file or another process, not of the statement."""


def is_trouble(error: BaseException) -> bool:
    """Return whether the cause of a failed write may be transient, such as a full disk."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.Error) and isinstance(code, int) and code & 0xFF in TROUBLES


def database_in(state_dir: Path) -> Path:
    """Return the database of a state directory, which may be given itself."""
    return state_dir / FILE_NAME if state_dir.is_dir() else state_dir


def open_reader(state_dir: Path) -> sqlite3.Connection:
    """Open the store of a state directory for reading only, concurrently with any writer.

    Args:
        state_dir: The directory, or the database itself.

    Raises:
        StoreError: There is none, it is not evocell's, or it was written by another version.
    """
    path = database_in(state_dir)
    if not path.is_file():
        raise StoreError(f"there is no store at {path}; give the state_dir of an engine", str(path))
    with store_errors(path):
        connection = connect(path, read_only=True)
        try:
            version = _version(connection, path)
            _check_readable(version, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _check_readable(version: int, path: Path) -> None:
    if version != VERSION:
        way = "open it with an engine once" if version < VERSION else "use a later one"
        raise StoreError(f"{path} has version {version} and this evocell reads {VERSION}; {way}", str(path))


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Connect to a database; one opened for writing is created if missing, private to this user."""
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


def prepare(connection: sqlite3.Connection, path: Path, *, durable: bool) -> None:
    """Create or migrate the schema of a database for this version.

    Raises:
        StoreError: It is not evocell's, or a later version's.
    """
    _use_write_ahead_log(connection)
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


def grow_log(connection: sqlite3.Connection, path: Path) -> None:
    """Make the write-ahead log of a database as long as it becomes before it is used again from its start.

    A commit that makes the file longer also waits for the journal of the file system, which takes as long
    again. SQLite writes the pages of a transaction that is larger than its cache to the log, and leaves them
    there when it is rolled back. Without room for that nothing changes.

    Args:
        connection: Opened by `connect`, with no transaction under way.
        path: The database.
    """
    log = Path(f"{path}-wal")
    with contextlib.suppress(sqlite3.Error, OSError):
        if log.exists() and log.stat().st_size >= LOG_BYTES:
            return
        (cache_size,) = connection.execute("PRAGMA cache_size").fetchone()
        connection.execute("PRAGMA cache_size = 16")
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute("CREATE TABLE filler (bytes)")
                for _ in range(LOG_BYTES // _FILLER_BYTES):
                    connection.execute("INSERT INTO filler VALUES (zeroblob(?))", (_FILLER_BYTES,))
            finally:
                connection.execute("ROLLBACK")
        finally:
            connection.execute(f"PRAGMA cache_size = {cache_size}")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Change a database to write-ahead logging, or wait until another process has.

    SQLite's own waiting is of no use here: of two connections that both read and both want the whole file, it
    refuses one at once, since neither could go on.
    """
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)
        else:
            return


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of a database, 0 for an empty one; refuse a foreign one."""
    version, application, tables = map(int, connection.execute(HEADER).fetchone())
    if application != APPLICATION_ID and (tables or version):
        raise StoreError(f"{path} is a database of something else; choose another state_dir", str(path))
    return version


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Convert errors of SQLite and the operating system into a `StoreError` that names the file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        hint = "; look at it with: evocell store check" if path.exists() else ""
        raise StoreError(f"the store {path} cannot be used: {error}{hint}", str(path)) from error
    except OSError as error:
        raise StoreError(f"the store {path} cannot be used: {error.strerror or error}", str(path)) from error


class Resting(Protocol):
    """An object whose threads use SQLite and can be paused for a fork."""

    def rest(self) -> list[threading.Lock]:
        """Wait until no thread uses SQLite, and block them all; return the locks to release afterwards."""
        ...


class _Forks:
    """Fork hooks that pause all use of SQLite while the process forks.

    SQLite has locks of its own for the whole process. A child that is forked while another thread holds one
    of them would wait for it for ever at its first use of any database, and loops that fork right after an
    evaluation are common.
    """

    def __init__(self) -> None:
        self._stores: weakref.WeakSet[Resting] = weakref.WeakSet()
        self._held: list[threading.Lock] = []
        os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._after)

    def watch(self, store: Resting) -> None:
        """Pause a store at each fork from now on."""
        self._stores.add(store)

    def _before(self) -> None:
        self._held = [lock for store in list(self._stores) for lock in store.rest()]

    def _after(self) -> None:
        held, self._held = self._held, []
        for lock in held:
            lock.release()


_forks = _Forks()


def watch_forks(store: Resting) -> None:
    """Pause a store at each fork of the process, as long as the store exists."""
    _forks.watch(store)
