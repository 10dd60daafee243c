"""Directories private to this user."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["PRIVATE_MODE", "make_below", "make_private", "shared_file"]

PRIVATE_MODE = 0o700
"""Mode of every created directory."""

_OTHERS_WRITE = 0o022


def make_private(directory: Path) -> str | None:
    """Create a private directory and its missing parents; return who else may write to an existing one.

    The mode is never wider than requested, not even for a moment; the umask may only narrow it. Existing
    directories are not changed, but checked.

    Args:
        directory: The directory.

    Returns:
        A sentence that says who else may write to it and how to fix that; None if no one else may.

    Raises:
        OSError: It cannot be created, or is not a directory.
    """
    make_below(directory.absolute())
    user = os.geteuid()
    link = directory.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in {user, 0}:
        return f"{directory} is a link that another user made; choose another directory"
    seen = directory.stat()
    if not stat.S_ISDIR(seen.st_mode):
        raise NotADirectoryError(20, "Not a directory", str(directory))
    if seen.st_uid != user:
        return f"{directory} belongs to another user; choose a directory of your own"
    if seen.st_mode & _OTHERS_WRITE:
        return (
            f"others may write to {directory}, and its content is relied on; "
            f"choose another directory or make it yours with chmod 700 {directory}"
        )
    return None


def shared_file(file: Path) -> str | None:
    """Return a sentence if others may write to a file, or it belongs to another user; else None."""
    try:
        seen = file.stat()
    except FileNotFoundError:
        return None
    if seen.st_uid != os.geteuid():
        return f"{file} belongs to another user; choose another place"
    if seen.st_mode & _OTHERS_WRITE:
        return f"others may write to {file}; if its content is still yours, run: chmod 600 {file}"
    return None


def make_below(directory: Path, *, mode: int = PRIVATE_MODE) -> None:
    """Create a directory and its missing parents, all with one mode; existing ones are not changed.

    `Path.mkdir` applies its ``mode`` to the last one only: parents get the default mode under the umask.

    Raises:
        OSError: One cannot be created.
    """
    missing = []
    while not os.path.lexists(directory):
        missing.append(directory)
        directory = directory.parent
    for one in reversed(missing):
        with suppress(FileExistsError):  # another process was faster
            one.mkdir(mode=mode)
