"""Progress of a batch: the count that every display shows, and the delay after which a bar appears."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

__all__ = ["PATIENCE_S", "QUICK_S", "BatchCount", "DelayedBar", "duration"]

PATIENCE_S = 2.0
"""Seconds after which a batch is shown; a shorter one is not."""

QUICK_S = 0.25
"""Seconds after which a wait for the next result of a stream is shown."""


def duration(seconds: float) -> str:
    """Render a span of time as people say it: ``9 s``, ``1 min 50 s``."""
    whole = max(0, round(seconds))
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s"


class BatchCount:
    """The progress of one batch.

    Args:
        what: What is done, such as ``"evaluating"``.
        total: How many there are; None if unknown.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._invalid = 0
        self._began = time.monotonic()

    def _count(self, result: object, done: int, total: int | None) -> None:
        self._done = done
        self._total = self._total if total is None else total
        self._invalid += not getattr(result, "valid", True)

    def _notes(self) -> str:
        parts = []
        taken_s = time.monotonic() - self._began
        if self._done and self._total is not None and self._done < self._total:
            parts.append(f"about {duration(taken_s / self._done * (self._total - self._done))} left")
        if self._invalid:
            parts.append(f"{self._invalid:,} invalid")
        return ", ".join(parts)


class DelayedBar(BatchCount):
    """A progress bar of one batch, shown once the batch has taken `PATIENCE_S`; a context manager.

    Thread-safe. A subclass draws: `_open`, `_update` and `_close` are called with the lock held.

    Args:
        what: The activity, such as ``"evaluating"``.
        total: The number of items; None if unknown.
    """

    def __init__(self, what: str, total: int | None) -> None:
        super().__init__(what, total)
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._shown = False

    def __enter__(self) -> Self:
        """Start the delay before it is shown."""
        self.show_in(PATIENCE_S)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hide it."""
        self.hide()

    @property
    def due_in_s(self) -> float:
        """Seconds after which a wait for the next result is long enough to be shown."""
        return max(QUICK_S, PATIENCE_S - (time.monotonic() - self._began))

    def show_in(self, seconds: float) -> None:
        """Show it after a delay, unless `hide` is called before."""
        with self._lock:
            if self._shown:
                return
            self._timer = threading.Timer(seconds, self._show)
            self._timer.daemon = True
            self._timer.start()

    def hide(self) -> None:
        """End the display, or the delay before it; idempotent."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._shown:
                self._close()

    def report(self, result: object, done: int, total: int | None = None) -> None:
        """Count a finished item; use it as the progress function of the batch."""
        with self._lock:
            self._count(result, done, total)
            if self._shown:
                self._update()

    def _show(self) -> None:
        with self._lock:
            if self._timer is not None and not self._shown:
                self._open()
                self._shown = True

    def _open(self) -> None:
        """Draw it for the first time."""
        raise NotImplementedError

    def _update(self) -> None:
        """Draw it after another item was counted."""
        raise NotImplementedError

    def _close(self) -> None:
        """End the display; clear `_shown` if it can be shown again."""
        raise NotImplementedError
