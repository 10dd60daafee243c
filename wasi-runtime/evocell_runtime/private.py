"""Directories that are this user's alone, from before there is anything in them."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["PRIVATE_MODE", "make_below", "make_private", "shared_file"]

PRIVATE_MODE = 0o700
"""Mode of every directory that is made."""

_OTHERS_WRITE = 0o022


def make_private(directory: Path) -> str | None:
    """Make a directory, and those above it that are missing, for this user alone; or say who else may write.

    The umask may only take from the mode, and no moment passes in which it is wider. What is there already is
    left as it is, and looked at.

    Args:
        directory: Where.

    Returns:
        A sentence that says who else may write to it and how to mend that; None if nobody else may.

    Raises:
        OSError: It cannot be made, or is no directory.
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
    """Say that others may write to a file, or that it is another user's; None if it is not so."""
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
    """Make a directory and those above it that are missing, all with one mode; what is there stays as it is.

    `Path.mkdir` gives its ``mode`` to the last one only: those above it get what the umask leaves.

    Raises:
        OSError: One cannot be made.
    """
    missing = []
    while not os.path.lexists(directory):
        missing.append(directory)
        directory = directory.parent
    for one in reversed(missing):
        with suppress(FileExistsError):  # another process was faster
            one.mkdir(mode=mode)
