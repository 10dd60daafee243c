"""Bodies of guests that have ended, wiped for the guests to come.

A fork, its first call and its end spend most of their time in the kernel: mapping memory, copying the pages
that every call writes to, freeing them all. A body that stays needs none of it. Between calls a guest is its
memory and the membrane's globals, which is what a freeze and hibernation rest on as well; so these are put
back to what the image has, and nothing of the former guest is left:

- *memory*: the kernel says which pages are no longer the image's (`hot_pages.written_ranges`); each is copied
  from a fork of the image that was never called. One that grew cannot shrink: such a body is not kept.
- *globals*: the membrane's saved ones are set; `begin` sets the others before each call. The interpreter's
  only one, its stack pointer, is at its start when a call has returned; a body in which a call was
  killed or trapped is not kept. That nothing in its code writes to its table or to anything else that
  lasts is checked before it is compiled (`state_check`).
- *WASI*: dropped with all descriptors, and made anew for the next guest.
- *fuel and limits* are set for every call and every guest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from evocell_runtime.body import Body
from evocell_runtime.hot_pages import written_ranges
from evocell_runtime.native import RawMemory, copy_ranges

MOST_SPARE = 4
"""Bodies of a kind kept for the next guests; each holds about 1 MB."""

MOST_PAGES = 1024
"""A body with more pages to be put back is not kept: a fresh one is as cheap."""


class Spares:
    """Wiped bodies of one image. Safe to use from any thread.

    Args:
        reference: Gives the body of a guest of the same image that was never called.
    """

    def __init__(self, reference: Callable[[], Body]) -> None:
        self._reference = reference
        self._state: Mapping[str, int] | None = None
        self._lock = threading.Lock()
        self._bodies: dict[bool, list[Body]] = {True: [], False: []}
        self.reused = 0
        """How many guests were given the body of another."""

    def take(self, *, ran_code: bool) -> Body | None:
        """A body as good as a new one, without directories; None if there is none.

        Args:
            ran_code: Of which kind: those in which code was loaded and run, or those of compilations. They
                are kept apart: each kind writes to pages of its own, and no byte code comes out of a body
                that a variant was in.
        """
        with self._lock:
            kept = self._bodies[ran_code]
            if not kept:
                return None
            self.reused += 1
            return kept.pop()

    def give(self, body: Body, *, ran_code: bool, sound: bool) -> None:
        """Take over the body of a guest that has ended: wipe it and keep it, or free it.

        Args:
            body: The body; nothing else may use it any more.
            ran_code: Its kind.
            sound: Whether all calls in it returned.
        """
        kept = self._bodies[ran_code]
        if not sound or len(kept) >= MOST_SPARE or not self._wipe(body):
            body.close()
            return
        with self._lock:
            kept.append(body)

    def close(self) -> None:
        """Free the bodies that are kept; idempotent."""
        with self._lock:
            bodies = [body for kept in self._bodies.values() for body in kept]
            self._bodies = {True: [], False: []}
        for body in bodies:
            body.close()

    def _wipe(self, body: Body) -> bool:
        clean = self._reference()
        body.strip()
        if not put_back(body.memory, clean.memory):
            return False
        if self._state is None:
            self._state = clean.state()
        body.restore_state(self._state)
        return True


def put_back(memory: RawMemory, clean: RawMemory) -> bool:
    """Make a guest's memory what a fork's is at its start.

    Args:
        memory: The guest's, at rest.
        clean: That of a fork of the same image that was never called.

    Returns:
        Whether it is now; if not (it grew, too much of it was written to, or the kernel does not tell), it is
        as it was.
    """
    size = clean.size_bytes
    if memory.size_bytes != size:
        return False
    address = memory.address
    ranges = written_ranges(address, size, most_pages=MOST_PAGES)
    if not ranges:
        return False
    copy_ranges(ranges, clean.address - address)
    return True
