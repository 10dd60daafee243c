"""Version trees on their way to disk, without holding up the event loop."""

from __future__ import annotations

import trio

from evocell.code.snapshots import SnapshotStore, VersionSnapshot
from evocell.code.sources import FileTree

__all__ = ["put_tree"]

_FEW_FILES = 32
_FEW_BYTES = 1 << 20
"""A tree of few files that hold little is written in less time than a thread takes to be asked for it."""


async def put_tree(snapshots: SnapshotStore, tree: FileTree) -> VersionSnapshot:
    """Keep a tree, and return where it is; a large one is written in a thread.

    Raises:
        StoreError: The disk is full, or the store cannot be written.

    Cancellation: It is kept all the same.
    """
    if len(tree.files) <= _FEW_FILES and sum(len(content) for _, content in tree.files) <= _FEW_BYTES:
        return snapshots.put(tree)
    return await trio.to_thread.run_sync(snapshots.put, tree)
