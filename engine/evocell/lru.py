"""LRU cache bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["LruCache"]

K = TypeVar("K")
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """A thread-safe LRU cache of values by key, bounded in bytes.

    Args:
        max_bytes: Upper bound of the sum of sizes.
        keeps_last: Whether the last value put is kept even if it alone exceeds the bound.

    Attributes:
        held_bytes: Current sum of sizes.
    """

    def __init__(self, max_bytes: int, *, keeps_last: bool = False) -> None:
        self._max_bytes = max_bytes
        self._always = 1 if keeps_last else 0
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: K) -> bool:
        """Return whether a key is present; if so, it counts as used."""
        with self._lock:
            if key not in self._held:
                return False
            self._held.move_to_end(key)
            return True

    def get(self, key: K) -> V | None:
        """Return a value, which counts as used, or None."""
        with self._lock:
            entry = self._held.get(key)
            if entry is None:
                return None
            self._held.move_to_end(key)
            return entry[0]

    def put(self, key: K, value: V, size_bytes: int) -> list[K]:
        """Put a value of the given size in bytes; returns the keys of evicted values."""
        dropped: list[K] = []
        with self._lock:
            self._drop(key)
            self._held[key] = value, size_bytes
            self.held_bytes += size_bytes
            while self.held_bytes > self._max_bytes and len(self._held) > self._always:
                gone, (_, freed) = self._held.popitem(last=False)
                self.held_bytes -= freed
                dropped.append(gone)
        return dropped

    def forget(self, key: K) -> None:
        """Drop a value if it is present."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: K) -> None:
        found = self._held.pop(key, None)
        if found is not None:
            self.held_bytes -= found[1]
