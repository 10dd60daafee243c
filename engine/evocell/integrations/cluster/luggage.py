"""Data that requests refer to, for transfer to nodes: blobs, trees and images, by hash."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from attrs import define, field

from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import FileTree
from evocell.errors import ProtocolError
from evocell.execution.archive import pack_tree
from evocell.execution.messages import GuestRequest
from evocell.execution.payload_cache import NAMED_BYTES, name_of
from evocell.guests.images import ImageCatalogue
from evocell.lru import LruCache
from evocell_runtime.derive import APP_DIRECTORY

__all__ = ["BLOB_BYTES", "Luggage", "Packed"]

BLOB_BYTES = 4096
"""Length in bytes above which a part is sent by name, once to each node."""

_PACKED_BYTES = 64 << 20


@define
class Packed:
    """A request in transferable form.

    Attributes:
        plain: The request, with names in place of long parts, trees and images.
        blobs: The parts that it names.
        trees: Digests of the trees that it names.
    """

    plain: dict[str, Any]
    blobs: dict[str, bytes] = field(factory=dict, repr=False)
    trees: tuple[str, ...] = ()


class Luggage:
    """Packs requests for nodes.

    Args:
        snapshots: The store of trees, which requests name by path.
        images: The images, some with code in them.
    """

    def __init__(self, snapshots: SnapshotStore, images: ImageCatalogue) -> None:
        self._snapshots = snapshots
        self._trees_root = snapshots.path_of("0").parent
        self._images_root = images.cache.image_dir("0").parent
        self._names: LruCache[bytes, str] = LruCache(NAMED_BYTES)
        self._packed: LruCache[str, bytes] = LruCache(_PACKED_BYTES)
        self._packing = threading.Lock()
        snapshots.on_new = self._learn

    def pack(self, run: GuestRequest) -> Packed:
        """Pack a request.

        Raises:
            ProtocolError: It mounts a directory that is not the engine's.
        """
        packed = Packed({})

        def refer(part: bytes) -> bytes | str:
            if len(part) <= BLOB_BYTES:
                return part
            name = self._names.get(part)
            if name is None:
                name = name_of(part)
                self._names.put(part, name, len(part))
            packed.blobs[name] = part
            return name

        mounted = {"app": self._mounted(run.app), "harness": self._mounted(run.harness)}
        packed.plain = {**run.to_wire(refer), **mounted}
        packed.trees = tuple(what[1] for what in mounted.values() if what is not None and what[0] == "tree")
        return packed

    def _learn(self, tree: FileTree) -> None:
        """Pack a new tree, which a node will most likely need soon."""
        packed = pack_tree(tree)
        with self._packing:
            self._packed.put(tree.digest, packed, len(packed))

    def trees(self, digests: Collection[str]) -> dict[str, bytes]:
        """Return trees in transferable form. Blocks; from any thread.

        Raises:
            StoreError: One does not exist any more.
        """
        found = self.known_trees(digests)
        for digest in digests:
            if digest not in found:
                found[digest] = pack_tree(self._snapshots.read(digest))
                with self._packing:
                    self._packed.put(digest, found[digest], len(found[digest]))
        return found

    def known_trees(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Return those trees in transferable form that need not be read from disk."""
        with self._packing:
            packed = {digest: self._packed.get(digest) for digest in digests}
        return {digest: data for digest, data in packed.items() if data is not None}

    def _mounted(self, path: Path | None) -> list[str] | None:
        """Return the global name of a local directory: a tree's digest, or an image's own code."""
        if path is None:
            return None
        if path.parent == self._trees_root:
            return ["tree", path.name]
        if path.name == APP_DIRECTORY and path.parent.parent == self._images_root:
            return ["image", path.parent.name]
        raise ProtocolError(f"a run has {path} mounted, which no node can have")
