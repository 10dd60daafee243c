"""From whatever a caller hands in as code to a checked, immutable tree of files.

Bundles and paths come from whoever wrote the variant, so they are hostile: every path is checked
before it can name anything outside the tree, and every size twice, as declared and as unpacked.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath

from attrs import field, frozen

from evocell.code.bundles import read_bundle
from evocell.code.quota import MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES, Quota, refuse
from evocell.models.evaluation import DEFAULT_MODULE
from evocell.models.source import Source

__all__ = [
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "MAX_TOTAL_BYTES",
    "FileTree",
    "Source",
    "check_path",
    "normalise",
]

MAX_PATH_CHARS = 1024
MAX_PART_BYTES = 255

_DEFAULT_PATH = f"{DEFAULT_MODULE}.py"
_SKIPPED_DIRECTORIES = ("__pycache__",)
_BUNDLE_SUFFIXES = (".zip", ".whl")


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


def _checked_files(files: object) -> tuple[tuple[str, bytes], ...]:
    """Sort the files by path and check them together."""
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
    """Refuse names that are one name on a file system which ignores case or normalises Unicode."""
    spelled: dict[str, str] = {}
    for path in files:
        for known in (path, *(str(parent) for parent in PurePosixPath(path).parents)):
            if known == ".":
                continue
            folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", known).casefold())
            other = spelled.setdefault(folded, known)
            if other != known:
                raise refuse(path, f"clashes with {other!r}: they differ only in case or spelling")
        for parent in PurePosixPath(path).parents:
            if str(parent) in files:
                raise refuse(path, f"needs a directory where the file {str(parent)!r} is")


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
    """Files by relative path, checked, sorted, and named by their content.

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
        """SHA-256 of each file's content, in hex, by path in sorted order."""
        return {path: hashlib.sha256(content).hexdigest() for path, content in self.files}

    def get(self, path: str) -> bytes | None:
        """Return the content of a file, or None if there is no such file."""
        return dict(self.files).get(path)

    def replace(self, files: Mapping[str, bytes]) -> FileTree:
        """Return a tree in which some files are added or replaced.

        Raises:
            ConfigurationError: A path or size is refused.
        """
        return FileTree(tuple({**dict(self.files), **files}.items()))

    def modules(self) -> list[tuple[str, bool, str]]:
        """List the importable modules as (dotted name, whether a package, path), sorted by path.

        Python files whose path is not a module's name are left out; where a package and a module
        share a name, the package wins, as it does in Python.
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
    """Turn what a caller hands in as code into a checked tree of files.

    Args:
        source: Text (becomes ``program.py``), files by path, the bytes of a zip or wheel, or a
            `Path`: of a directory (all its files but hidden ones and byte code), of a zip or wheel,
            or of one file with program text.

    Raises:
        ConfigurationError: The source is of no such kind, is empty, cannot be read, or a path or
            size in it is refused; the message names it.
    """
    if isinstance(source, str):
        return FileTree(((_DEFAULT_PATH, _encode(source)),))
    if isinstance(source, Mapping):
        files = [
            (path, _encode(content) if isinstance(content, str) else content)
            for path, content in source.items()
        ]
    elif isinstance(source, bytes | bytearray | memoryview):
        files = read_bundle(bytes(source), check_path)
    elif isinstance(source, Path):
        files = _read_path(source)
    else:
        raise refuse(
            "source",
            f"is a {type(source).__name__}; give program text, files by path, a Path, "
            "or the bytes of a zip or wheel",
        )
    if not files:
        raise refuse("source", "holds no files")
    return FileTree(tuple(files))


def _encode(text: str) -> bytes:
    """Encode text; a lone surrogate is left to the guest's compiler, which calls it a syntax error."""
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
    """Read a regular file up to the quota, however large it says it is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise refuse(name, "is not a regular file")
        most = MAX_TOTAL_BYTES if path.suffix.lower() in _BUNDLE_SUFFIXES else MAX_FILE_BYTES
        content = file.read(most + 1)
    if len(content) > most or most == MAX_FILE_BYTES:
        quota.add_bytes(name, len(content))
    return content
