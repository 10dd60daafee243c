"""Paths of files in a tree: relative, with forward slashes, and readable in one way only."""

from __future__ import annotations

from evocell.code.quota import refuse

__all__ = ["MAX_PART_BYTES", "MAX_PATH_CHARS", "check_path"]

MAX_PATH_CHARS = 1024
MAX_PART_BYTES = 255


def check_path(path: object) -> str:
    """Return a relative path with forward slashes, and refuse, by name, anything else.

    Raises:
        ConfigurationError: The path is absolute, climbs out with ``..``, or could be read in two ways.
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
