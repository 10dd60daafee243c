"""Reference counts of version trees; an unreferenced tree can be removed from disk.

A tree is used by a name (``"sandbox:a"``, ``"pin:best"``) that holds it until it lets go, or by a lease, an
object that keeps the tree for as long as the object itself is kept. Code that is about to run carries a
lease, so that no collection takes away what a call is about to mount.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Collection

from evocell.code.snapshots import Removed, SnapshotStore

__all__ = ["TreeLease", "TreeReferences"]


class TreeLease:
    """Keeps a tree on disk for as long as this object is referred to; made by `TreeReferences.lease`.

    Attributes:
        digest: Digest of the tree.
    """

    __slots__ = ("_returned", "digest")

    def __init__(self, digest: str, returned: deque[str]) -> None:
        self.digest = digest
        self._returned = returned

    def __del__(self) -> None:
        # It may run at any moment, also while this thread holds the lock: only hand it back.
        self._returned.append(self.digest)


class TreeReferences:
    """Counts the uses of version trees; safe from any thread.

    Take hold of a tree before it is put into the store: what is held is never removed.

    Args:
        snapshots: Where the trees are.
    """

    def __init__(self, snapshots: SnapshotStore) -> None:
        self._snapshots = snapshots
        self._lock = threading.Lock()
        self._held: dict[str, Counter[str]] = {}
        self._leases: Counter[str] = Counter()
        self._uses: Counter[str] = Counter()
        self._returned: deque[str] = deque()

    def hold(self, user: str, digest: str) -> None:
        """Have a user hold a tree once more.

        Args:
            user: Who, such as ``"sandbox:a"``.
            digest: Which tree; it need not be in the store yet.
        """
        with self._lock:
            self._held.setdefault(user, Counter())[digest] += 1
            self._uses[digest] += 1

    def release(self, user: str, digest: str | None = None) -> None:
        """Let go of a tree once, or of all that a user holds; what is not held is no error.

        Nothing is removed: that is for `remove_unused`.

        Args:
            user: Who.
            digest: Which tree; None for all of them.
        """
        with self._lock:
            held = self._held.get(user)
            if held is None:
                return
            gone = dict(held) if digest is None else {digest: min(1, held[digest])}
            for one, count in gone.items():  # not with -=, which visits every count
                _take_off(held, one, count)
                _take_off(self._uses, one, count)
            if not held:
                del self._held[user]

    def lease(self, digest: str) -> TreeLease:
        """Keep a tree for as long as what is returned is referred to."""
        with self._lock:
            self._settle()
            self._leases[digest] += 1
        return TreeLease(digest, self._returned)

    def users(self, digest: str) -> frozenset[str]:
        """Return the names of those who hold a tree; leases have none."""
        with self._lock:
            return frozenset(user for user, held in self._held.items() if held[digest])

    def held_by(self, user: str) -> frozenset[str]:
        """Return the digests of the trees that a user holds."""
        with self._lock:
            return frozenset(self._held.get(user, ()))

    def is_used(self, digest: str) -> bool:
        """Return whether a tree is held by a name or has a lease."""
        with self._lock:
            return self._is_used(digest)

    def unused(self) -> list[str]:
        """Return the digests of the unreferenced trees on disk.

        Raises:
            StoreError: The store cannot be read.
        """
        found = self._snapshots.digests()
        with self._lock:
            return [digest for digest in found if not self._is_used(digest)]

    def remove_unused(self, *, keep: Collection[str] = ()) -> Removed:
        """Remove the unreferenced trees, and the files that only they held.

        It blocks, for some 100 µs a tree, but holds others up only while it moves the trees out of the way.
        A tree that comes into use meanwhile is either kept or put again.

        Args:
            keep: Digests of trees that stay all the same.

        Returns:
            What was removed.

        Raises:
            StoreError: The store cannot be read or changed.
        """
        found = self._snapshots.digests()
        with self._lock:
            gone = [digest for digest in found if digest not in keep and not self._is_used(digest)]
            detached = self._snapshots.detach(gone)
        return self._snapshots.discard(detached)

    def _is_used(self, digest: str) -> bool:
        self._settle()
        return bool(self._uses[digest] or self._leases[digest])

    def _settle(self) -> None:
        """Take back the leases that were given up."""
        while self._returned:
            _take_off(self._leases, self._returned.popleft(), 1)


def _take_off(counted: Counter[str], digest: str, count: int) -> None:
    """Count a digest down, and forget it at zero."""
    counted[digest] -= count
    if counted[digest] <= 0:
        del counted[digest]
