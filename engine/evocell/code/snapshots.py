"""Immutable snapshots of file trees on disk, and the byte code made of them, by content."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from evocell.code.sources import FileTree
from evocell.errors import StoreError

_PRIVATE_MODE = 0o700
_DIRECTORY_MODE = 0o755
_FILE_MODE = 0o444
_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,199}\Z")
_CODE_MAGIC = b"evocell code 1\n"
_DIGEST_BYTES = 32


@frozen
class VersionSnapshot:
    """A file tree on disk, to be mounted read-only.

    Attributes:
        digest: Digest of the tree, see `FileTree`.
        path: Directory that holds exactly its files.
    """

    digest: str
    path: Path


class SnapshotStore:
    """Keeps file trees and byte code under one directory, each named by its content.

    Nothing is ever changed in place: a tree is written beside its final name and renamed, so that
    threads and processes may put the same one at once. A tree that was there before this store was
    opened is compared with what it should be, once, and replaced if a crash had damaged it.

    Args:
        root: Directory of the store, which belongs to evocell alone; created if it is not there.

    Raises:
        StoreError: The directory cannot be used, or others may write to it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._trees = self.root / "versions"
        self._code = self.root / "modules"
        self._temporary = self.root / "tmp"
        self._verified: set[str] = set()
        with self._store_errors(self.root):
            self.root.mkdir(mode=_PRIVATE_MODE, parents=True, exist_ok=True)
            status = self.root.stat()
            for directory in (self._trees, self._code, self._temporary):
                directory.mkdir(mode=_PRIVATE_MODE, exist_ok=True)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise StoreError(
                f"others may write to {self.root}, and what is in it becomes running code; "
                "choose another directory or make it yours with chmod 700",
                str(self.root),
            )

    def put(self, tree: FileTree) -> VersionSnapshot:
        """Keep a tree, and return where it is; one that is there already is left alone.

        Raises:
            StoreError: The disk is full, or the store cannot be written.
        """
        final = self._trees / tree.digest
        if not (tree.digest in self._verified and final.is_dir()):
            with self._store_errors(final):
                self._place(tree, final)
            self._verified.add(tree.digest)
        return VersionSnapshot(tree.digest, final)

    @property
    def empty(self) -> VersionSnapshot:
        """The snapshot without any file, to be mounted where there is nothing to mount."""
        return self.put(FileTree())

    def remove(self, digest: str) -> None:
        """Forget a tree and remove it from disk; one that is not there is no error.

        Raises:
            StoreError: It cannot be removed.
        """
        final = self._trees / _checked_key(digest)
        self._verified.discard(digest)
        with self._store_errors(final):
            self._discard(final)

    def get_code(self, key: str) -> bytes | None:
        """Return byte code that was put under a key; None if there is none, or it is damaged.

        Args:
            key: See `evocell.code.compiler.code_key`.

        Raises:
            StoreError: The store cannot be read.
        """
        path = self._code_path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _store_error(path, error) from error
        head = len(_CODE_MAGIC) + _DIGEST_BYTES
        code = data[head:]
        if data[:head] != _CODE_MAGIC + hashlib.sha256(code).digest():
            return None
        return code

    def put_code(self, key: str, code: bytes) -> None:
        """Keep byte code under a key; it replaces what was there.

        Args:
            key: See `evocell.code.compiler.code_key`.
            code: Bytes that only the guest can read.

        Raises:
            StoreError: The disk is full, or the store cannot be written.
        """
        path = self._code_path(key)
        with self._store_errors(path):
            path.parent.mkdir(mode=_PRIVATE_MODE, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._temporary)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_CODE_MAGIC + hashlib.sha256(code).digest() + code)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def _code_path(self, key: str) -> Path:
        return self._code / _checked_key(key)[:2] / f"{key}.msgpack"

    def _place(self, tree: FileTree, final: Path) -> None:
        if final.is_dir():
            if _holds(final, tree):
                return
            self._discard(final)
        staging = Path(tempfile.mkdtemp(dir=self._temporary))
        try:
            _write(tree, staging)
            try:
                staging.rename(final)
            except OSError:
                # Another writer of the same content was faster; anything else is an error.
                if not (final.is_dir() and _holds(final, tree)):
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _discard(self, final: Path) -> None:
        """Take a tree away in one step, then delete it: nobody ever sees half of it."""
        graveyard = Path(tempfile.mkdtemp(dir=self._temporary))
        try:
            final.rename(graveyard / "tree")
        except FileNotFoundError:
            pass
        finally:
            shutil.rmtree(graveyard, ignore_errors=True)

    @contextmanager
    def _store_errors(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _store_error(path, error) from error


def _store_error(path: Path, error: OSError) -> StoreError:
    return StoreError(f"the version store cannot use {path}: {error.strerror or error}", str(path))


def _checked_key(key: str) -> str:
    if not _KEY.match(key):
        raise ValueError(f"{key!r} cannot be a key of the store; use letters, digits, '.', '_' and '-'")
    return key


def _write(tree: FileTree, directory: Path) -> None:
    directory.chmod(_DIRECTORY_MODE)
    made: set[str] = {""}
    for path, content in tree.files:
        parent = os.path.dirname(path)  # noqa: PTH120 - a relative name, on the way of every new variant
        if parent not in made:
            (directory / parent).mkdir(parents=True, exist_ok=True)
            made.add(parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(directory / path, flags, _FILE_MODE), "wb") as file:
            file.write(content)


def _holds(directory: Path, tree: FileTree) -> bool:
    """Whether a directory holds exactly a tree's files."""
    expected = dict(tree.files)
    seen = 0
    for place, directories, names in os.walk(directory):
        here = Path(place)
        if any((here / name).is_symlink() for name in (*directories, *names)):
            return False
        for name in names:
            path = here / name
            content = expected.get(path.relative_to(directory).as_posix())
            if content is None or path.stat().st_size != len(content) or path.read_bytes() != content:
                return False
            seen += 1
    return seen == len(expected)
