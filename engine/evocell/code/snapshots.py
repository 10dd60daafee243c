"""Content-addressed store of immutable file trees."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import trio
from attrs import frozen

from evocell.code.blobs import BlobStore, write_new
from evocell.code.sources import FileTree
from evocell.errors import StoreError
from evocell_runtime.private import PRIVATE_MODE, make_below, make_private

__all__ = ["is_small", "put_tree", "remove_former"]

_DIRECTORY_MODE = 0o755
_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,199}\Z")

_FEW_FILES = 32
_FEW_BYTES = 1 << 20
"""Bounds of a small tree, which is written in less time than the hand-over to a thread takes."""


@frozen
class VersionSnapshot:
    """A file tree on disk, to be mounted read-only.

    Attributes:
        digest: Digest of the tree, see `FileTree`.
        path: Directory with exactly its files.
    """

    digest: str
    path: Path


@frozen
class Removed:
    """Counts of what was removed from a snapshot store.

    Attributes:
        trees: Number of trees.
        files: Number of file contents that no other tree holds.
        bytes: Their sizes together.
    """

    trees: int = 0
    files: int = 0
    bytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.trees + other.trees, self.files + other.files, self.bytes + other.bytes)


@frozen
class Detached:
    """Trees moved out of a store, to be deleted.

    Attributes:
        grave: Their directory; None if there are none.
        n_trees: Their number.
        contents: Digests of their files' contents; None if not known for all.
    """

    grave: Path | None
    n_trees: int = 0
    contents: set[str] | None = None


class SnapshotStore:
    """Stores file trees in one directory, addressed by content.

    Trees share files: each content is stored once, and a tree has hard links. A tree of one file shares
    nothing, since the tree itself is stored once.

    Nothing is changed in place: a tree is written under a temporary name and renamed, so that threads and
    processes may put the same one concurrently. A tree from before this store was opened is verified once,
    and replaced if a crash had damaged it.

    Args:
        root: Directory of the store, for the exclusive use of evocell; created if missing.

    Raises:
        StoreError: The directory cannot be used, or others may write to it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._trees = self.root / "versions"
        self._temporary = self.root / "tmp"
        self._files: dict[str, tuple[str, ...]] = {}
        self._staging_prefix = f"{self._temporary}/{os.getpid()}-{uuid.uuid4().hex}"
        self._staged = count()
        self._changing = threading.Lock()
        self.on_new: Callable[[FileTree], None] | None = None
        """Called with each new tree, in the thread that put it."""
        self.on_full: Callable[[], object] | None = None
        """Called when there is no room for a tree, to make some; the tree is then put once more."""
        self._make_directories()
        self._blobs = BlobStore(self.root / "files")

    def put(self, tree: FileTree) -> VersionSnapshot:
        """Store a tree, unless it exists already; return its snapshot.

        Raises:
            StoreError: The disk is full, or the store cannot be written.
        """
        final = self._trees / tree.digest
        if not self.has_put(tree.digest):
            with self._store_errors(final):
                self._place_for_certain(tree, final)
            with self._changing:
                self._files[tree.digest] = tuple(tree.file_digests.values())
            if self.on_new is not None:
                self.on_new(tree)
        return VersionSnapshot(tree.digest, final)

    def has_put(self, digest: str) -> bool:
        """Return whether this store has put a tree, which is still there."""
        return digest in self._files and os.path.isdir(f"{self._trees}/{digest}")  # noqa: PTH112 - every call

    def read(self, digest: str) -> FileTree:
        """Read a stored tree.

        Raises:
            StoreError: It is missing or damaged.
        """
        place = self._trees / _checked_key(digest)
        with self._store_errors(place):
            if not place.is_dir():
                raise StoreError(f"the version {digest} is not in {self._trees} any more", str(place))
            tree = read_tree(place)
        if tree.digest != digest:
            raise StoreError(f"the version {digest} in {self._trees} is damaged", str(place))
        return tree

    @property
    def empty(self) -> VersionSnapshot:
        """The empty snapshot, to be mounted in place of an absent tree."""
        return self.put(FileTree())

    def path_of(self, digest: str) -> Path:
        """Return the path of a tree, which may not exist."""
        return self._trees / _checked_key(digest)

    def holds(self, digest: str) -> bool:
        """Return whether a tree exists; it may be damaged."""
        return (self._trees / _checked_key(digest)).exists()

    def digests(self) -> list[str]:
        """Return the digests of all stored trees, including those of earlier processes."""
        with self._store_errors(self._trees), os.scandir(self._trees) as entries:
            return [entry.name for entry in entries]

    def remove(self, *digests: str) -> Removed:
        """Remove trees, and contents that no other tree holds; missing trees are ignored.

        Raises:
            StoreError: One of them cannot be removed.
        """
        return self.discard(self.detach(digests))

    def detach(self, digests: Collection[str]) -> Detached:
        """Move trees out of the store, each atomically; a tree put later is a new one.

        Returns:
            The argument for `discard`.

        Raises:
            StoreError: One of them cannot be moved.
        """
        finals = {digest: self._trees / _checked_key(digest) for digest in digests}
        if not finals:
            return Detached(None)
        with self._store_errors(self._trees):
            grave = Path(tempfile.mkdtemp(dir=self._temporary))
            n_trees = 0
            contents: set[str] | None = set()
            for number, (digest, final) in enumerate(finals.items()):
                with self._changing:
                    files = self._files.pop(digest, None)
                try:
                    final.rename(grave / str(number))
                except FileNotFoundError:
                    continue
                n_trees += 1
                # Contents of trees of earlier processes are not known: then all contents are checked.
                if files is None or contents is None:
                    contents = None
                else:
                    contents.update(files)
        return Detached(grave, n_trees, contents)

    def discard(self, detached: Detached) -> Removed:
        """Delete detached trees, and contents that no tree holds any more.

        Raises:
            StoreError: The store cannot be read or changed.
        """
        if detached.grave is None:
            return Removed()
        with self._store_errors(detached.grave):
            n_alone, alone_bytes = _remove(str(detached.grave))
            contents = self._blobs.digests() if detached.contents is None else detached.contents
            n_files, n_bytes = self._blobs.drop_unused(contents)
        return Removed(detached.n_trees, n_alone + n_files, alone_bytes + n_bytes)

    def _staging(self) -> str:
        """Return an unused name for what is renamed when it is complete."""
        # Plain strings: what `tempfile` does beside it takes longer than a small tree.
        return f"{self._staging_prefix}-{next(self._staged)}"

    def _make_directories(self) -> None:
        with self._store_errors(self.root):
            for directory in (self.root, self._trees, self._temporary, self.root / "files"):
                problem = make_private(directory)
                if problem is not None:
                    raise StoreError(problem, str(directory))

    def _place_for_certain(self, tree: FileTree, final: Path) -> None:
        """Place a tree, once more if the store was emptied by others, or is full of what is not needed."""
        try:
            self._place(tree, final)
        except OSError as error:
            if error.errno == errno.ENOENT:
                self._make_directories()
            elif error.errno in {errno.ENOSPC, errno.EDQUOT} and self.on_full is not None:
                self.on_full()
            else:
                raise
            self._place(tree, final)

    def _place(self, tree: FileTree, final: Path) -> None:
        if final.is_dir():
            if _holds(final, tree):
                return
            self.discard(self.detach([final.name]))
        staging = self._staging()
        try:
            os.mkdir(staging, PRIVATE_MODE)  # noqa: PTH102
            self._write(tree, staging)
            os.rename(staging, final)  # noqa: PTH104
        except BaseException as error:
            shutil.rmtree(staging, ignore_errors=True)
            # A concurrent writer of the same content was faster; anything else is an error.
            if not (isinstance(error, OSError) and final.is_dir() and _holds(final, tree)):
                raise

    def _write(self, tree: FileTree, directory: str) -> None:
        os.chmod(directory, _DIRECTORY_MODE)  # noqa: PTH101
        if len(tree.files) == 1 and "/" not in tree.files[0][0]:
            # Its content is in no other tree, but for chance.
            path, content = tree.files[0]
            write_new(content, f"{directory}/{path}")
            return
        made: set[str] = {""}
        digests = tree.file_digests
        for path, content in tree.files:
            parent = os.path.dirname(path)  # noqa: PTH120 - a relative name, on the way of every new variant
            if parent not in made:
                make_below(Path(directory, parent), mode=_DIRECTORY_MODE)
                made.add(parent)
            self._blobs.place(digests[path], content, f"{directory}/{path}")

    @contextmanager
    def _store_errors(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _store_error(path, error) from error


def remove_former(root: Path) -> None:
    """Remove what earlier versions kept in a store's directory: byte code, which is in the database now."""
    shutil.rmtree(root / "modules", ignore_errors=True)


def read_tree(place: Path) -> FileTree:
    """Read the tree in a directory that this package wrote.

    Raises:
        OSError: It cannot be read.
    """
    return FileTree(
        tuple(
            (path.relative_to(place).as_posix(), path.read_bytes())
            for path in place.rglob("*")
            if path.is_file()
        )
    )


def _store_error(path: Path, error: OSError) -> StoreError:
    return StoreError(f"the version store cannot use {path}: {error.strerror or error}", str(path))


def _checked_key(key: str) -> str:
    if not _KEY.match(key):
        raise ValueError(f"{key!r} cannot be a key of the store; use letters, digits, '.', '_' and '-'")
    return key


def _remove(directory: str) -> tuple[int, int]:
    """Delete a tree without concurrent changes; three times as fast as `shutil.rmtree`.

    Returns:
        The number of its files that were nowhere else, and their bytes.
    """
    n_files = n_bytes = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner_files, inner_bytes = _remove(entry.path)
                n_files, n_bytes = n_files + inner_files, n_bytes + inner_bytes
                continue
            status = entry.stat(follow_symlinks=False)
            if status.st_nlink == 1:
                n_files, n_bytes = n_files + 1, n_bytes + status.st_size
            os.unlink(entry.path)  # noqa: PTH108 - a Path for each of thousands costs as much again
    os.rmdir(directory)  # noqa: PTH106 - the same
    return n_files, n_bytes


def _holds(directory: Path, tree: FileTree) -> bool:
    """Return whether a directory has exactly a tree's files."""
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


def is_small(tree: FileTree) -> bool:
    """Return whether a tree is written in less time than the hand-over to a thread takes."""
    return len(tree.files) <= _FEW_FILES and sum(len(content) for _, content in tree.files) <= _FEW_BYTES


async def put_tree(snapshots: SnapshotStore, tree: FileTree) -> VersionSnapshot:
    """Store a tree, a large one in a thread; return its snapshot.

    Raises:
        StoreError: The disk is full, or the store cannot be written.

    Cancellation: It is stored all the same.
    """
    if is_small(tree):
        return snapshots.put(tree)
    return await trio.to_thread.run_sync(snapshots.put, tree)
