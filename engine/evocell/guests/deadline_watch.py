"""Watchdog that ends calls at their deadline where they do not pause: native loops without calls.

Theory of operation. A guest's code pauses after each slice of fuel, and then its deadline is looked at. A
loop that calls nothing (one numpy operation over a large array) does not pause, so the thread that runs it
cannot look. This watch is another thread: it sets the guest's fuel to a negative number, and the code traps
at the next iteration of its loop. The guest may be writing the same counter at that moment, and its write may
win: so it is set again and again until the call has ended. The remaining fuel is meaningless then; the
call is reported as timed out.

The watch sleeps while nothing is watched. While calls run it wakes each `TICK_S`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from evocell_runtime.instance import Call

__all__ = ["TICK_S", "DeadlineWatch"]

TICK_S = 0.01
"""Most seconds by which a deadline is noticed late."""

_LINGER_TICKS = 100


class DeadlineWatch:
    """A thread that ends calls at their deadline. Safe to use from any thread. `close` ends it.

    Args:
        clock: Time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._watched: dict[Call, float] = {}
        self._expired: set[Call] = set()
        self._wanted = threading.Event()
        self._hibernated = True
        self._closing = False
        self._thread: threading.Thread | None = None

    def poll(self, call: Call, left_s: float) -> tuple[bool, bool]:
        """Run a slice of a call, and end the call if it exceeds its remaining time.

        Args:
            call: The call.
            left_s: Remaining time of the call, in seconds.

        Returns:
            Whether the call has ended, and whether this watch ended it.
        """
        with self._lock:
            self._watched[call] = self._clock() + left_s
            if self._hibernated:
                self._wake()
        try:
            ended = call.poll()
        finally:
            with self._lock:
                del self._watched[call]
                expired = call in self._expired
                self._expired.discard(call)
        return ended, expired

    def close(self) -> None:
        """End the thread; idempotent."""
        with self._lock:
            self._closing = True
            thread, self._thread = self._thread, None
            self._wanted.set()
        if thread is not None:
            thread.join()

    def _wake(self) -> None:
        self._hibernated = False
        if self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._run, name="evocell-deadlines", daemon=True)
            self._thread.start()
        self._wanted.set()

    def _run(self) -> None:
        idle = 0
        while not self._closing:
            with self._lock:
                now = self._clock()
                for call, deadline in self._watched.items():
                    if now >= deadline:
                        self._expired.add(call)
                        call.exhaust()  # the lock keeps the call's thread from freeing it meanwhile
                idle = 0 if self._watched else idle + 1
                if idle > _LINGER_TICKS:
                    self._hibernated = True
                    self._wanted.clear()
            if self._hibernated:
                self._wanted.wait()
                idle = 0
            else:
                time.sleep(TICK_S)
