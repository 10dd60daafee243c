"""Deduplicated file contents, shared by the trees through hard links.

A tree's file is a hard link to its content, so that a hundred versions that differ in one file take little
more space than one of them. A content that no tree links to has a link count of one, and can be removed.
"""

# Names are plain strings: a Path per file would double the cost.
# ruff: noqa: PTH102, PTH108, PTH116, PTH120, PTH208

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["BlobStore", "write_new"]

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o444
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class BlobStore:
    """File contents in a directory, by their SHA-256.

    Threads and processes may use one directory at once. A content from before this store was
    opened is verified once and replaced if a crash had damaged it. Methods raise `OSError` on disk errors.

    Args:
        root: The directory; its parent exists and is on the file system of the trees.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._verified: set[str] = set()
        root.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)

    def place(self, digest: str, content: bytes, target: str) -> None:
        """Create a file with a content at a path where none exists.

        Args:
            digest: SHA-256 of the content, in hex.
            content: The content.
            target: The path of the file, in a directory in exclusive use.
        """
        blob = self._path(digest)
        if _linked(blob, target):
            if digest in self._verified or _holds(target, content):
                self._verified.add(digest)
                return
            os.unlink(target)
        with suppress(FileNotFoundError):  # damaged, or at the maximal number of links
            os.unlink(blob)
        write_new(content, target)
        self._adopt(target, blob)
        self._verified.add(digest)

    def _adopt(self, target: str, blob: str) -> None:
        """Keep the content of a new file for later trees."""
        if not _linked(target, blob):
            with suppress(FileExistsError):
                os.mkdir(os.path.dirname(blob), _DIRECTORY_MODE)
            _linked(target, blob)

    def drop_unused(self, digests: Iterable[str]) -> tuple[int, int]:
        """Remove those of the given contents that no tree holds any more.

        Returns:
            The number of removed contents, and their bytes.
        """
        removed = total = 0
        for digest in digests:
            blob = self._path(digest)
            with suppress(FileNotFoundError):
                status = os.stat(blob, follow_symlinks=False)
                if status.st_nlink == 1:
                    os.unlink(blob)
                    self._verified.discard(digest)
                    removed += 1
                    total += status.st_size
        return removed, total

    def digests(self) -> list[str]:
        """Return the digests of all stored contents."""
        return [blob for directory in _names(self._root) for blob in _names(f"{self._root}/{directory}")]

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"


def write_new(content: bytes, target: str) -> None:
    """Create a file with a content, where none exists."""
    descriptor = os.open(target, _CREATE, _FILE_MODE)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)


def _linked(source: str, target: str) -> bool:
    """Make a hard link; return False if that is impossible, or the content is missing."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except FileExistsError:
        return True  # a concurrent writer of the same content was faster
    except OSError as error:
        # ext4 allows 65,000 links per file; some file systems allow none.
        if error.errno in {errno.EMLINK, errno.EPERM, errno.ENOTSUP, errno.EXDEV}:
            return False
        raise
    return True


def _holds(path: str, content: bytes) -> bool:
    """Return whether a file is regular and has exactly a given content."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise
    with os.fdopen(descriptor, "rb") as file:
        return os.fstat(descriptor).st_size == len(content) and file.read(len(content)) == content


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
