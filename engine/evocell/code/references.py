"""Reference counts of version trees; an unreferenced tree can be removed from disk.

A tree is referenced by a named user (``"sandbox:a"``, ``"pin:best"``) until it is released, or by a lease, an
object that keeps the tree as long as the object is referenced. Code about to run carries a lease, so that no
collection removes a tree that a call is about to mount.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Collection

from evocell.code.snapshots import Removed, SnapshotStore

__all__ = ["TreeLease", "TreeReferences"]


class TreeLease:
    """Keeps a tree on disk as long as this object is referenced; made by `TreeReferences.lease`.

    Attributes:
        digest: Digest of the tree.
    """

    __slots__ = ("_returned", "digest")

    def __init__(self, digest: str, returned: deque[str]) -> None:
        self.digest = digest
        self._returned = returned

    def __del__(self) -> None:
        # It may run at any moment, also while this thread holds the lock, so it only queues the release.
        self._returned.append(self.digest)


class TreeReferences:
    """Reference counts of version trees; thread-safe.

    Hold a tree before it is put into the store: held trees are never removed.

    Args:
        snapshots: The store of the trees.
    """

    def __init__(self, snapshots: SnapshotStore) -> None:
        self._snapshots = snapshots
        self._lock = threading.Lock()
        self._held: dict[str, Counter[str]] = {}
        self._leases: Counter[str] = Counter()
        self._uses: Counter[str] = Counter()
        self._returned: deque[str] = deque()

    def hold(self, user: str, digest: str) -> None:
        """Add a reference of a user to a tree.

        Args:
            user: The user, such as ``"sandbox:a"``.
            digest: The tree, which need not be in the store yet.
        """
        with self._lock:
            self._held.setdefault(user, Counter())[digest] += 1
            self._uses[digest] += 1

    def release(self, user: str, digest: str | None = None) -> None:
        """Release one reference of a user to a tree, or all of the user's; no effect if there is none.

        It removes nothing from disk; `remove_unused` does.

        Args:
            user: The user.
            digest: The tree; None for all of the user's.
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
        """Keep a tree as long as the returned lease is referenced."""
        with self._lock:
            self._settle()
            self._leases[digest] += 1
        return TreeLease(digest, self._returned)

    def users(self, digest: str) -> frozenset[str]:
        """Return the names of a tree's users, which do not include leases."""
        with self._lock:
            return frozenset(user for user, held in self._held.items() if held[digest])

    def held_by(self, user: str) -> frozenset[str]:
        """Return the digests of a user's trees."""
        with self._lock:
            return frozenset(self._held.get(user, ()))

    def is_used(self, digest: str) -> bool:
        """Return whether a tree has a user or a lease."""
        with self._lock:
            return self._is_used(digest)

    def unused(self, snapshots: SnapshotStore | None = None) -> list[str]:
        """Return the digests of the unreferenced trees in a store.

        Args:
            snapshots: The store; None for that of the references.

        Raises:
            StoreError: The store cannot be read.
        """
        found = (snapshots or self._snapshots).digests()
        with self._lock:
            return [digest for digest in found if not self._is_used(digest)]

    def remove_unused(self, *, keep: Collection[str] = (), snapshots: SnapshotStore | None = None) -> Removed:
        """Remove the unreferenced trees, and the files that only they held.

        It blocks, for some 100 µs a tree, but blocks other threads only while it moves the trees out of the
        store. A tree that is referenced meanwhile is either kept or put again.

        Args:
            keep: Digests of trees that are kept in any case.
            snapshots: The store to remove them from; None for that of the references.

        Returns:
            Counts of the removed trees and files.

        Raises:
            StoreError: The store cannot be read or changed.
        """
        store = snapshots or self._snapshots
        found = store.digests()
        with self._lock:
            gone = [digest for digest in found if digest not in keep and not self._is_used(digest)]
            detached = store.detach(gone)
        return store.discard(detached)

    def _is_used(self, digest: str) -> bool:
        self._settle()
        return bool(self._uses[digest] or self._leases[digest])

    def _settle(self) -> None:
        """Process the queued releases of leases."""
        while self._returned:
            _take_off(self._leases, self._returned.popleft(), 1)


def _take_off(counted: Counter[str], digest: str, count: int) -> None:
    """Decrement a count, and drop the entry at zero."""
    counted[digest] -= count
    if counted[digest] <= 0:
        del counted[digest]
