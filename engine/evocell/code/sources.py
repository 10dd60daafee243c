"""Conversion of a caller's source into a checked, immutable tree of files.

Bundles and paths come from the author of the variant, so they are untrusted: every path is checked
before use, and every size twice, as declared and as unpacked.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from functools import cached_property, lru_cache

from attrs import field, frozen

from evocell.code.backends import BACKENDS
from evocell.code.paths import (
    MAX_DIRECTORIES,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_TOTAL_BYTES,
    Quota,
    check_path,
    refuse,
)
from evocell.models.references import Source
from evocell_guest.packing import module_name

__all__ = [
    "MAX_DIRECTORIES",
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "MAX_TOTAL_BYTES",
    "FileTree",
    "Source",
    "check_path",
    "normalise",
]

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
