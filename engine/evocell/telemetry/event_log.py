"""The event log on disk: concatenated msgpack maps in files of bounded size and number.

The files of a run are ``7.msgpack``, ``7-2.msgpack``, ``7-3.msgpack``; none is ever renamed, so that
concurrent readers keep their
place. The oldest files of a directory are removed, but never one that an engine writes to.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgpack

from evocell.errors import StoreError
from evocell_runtime.private import make_private

__all__ = ["EventLog", "log_files", "read_events"]

_READ_BYTES = 1 << 20
_MAX_EVENT_BYTES = 64 << 20
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_NAME = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?\.msgpack\Z")

_log = logging.getLogger("evocell")


class EventLog:
    """Appends packed events to files; each has reached the operating system when `append` returns.

    Args:
        directory: The directory of the files; it is created if it does not exist.
        run: Number of the run.
        max_bytes: Most bytes of a file; an event is never split.
        max_files: Most files in the directory, not counting those of other engines that are running.
        is_alive: Whether the engine of another run is alive; such an engine removes its own files.

    Raises:
        OSError: It cannot be written.
        StoreError: Others may write to the directory.
    """

    def __init__(
        self,
        directory: Path,
        run: int,
        *,
        max_bytes: int = 64 << 20,
        max_files: int = 16,
        is_alive: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self._directory = directory
        self._run = run
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._is_alive = is_alive
        self._n_missing = 0
        problem = make_private(directory)
        if problem is not None:
            raise StoreError(problem, str(directory))
        # Files of that number exist already if the database beside them was deleted.
        self._first = 1 + max((part for of, part, _ in log_files(directory) if of == run), default=0)
        self._part = self._first
        self._size = 0
        self._file: int | None = os.open(self.path, _FLAGS, 0o600)
        self._trim()

    @property
    def path(self) -> Path:
        """The file that is written to."""
        return self._directory / _name(self._run, self._part)

    def append(self, packed: bytes) -> None:
        """Append one event; if the disk is full, drop it and report that to the logger `evocell`."""
        if self._file is None:
            return
        try:
            self._write(self._file, packed)
        except OSError as error:
            if not self._n_missing:
                why = error.strerror or error
                _log.error("the event log %s cannot be written: %s; events are left out", self.path, why)
            self._n_missing += 1
            return
        if self._n_missing:
            lacks = self._n_missing
            _log.warning("the event log %s can be written again; it lacks %d events", self.path, lacks)
            self._n_missing = 0

    def files(self) -> list[Path]:
        """Return the existing files of this run, in order."""
        files = log_files(self._directory)
        return [path for run, part, path in files if run == self._run and part >= self._first]

    def close(self) -> None:
        """Close the file; idempotent."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _write(self, file: int, packed: bytes) -> None:
        if self._size and self._size + len(packed) > self._max_bytes:
            file = self._next_file(file)
        written = os.write(file, packed)
        if written != len(packed):
            os.ftruncate(file, self._size)
            raise OSError("there is no room for a whole event")
        self._size += written

    def _next_file(self, full: int) -> int:
        file = self._file = os.open(self._directory / _name(self._run, self._part + 1), _FLAGS, 0o600)
        os.close(full)
        self._part += 1
        self._size = 0
        self._trim()
        return file

    def _trim(self) -> None:
        """Remove the oldest files that no engine writes to."""
        ours = [
            (run, part, path)
            for run, part, path in log_files(self._directory)
            if run == self._run or not self._is_alive(run)
        ]
        for run, part, path in ours[: max(0, len(ours) - self._max_files)]:
            if (run, part) != (self._run, self._part):
                with suppress(OSError):
                    path.unlink()


def log_files(directory: Path) -> list[tuple[int, int, Path]]:
    """Return (run, part, path) of the files of a log, oldest first."""
    found = []
    for path in directory.iterdir():
        match = _NAME.match(path.name)
        if match is not None:
            found.append((int(match[1]), int(match[2] or 1), path))
    return sorted(found)


def read_events(path: Path) -> Iterator[bytes]:
    """Return the packed events of a log file in order; a truncated last one is skipped.

    Raises:
        OSError: There is no such file, or it cannot be read.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=_MAX_EVENT_BYTES)
    pending = bytearray()
    begun = 0
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            unpacker.feed(data)
            pending += data
            while True:
                try:
                    unpacker.skip()
                except msgpack.OutOfData:
                    break
                ends = unpacker.tell()
                yield bytes(pending[: ends - begun])
                del pending[: ends - begun]
                begun = ends


def _name(run: int, part: int) -> str:
    return f"{run}.msgpack" if part == 1 else f"{run}-{part}.msgpack"
