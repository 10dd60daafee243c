"""The log of events: msgpack maps one after the other in a file that is only ever appended to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgpack

__all__ = ["EventLog", "read_events"]

_READ_BYTES = 1 << 20
_MAX_EVENT_BYTES = 64 << 20


class EventLog:
    """A file that packed events are appended to; each is with the operating system when `append` returns.

    Args:
        path: The file; it is created, with its directory, or continued.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file: int | None = os.open(path, flags, 0o600)

    def append(self, packed: bytes) -> None:
        """Append one event.

        Raises:
            OSError: The disk is full, say; the telemetry then detaches the stream and says so in the log.
        """
        file = self._file
        if file is not None:
            written = os.write(file, packed)
            if written != len(packed):
                raise OSError(f"{self.path} took only a part of an event; is the disk full?")

    def close(self) -> None:
        """Close the file; idempotent."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def read_events(path: Path) -> Iterator[bytes]:
    """Return the packed events of a log in order; one at the end that was cut off is left out.

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
