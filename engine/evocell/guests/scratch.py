"""Temporary directories, removed by other processes if their owner was killed.

A killed process cannot remove its directories. So each directory is locked by its owner, and a process that
creates one first removes those that are no longer locked. A lock is more reliable than a process
id, which the kernel reuses, and which names another process in another container. Cleaners such as
systemd-tmpfiles leave locked directories alone, too.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

__all__ = ["MARKER", "PREFIX", "OwnedDirectory", "Scratch", "memory_place", "sweep"]

PREFIX = "evocell-"
"""Prefix of the names of all directories."""

MARKER = ".evocell"
"""Marker file that identifies our directories; it exists only while or after the directory was locked."""

_PRIVATE_MODE = 0o700
_MEMORY = "/dev/shm"  # noqa: S108 - each directory in it is private, and locked by its owner
_ROOM_BYTES = 1 << 30
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_log = logging.getLogger("evocell")


class OwnedDirectory:
    """A private temporary directory, removed by `close`, or by a later `sweep` if this process cannot.

    It has no finaliser: a child made by ``os.fork`` must not remove its parent's directory.

    Args:
        place: The directory to make it in; None for the usual one.

    Raises:
        OSError: There is no room for it.
    """

    def __init__(self, place: str | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        self._pid = os.getpid()
        try:
            self._lock: int | None = os.open(self.path, _DIRECTORY)
        except OSError:
            self.path.rmdir()
            raise
        # A file system without such locks: the directory is never swept, which is safe.
        with suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self.path / MARKER).write_text(f"made by process {self._pid}\n", encoding="ascii")

    def __enter__(self) -> Path:
        """Return its path."""
        return self.path

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove it."""
        self.close()

    def is_there(self) -> bool:
        """Return whether the path still names the directory that was created, not another user's."""
        if self._lock is None:
            return False
        with suppress(OSError):
            return os.path.samestat(os.fstat(self._lock), self.path.lstat())
        return False

    def close(self) -> None:
        """Remove it with its contents, as far as possible; idempotent."""
        lock, self._lock = self._lock, None
        if lock is None or self._pid != os.getpid():
            return
        with suppress(OSError):
            _empty(lock)
            self.path.rmdir()
        os.close(lock)


class Scratch:
    """Makes writable directories for guests, inside one directory owned by this process."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._home: OwnedDirectory | None = None

    def make(self) -> Path:
        """Make an empty directory. From any thread.

        Raises:
            OSError: There is no room for it.
        """
        with self._changing:
            return Path(tempfile.mkdtemp(prefix="tmp-", dir=self._place()))

    def take(self, directory: Path) -> Path:
        """Take over a directory of another process. From any thread.

        Raises:
            OSError: It no longer exists.
        """
        with self._changing:
            taken = Path(tempfile.mkdtemp(prefix="tmp-", dir=self._place()))
            directory.rename(taken)  # over the empty one
            return taken

    def close(self) -> None:
        """Remove all remaining directories; idempotent."""
        with self._changing:
            self._remove_home()

    def _place(self) -> Path:
        if self._home is None or not self._home.is_there():
            self._remove_home()
            sweep()
            self._home = OwnedDirectory()
        return self._home.path

    def _remove_home(self) -> None:
        if self._home is not None:
            self._home.close()
            self._home = None


def sweep() -> list[str]:
    """Remove the temporary directories whose owners have died.

    Only directories that are certainly ours are touched: owned by this user, inaccessible to others, with our
    prefix and marker, and not locked. No link is followed.

    Returns:
        The names of the removed directories.
    """
    removed = [name for place in (tempfile.gettempdir(), _MEMORY) for name in _sweep(place)]
    if removed:
        _log.info("removed %d temporary directories of processes that were killed", len(removed))
    return removed


def _sweep(directory: str) -> list[str]:
    try:
        place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return [name for name in _names(place) if name.startswith(PREFIX) and _remove_orphan(place, name)]
    finally:
        os.close(place)


def memory_place() -> str | None:
    """Return an in-memory file system with enough room; None without one, or if ``TMPDIR`` is set."""
    if any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")):
        return None
    with suppress(OSError):
        status = os.statvfs(_MEMORY)
        if os.access(_MEMORY, os.W_OK | os.X_OK) and status.f_bavail * status.f_frsize >= _ROOM_BYTES:
            return _MEMORY
    return None


def _remove_orphan(place: int, name: str) -> bool:
    """Remove a directory if it is ours and its owner has died; return whether it was removed."""
    try:
        directory = os.open(name, _DIRECTORY, dir_fd=place)
    except OSError:
        return False
    try:
        # The marker is written under the lock: a directory with a marker that can be locked has no owner.
        if not _is_ours(directory):
            return False
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _empty(directory)
        os.rmdir(name, dir_fd=place)
    except OSError:  # it is in use, or another process was faster
        return False
    else:
        return True
    finally:
        os.close(directory)


def _is_ours(directory: int) -> bool:
    seen = os.fstat(directory)
    marker = os.stat(MARKER, dir_fd=directory, follow_symlinks=False)
    return (
        seen.st_uid == marker.st_uid == os.geteuid()
        and stat.S_IMODE(seen.st_mode) == _PRIVATE_MODE
        and stat.S_ISREG(marker.st_mode)
    )


def _empty(directory: int) -> None:
    """Remove a directory's contents, the marker last, so that an interrupted removal is found again."""
    for name in sorted(_names(directory), key=MARKER.__eq__):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]
