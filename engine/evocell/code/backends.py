"""Source back ends: each reads one kind of source and returns its files by path.

All later steps are shared: the tree is checked and addressed by its content, and its files are compiled one
by one in a guest, or taken from the cache. A new kind of source needs only a new back end.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from evocell.code.bundles import read_bundle
from evocell.code.paths import MAX_FILE_BYTES, MAX_TOTAL_BYTES, Quota, check_path, refuse
from evocell.models.evaluation import DEFAULT_MODULE

__all__ = ["BACKENDS", "Backend", "BundleBackend", "FilesBackend", "PathBackend", "TextBackend"]

Files = list[tuple[str, bytes]]

_DEFAULT_PATH = f"{DEFAULT_MODULE}.py"
_SKIPPED_DIRECTORIES = ("__pycache__",)
_BUNDLE_SUFFIXES = (".zip", ".whl")
_FILE_NAME = re.compile(r"[^\s()'\"#=]+\.(?:py|zip|whl)")
"""Form of a text that is a path, passed by mistake in place of the file's content."""


class Backend(Protocol):
    """Reads one kind of source."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def accepts(self, source: object) -> bool:
        """Return whether a source is of its kind."""
        ...

    def read(self, source: Any) -> Files:
        """Return the files of an accepted source, by path.

        Raises:
            ConfigurationError: Part of it is refused; the message names it.
        """
        ...


class TextBackend:
    """Program text: one file, ``program.py``."""

    name = "text"

    def accepts(self, source: object) -> bool:
        """Return whether it is text."""
        return isinstance(source, str)

    def read(self, source: str) -> Files:
        """Return the one file."""
        if _FILE_NAME.fullmatch(source):
            raise refuse("source", f"is only the text {source!r}; write Path({source!r}) for that file")
        return [(_DEFAULT_PATH, _encode(source))]


class FilesBackend:
    """A mapping of paths to text or bytes."""

    name = "files"

    def accepts(self, source: object) -> bool:
        """Return whether it is a mapping."""
        return isinstance(source, Mapping)

    def read(self, source: Mapping[str, str | bytes]) -> Files:
        """Return the files; their contents are checked with the tree."""
        return [
            (path, _encode(content) if isinstance(content, str) else content)
            for path, content in source.items()
        ]


class BundleBackend:
    """The bytes of a zip or wheel."""

    name = "bundle"

    def accepts(self, source: object) -> bool:
        """Return whether it is bytes."""
        return isinstance(source, bytes | bytearray | memoryview)

    def read(self, source: bytes | bytearray | memoryview) -> Files:
        """Unpack it in memory; its contents are untrusted."""
        return read_bundle(bytes(source), check_path)


class PathBackend:
    """A directory, a zip or wheel on disk, or a file with program text."""

    name = "path"

    def accepts(self, source: object) -> bool:
        """Return whether it is a `Path`."""
        return isinstance(source, Path)

    def read(self, source: Path) -> Files:
        """Read it; links and other non-regular files are refused."""
        return _read_path(source)


BACKENDS: tuple[Backend, ...] = (TextBackend(), FilesBackend(), BundleBackend(), PathBackend())
"""All back ends; the first that accepts a source reads it."""


def _encode(text: str) -> bytes:
    """Encode text; lone surrogates pass, since the guest's compiler reports them as syntax errors."""
    return text.encode("utf-8", "surrogatepass")


def _read_path(path: Path) -> list[tuple[str, bytes]]:
    try:
        if path.is_dir():
            return _read_directory(path)
        content = _read_regular(path, Quota(), str(path))
    except OSError as error:
        raise refuse(str(path), f"cannot be read: {error.strerror or error}") from error
    if path.suffix.lower() in _BUNDLE_SUFFIXES:
        return read_bundle(content, check_path)
    return [(_DEFAULT_PATH, content)]


def _read_directory(root: Path) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    quota = Quota()
    for place, directories, names in os.walk(root):
        directories[:] = sorted(
            name for name in directories if not name.startswith(".") and name not in _SKIPPED_DIRECTORIES
        )
        here = Path(place)
        for name in (*directories, *names):
            if (here / name).is_symlink() and not name.startswith("."):
                raise refuse(str(here / name), "is a link; put the file itself there")
        for name in sorted(names):
            if name.startswith(".") or name.endswith(".pyc"):
                continue
            relative = (here / name).relative_to(root).as_posix()
            quota.add_file(relative)
            content = _read_regular(here / name, quota, relative)
            found.append((relative, content))
    return found


def _read_regular(path: Path, quota: Quota, name: str) -> bytes:
    """Read a regular file up to the quota, regardless of its reported size."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise refuse(name, "is not a regular file")
        most = MAX_TOTAL_BYTES if path.suffix.lower() in _BUNDLE_SUFFIXES else MAX_FILE_BYTES
        content = file.read(most + 1)
    if len(content) > most or most == MAX_FILE_BYTES:
        quota.add_bytes(name, len(content))
    return content
