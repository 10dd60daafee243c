"""Reuse of the bodies of ended guests, after wiping.

A fork, its first call and its end spend most of their time in the kernel: mapping memory, copying the pages
that every call writes to, freeing them all. A reused body avoids that. Between calls the state of a guest is
its memory and the membrane's globals, as freezing and hibernation require as well; so these are reset to the
image's, and nothing of the former guest remains:

- *memory*: the kernel reports the written pages (`hot_pages.written_ranges`); each is copied
  from a fork of the image that was never called. One that grew cannot shrink: such a body is not kept.
  The report takes longer than a short call. A page that was not written to before is not written to without
  a page fault, and the kernel counts those: where the process has had none since a body was wiped, its
  written pages are those of that time, and it is not asked again.
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
from evocell_runtime.hot_pages import Written, faults_tell, page_faults, small_pages_only, written_ranges
from evocell_runtime.native import RawMemory, copy_all

MOST_SPARE = 4
"""Most spare bodies of a kind; each holds about 1 MB."""

MOST_PAGES = 1024
"""Most pages to reset; a body with more is not kept, because a fresh one is as cheap."""


class Spares:
    """Pool of wiped bodies of one image. Thread-safe.

    Args:
        reference: Returns the body of a guest of the same image that was never called.
    """

    def __init__(self, reference: Callable[[], Body]) -> None:
        self._reference = reference
        self._state: Mapping[str, int] | None = None
        self._lock = threading.Lock()
        self._bodies: dict[bool, list[Body]] = {True: [], False: []}
        self.reused = 0
        """Number of reuses."""

    def take(self, *, ran_code: bool) -> Body | None:
        """Take a wiped body, without directories; None if there is none.

        Args:
            ran_code: The kind: bodies in which code was loaded and run, or those of compilations. They are
                kept separate: each kind writes to different pages, and no byte code is produced in a body
                that ran a variant.
        """
        with self._lock:
            kept = self._bodies[ran_code]
            if not kept:
                return None
            self.reused += 1
            return kept.pop()

    def give(self, body: Body, *, ran_code: bool, sound: bool) -> None:
        """Take over the body of an ended guest: wipe and keep it, or free it.

        Args:
            body: The body, which must no longer be used elsewhere.
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
        """Free the spare bodies; idempotent."""
        with self._lock:
            bodies = [body for kept in self._bodies.values() for body in kept]
            self._bodies = {True: [], False: []}
        for body in bodies:
            body.close()

    def _wipe(self, body: Body) -> bool:
        clean = self._reference()
        body.strip()
        written = _written(body, clean.memory)
        if written is None:
            return False
        copy_all(written.copies)
        body.written = written
        if self._state is None:
            self._state = clean.state()
        body.restore_state(self._state)
        return True


def _written(body: Body, clean: RawMemory) -> Written | None:
    """Return the pages that an idle guest has written to.

    Returns:
        None if it cannot be reset: it grew, too many pages were written, or the kernel does not report them.
    """
    size, address, clean_address = clean.size_bytes, body.memory.address, clean.address
    if body.memory.size_bytes != size:
        return None
    faults, known = page_faults(), body.written
    if known is not None and (known.address, known.clean_address) == (address, clean_address):
        if known.faults == faults:
            return known
        tell = known.faults is not None
    else:
        tell = faults_tell() and small_pages_only(address, size)
    ranges = written_ranges(address, size, most_pages=MOST_PAGES)
    if not ranges:
        return None
    away = clean_address - address
    copies = tuple((start, start + away, end - start) for start, end in ranges)
    return Written(address, clean_address, copies, faults if tell else None)
