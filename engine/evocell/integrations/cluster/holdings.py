"""Caches of a node: blobs and file trees, each bounded in bytes, and images.

The engine keeps a list with the same bounds for each node (`evocell.integrations.cluster.remote`). If the two
differ, a request that refers to an evicted item is answered with the missing names.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from evocell.errors import ProtocolError
from evocell.execution.archive import unpack_tree
from evocell.execution.messages import GuestRequest
from evocell.lru import LruCache
from evocell_runtime.cache import ImageCache
from evocell_runtime.derive import APP_DIRECTORY
from evocell_runtime.private import make_below

__all__ = ["BLOBS_BYTES", "TREES_BYTES", "Arriving", "Holdings", "tree_weight"]

BLOBS_BYTES = 256 << 20
TREES_BYTES = 256 << 20
"""Bound of each cache, in bytes; see `tree_weight`."""

_TREE_OVERHEAD = 8 << 10
_MOST_ARRIVING = 4 << 30


def tree_weight(packed: bytes) -> int:
    """Return the weight of a tree in bytes: its files, and the blocks of its directory."""
    return len(packed) + _TREE_OVERHEAD


@define
class Arriving:
    """An item that arrives in pieces.

    Attributes:
        total: Its total size in bytes.
        data: The bytes received so far.
    """

    total: int
    data: bytearray = field(factory=bytearray)

    def take(self, offset: int, piece: bytes) -> bool:
        """Append a piece; return whether it was the last.

        Raises:
            ProtocolError: It is out of order.
        """
        if offset != len(self.data) or offset + len(piece) > min(self.total, _MOST_ARRIVING):
            raise ProtocolError("a piece does not follow the one before")
        self.data += piece
        return len(self.data) == self.total


class Holdings:
    """Assembles requests from the node's caches.

    Args:
        root: Directory for trees to be mounted; empty, and exclusive to the node.
        cache: The image cache.
        own_image: The engine's id of the image that the node's guests are forked from.
    """

    def __init__(self, root: Path, cache: ImageCache, own_image: str) -> None:
        self._root = root
        self._cache = cache
        self._own_image = own_image
        self._blobs: LruCache[str, bytes] = LruCache(BLOBS_BYTES)
        self._trees: LruCache[str, Path] = LruCache(TREES_BYTES)
        self._images: dict[str, str] = {}
        self._using: Counter[str] = Counter()
        self._doomed: set[str] = set()

    def take_blob(self, name: str, data: bytes) -> None:
        """Store a blob."""
        self._blobs.put(name, data, len(data))

    def take_tree(self, digest: str, packed: bytes) -> None:
        """Write a tree to disk; the least recently used ones are removed if there are too many.

        Raises:
            ProtocolError: Its digest differs.
        """
        tree = unpack_tree(packed, len(packed))
        if tree.digest != digest:
            raise ProtocolError(f"the tree {digest} is not what its name says")
        self._doomed.discard(digest)
        place = self._root / digest
        if not place.is_dir():
            place.mkdir()
            for path, content in tree.files:
                target = place / path
                if "/" in path:
                    make_below(target.parent)
                target.write_bytes(content)
        for dropped in self._trees.put(digest, place, tree_weight(packed)):
            self._drop(dropped)

    def take_image(self, image: str, here: str) -> None:
        """Record the local id of an image of the engine."""
        self._images[image] = here

    def holds_image(self, image: str) -> bool:
        """Return whether an image is available here, possibly in a shared cache."""
        if image not in self._images and self._cache.get(image) is not None:
            self._images[image] = image
        return image in self._images

    def run(self, plain: Mapping[str, Any], number: int) -> GuestRequest | dict[str, list[str]]:
        """Assemble the request that the engine describes; returns the missing names by kind if any are."""
        missing: dict[str, list[str]] = {"blob": [], "tree": [], "image": []}

        def find(name: str) -> bytes:
            blob = self._blobs.get(name)
            if blob is None:
                missing["blob"].append(name)
                return b""
            return blob

        image = plain["image"]
        if image == self._own_image:
            image = None
        elif image is not None and not self.holds_image(image):
            missing["image"].append(image)
        app, harness = (self._mounted(plain[name], image, missing) for name in ("app", "harness"))
        run = GuestRequest.from_wire({**plain, "app": None, "harness": None}, find)
        if any(missing.values()):
            return {kind: names for kind, names in missing.items() if names}
        here = None if image is None else self._images[image]
        return evolve(run, image=here, sandbox_id=str(number), app=app, harness=harness)

    def begin(self, plain: Mapping[str, Any]) -> None:
        """Pin the trees of a request."""
        self._using.update(_trees_of(plain))

    def end(self, plain: Mapping[str, Any]) -> None:
        """Unpin the trees of a request."""
        for digest in _trees_of(plain):
            self._using[digest] -= 1
            if not self._using[digest]:
                del self._using[digest]
                if digest in self._doomed:
                    self._drop(digest)

    def _mounted(self, what: Any, image: str | None, missing: dict[str, list[str]]) -> Path | None:
        """Return the local directory for one of the engine's."""
        if what is None:
            return None
        kind, name = what
        if kind == "image":
            if name == self._own_image:
                raise ProtocolError("the code of the engine's own image is asked for, which has none")
            if not self.holds_image(name):
                if name != image:
                    missing["image"].append(name)
                return None
            return self._cache.image_dir(self._images[name]) / APP_DIRECTORY
        place = self._trees.get(name)
        if place is None:
            missing["tree"].append(name)
        return place

    def _drop(self, digest: str) -> None:
        if digest in self._using:
            self._doomed.add(digest)
            return
        self._doomed.discard(digest)
        if digest not in self._trees:
            shutil.rmtree(self._root / digest, ignore_errors=True)


def _trees_of(plain: Mapping[str, Any]) -> list[str]:
    return [what[1] for name in ("app", "harness") if (what := plain[name]) is not None and what[0] == "tree"]
