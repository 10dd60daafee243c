"""Conversion of a caller's source into a checked, immutable tree of files.

A back end reads one kind of source and returns its files by path; a new kind of source needs only a new back
end. All later steps are shared: the tree is checked and addressed by its content, and its files are compiled
one by one in a guest, or taken from the cache.

Bundles and paths come from the author of the variant, so they are untrusted: every path is checked
before use, and every size twice, as declared and as unpacked.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

from attrs import field, frozen

from evocell.code.bundles import read_bundle
from evocell.code.paths import (
    MAX_DIRECTORIES,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_TOTAL_BYTES,
    Quota,
    check_path,
    refuse,
)
from evocell.models.evaluation import DEFAULT_MODULE
from evocell.models.references import Source
from evocell_guest.packing import module_name

__all__ = [
    "BACKENDS",
    "MAX_DIRECTORIES",
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "MAX_TOTAL_BYTES",
    "Backend",
    "FileTree",
    "Source",
    "check_path",
    "normalise",
]

Files = list[tuple[str, bytes]]

_DEFAULT_PATH = f"{DEFAULT_MODULE}.py"
_SKIPPED_DIRECTORIES = ("__pycache__",)
_BUNDLE_SUFFIXES = (".zip", ".whl")
_FILE_NAME = re.compile(r"[^\s()'\"#=]+\.(?:py|zip|whl)")
"""Form of a text that is a path, passed by mistake in place of the file's content."""

SHORT_CHARS = 10_000
SHORT_TEXTS = 256
"""Texts that are not longer than that are converted once, as long as not many others come between."""


def _checked_files(files: object) -> tuple[tuple[str, bytes], ...]:
    """Sort the files by path, and check them as a whole."""
    found: dict[str, bytes] = {}
    quota = Quota()
    for path, content in files:  # type: ignore[attr-defined]  # pairs, from this package only
        checked = check_path(path)
        if not isinstance(content, bytes):
            raise refuse(checked, f"holds {type(content).__name__}; content is text or bytes")
        if checked in found:
            raise refuse(checked, "is there twice")
        quota.add_file(checked)
        quota.add_bytes(checked, len(content))
        found[checked] = content
    _check_clashes(found)
    return tuple(sorted(found.items()))


def _check_clashes(files: Mapping[str, bytes]) -> None:
    """Refuse names that clash on a file system which ignores case or normalises Unicode.

    Also refuse too many directories, and a directory with the path of a file.
    """
    spelled: dict[str, str] = {}
    directories: set[str] = set()
    for path in files:
        _check_spelling(path, path, spelled)
        parent = path.rpartition("/")[0]
        while parent and parent not in directories:
            directories.add(parent)
            if len(directories) > MAX_DIRECTORIES:
                raise refuse(path, f"needs a directory too many; a tree has at most {MAX_DIRECTORIES:,}")
            _check_spelling(path, parent, spelled)
            if parent in files:
                raise refuse(path, f"needs a directory where the file {parent!r} is")
            parent = parent.rpartition("/")[0]


def _check_spelling(path: str, known: str, spelled: dict[str, str]) -> None:
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", known).casefold())
    other = spelled.setdefault(folded, known)
    if other != known:
        raise refuse(path, f"clashes with {other!r}: they differ only in case or spelling")


def _digest(tree: FileTree) -> str:
    digest = hashlib.sha256(b"evocell tree 1\n")
    for path, content in tree.files:
        name = path.encode()
        digest.update(b"%d %d\n" % (len(name), len(content)))
        digest.update(name)
        digest.update(content)
    return digest.hexdigest()


@frozen
class FileTree:
    """Files by relative path: checked, sorted, and addressed by content.

    Attributes:
        files: Path and content of each file, sorted by path; paths have forward slashes.
        digest: SHA-256, in hex, over all paths and contents.

    Raises:
        ConfigurationError: A path or size is refused; the message names it.
    """

    files: tuple[tuple[str, bytes], ...] = field(default=(), converter=_checked_files, repr=False)
    digest: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self))

    @cached_property
    def file_digests(self) -> dict[str, str]:
        """SHA-256 of each file's content, in hex, by sorted path."""
        return {path: hashlib.sha256(content).hexdigest() for path, content in self.files}

    # Asked several times on the way of every new variant.
    @cached_property
    def python_files(self) -> tuple[tuple[str, bytes], ...]:
        """Its Python files, as in `files`."""
        return tuple(file for file in self.files if file[0].endswith(".py"))

    @cached_property
    def python_bytes(self) -> int:
        """Size of its Python files."""
        return sum(len(content) for _, content in self.python_files)

    @cached_property
    def own_modules(self) -> tuple[str, ...]:
        """Top-level names of its own modules, sorted."""
        return tuple(sorted({module_name(path)[0].partition(".")[0] for path, _ in self.python_files} - {""}))

    def get(self, path: str) -> bytes | None:
        """Return the content of a file; None if it does not exist."""
        return dict(self.files).get(path)

    def replace(self, files: Mapping[str, bytes]) -> FileTree:
        """Return a tree with some files added or replaced.

        Raises:
            ConfigurationError: A path or size is refused.
        """
        return FileTree(tuple({**dict(self.files), **files}.items()))

    def modules(self) -> list[tuple[str, bool, str]]:
        """List the importable modules as (dotted name, whether a package, path), sorted by path.

        Python files whose path is not a module's name are omitted; if a package and a module share a
        name, the package wins, as in Python.
        """
        found: dict[str, tuple[str, bool, str]] = {}
        for path, _ in self.files:
            if not path.endswith(".py"):
                continue
            parts = path.removesuffix(".py").split("/")
            is_package = parts[-1] == "__init__"
            if is_package:
                parts.pop()
            if not parts or not all(part.isidentifier() for part in parts):
                continue
            name = ".".join(parts)
            if is_package or name not in found:
                found[name] = (name, is_package, path)
        return sorted(found.values(), key=lambda module: module[2])


def normalise(source: Source) -> FileTree:
    """Convert a source to a checked tree of files.

    Args:
        source: Text (becomes ``program.py``), files by path, the bytes of a zip or wheel, or a
            `Path`: of a directory (all its files but hidden ones and byte code), of a zip or wheel,
            or of one file with program text.

    Raises:
        ConfigurationError: The source is of another kind, is empty, cannot be read, or a path or
            size in it is refused; the message names it.
    """
    if isinstance(source, str) and len(source) <= SHORT_CHARS:
        return _tree_of_text(source)
    return _tree_of(source)


@lru_cache(maxsize=SHORT_TEXTS)
def _tree_of_text(source: str) -> FileTree:
    """Convert a short text: that of a candidate is wanted when it is compiled ahead, and when it runs."""
    return _tree_of(source)


def _tree_of(source: Source) -> FileTree:
    backend = next((one for one in BACKENDS if one.accepts(source)), None)
    if backend is None:
        raise refuse(
            "source",
            f"is of type {type(source).__name__}; give program text, files by path, a Path, "
            "or the bytes of a zip or wheel",
        )
    files = backend.read(source)
    if not files:
        raise refuse("source", "holds no files")
    return FileTree(tuple(files))


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
