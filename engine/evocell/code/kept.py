"""A bounded cache: of what was used least recently, the oldest goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Kept"]

T = TypeVar("T")


class Kept(Generic[T]):
    """Values by key, up to a number of bytes together; safe from any thread.

    The one that was put last is kept, however large it is.

    Args:
        max_bytes: Most bytes that are kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._total_bytes = 0
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> T | None:
        """Return a value, which is then the one used last; None if it is not kept."""
        with self._lock:
            entry = self._values.get(key)
            if entry is None:
                return None
            self._values.move_to_end(key)
            return entry[0]

    def put(self, key: str, value: T, size_bytes: int) -> None:
        """Keep a value; it replaces what was there.

        Args:
            key: Its key.
            value: The value.
            size_bytes: What it counts for.
        """
        with self._lock:
            replaced = self._values.pop(key, None)
            if replaced is not None:
                self._total_bytes -= replaced[1]
            self._values[key] = value, size_bytes
            self._total_bytes += size_bytes
            while self._total_bytes > self._max_bytes and len(self._values) > 1:
                _, (_, dropped) = self._values.popitem(last=False)
                self._total_bytes -= dropped
