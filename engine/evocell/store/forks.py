"""SQLite at rest whenever the process is forked."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

__all__ = ["Resting", "watch_forks"]


class Resting(Protocol):
    """Something that has threads at work in SQLite."""

    def rest(self) -> list[threading.Lock]:
        """Wait until none is at work, and keep them all out; return what to release to let them in."""
        ...


class _Forks:
    """Has SQLite at rest whenever the process is forked.

    SQLite has locks of its own for the whole process. A child that is forked while another thread holds one
    of them would wait for it for ever at its first use of any database, and loops that fork right after an
    evaluation are common.
    """

    def __init__(self) -> None:
        self._stores: weakref.WeakSet[Resting] = weakref.WeakSet()
        self._held: list[threading.Lock] = []
        os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._after)

    def watch(self, store: Resting) -> None:
        """Have a store rest at each fork from now on."""
        self._stores.add(store)

    def _before(self) -> None:
        self._held = [lock for store in list(self._stores) for lock in store.rest()]

    def _after(self) -> None:
        held, self._held = self._held, []
        for lock in held:
            lock.release()


_forks = _Forks()


def watch_forks(store: Resting) -> None:
    """Have a store rest at each fork of the process from now on, as long as it is there."""
    _forks.watch(store)
