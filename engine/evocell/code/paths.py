"""Validation of paths in a tree, and quotas on the number and size of files."""

from __future__ import annotations

from attrs import define

from evocell.errors import ConfigurationError

__all__ = ["MAX_PART_BYTES", "MAX_PATH_CHARS", "check_path"]

MAX_PATH_CHARS = 1024
MAX_PART_BYTES = 255

MAX_FILES = 2_000
#: Directories do not count in an archive's size, and a path of a kilobyte needs five hundred of them.
MAX_DIRECTORIES = 2_000
MAX_FILE_BYTES = 4 << 20
MAX_TOTAL_BYTES = 64 << 20


def check_path(path: object) -> str:
    """Return a valid relative path with forward slashes; refuse anything else by name.

    Raises:
        ConfigurationError: The path is absolute, leaves the tree with ``..``, or is ambiguous.
    """
    if not isinstance(path, str):
        raise refuse(repr(path)[:200], "is not a text; paths of files are strings")
    if not path or len(path) > MAX_PATH_CHARS:
        raise refuse(path[:80], f"has {len(path)} characters; a path has 1 to {MAX_PATH_CHARS:,}")
    if "\0" in path:
        raise refuse(path, "holds a NUL character")
    if "\\" in path:
        raise refuse(path, "holds a backslash; separate directories with /")
    if path.startswith("/"):
        raise refuse(path, "is absolute; give it relative to the tree's root")
    if not path.isprintable():
        raise refuse(path, "holds characters that cannot be printed")
    parts = path.split("/")
    if ".." in parts:
        raise refuse(path, "climbs out of the tree with ..")
    for part in parts:
        if part in ("", "."):
            raise refuse(path, "has an empty part or a . in it; write it without")
        if len(part.encode()) > MAX_PART_BYTES:
            raise refuse(path[:80], f"has a part longer than {MAX_PART_BYTES} bytes")
    return path


def refuse(path: str, reason: str) -> ConfigurationError:
    """Return the error that refuses a file by name.

    Args:
        path: The offending path, shown with unprintable characters escaped.
        reason: The rest of the sentence.
    """
    return ConfigurationError(f"{path!r} {reason}", path)


@define
class Quota:
    """Counts files and bytes, and refuses those over the limits.

    Attributes:
        files: Files so far.
        total_bytes: Bytes so far.
    """

    files: int = 0
    total_bytes: int = 0

    def add_file(self, path: str) -> None:
        """Count a file.

        Raises:
            ConfigurationError: There are too many files.
        """
        self.files += 1
        if self.files > MAX_FILES:
            raise refuse(path, f"is one file too many; a tree has at most {MAX_FILES:,}")

    def add_bytes(self, path: str, size: int) -> None:
        """Count the content of a file.

        Raises:
            ConfigurationError: The file is too large, or the tree with it.
        """
        if size > MAX_FILE_BYTES:
            raise refuse(path, f"is larger than the {MAX_FILE_BYTES >> 20} MiB that a file may have")
        self.total_bytes += size
        if self.total_bytes > MAX_TOTAL_BYTES:
            raise refuse(path, f"takes the tree over the {MAX_TOTAL_BYTES >> 20} MiB that it may have")
