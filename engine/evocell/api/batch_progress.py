"""How a person sees a batch that takes long: nothing for two seconds, then a bar on standard error.

Only a terminal gets one, and only from an engine and a call to which no progress function was given. All
batches of a process share one display, a line each, because a terminal has room for one.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from evocell.api.progress import duration

if TYPE_CHECKING:
    # Loaded when there is something to draw.
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["PATIENCE_S", "BatchBar", "BatchLines", "Display", "Report", "is_terminal", "size_of"]

PATIENCE_S = 2.0
"""Nothing is shown of what takes no longer than this."""
QUICK_S = 0.25
"""Nothing is shown during a wait for the next result that is no longer than this."""

LINES_S = 10.0
"""How long there is between two lines where there is no terminal."""

Report: TypeAlias = Callable[[Any, int, int], None]
"""A batch's progress function: called with what is done, how much is done, and how much there is."""


def is_terminal() -> bool:
    """Whether standard error is a terminal that can redraw a line."""
    try:
        return sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb"}
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def size_of(items: object) -> int | None:
    """How many items there are, if they can be counted without taking them."""
    return len(items) if isinstance(items, Sized) else None


class Display:
    """The lines of all batches that are shown at this moment. From any thread.

    Args:
        console: Where to draw; None for standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._given = console
        self._lock = threading.Lock()
        self._progress: Progress | None = None

    def forget(self) -> None:
        """Start anew in a forked child, whose parent draws on, and may have held the lock."""
        self._lock = threading.Lock()
        self._progress = None

    def add(self, what: str, total: int | None, *, taken_s: float = 0.0) -> TaskID:
        """Show a line of something that began so many seconds ago; the first one opens the display."""
        with self._lock:
            if self._progress is None:
                self._progress = _progress(self._given)
                atexit.register(self._close)  # a terminal must get its cursor back, whatever happens
                self._progress.start()
            line = self._progress.add_task(what, total=total, notes="")
            for task in self._progress.tasks:
                if task.id == line:
                    task.start_time = self._progress.get_time() - taken_s
            return line

    def update(self, line: TaskID, *, done: int, total: int | None, notes: str) -> None:
        """Change a line."""
        with self._lock:
            if self._progress is not None:
                self._progress.update(line, completed=done, total=total, notes=notes)

    def remove(self, line: TaskID) -> None:
        """Take a line away; the last one closes the display."""
        with self._lock:
            if self._progress is not None:
                self._progress.remove_task(line)
                if not self._progress.task_ids:
                    self._stop()

    def _close(self) -> None:
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            atexit.unregister(self._close)


_display = Display()
os.register_at_fork(after_in_child=_display.forget)


class BatchBar:
    """One batch, shown once it has taken `PATIENCE_S`; a context manager.

    Args:
        what: What is done, such as ``"evaluating"``.
        total: How many there are; None if nobody knows.
        display: Where it is shown; None for the process's own.
    """

    def __init__(self, what: str, total: int | None, *, display: Display | None = None) -> None:
        self._what = what
        self._total = total
        self._display = _display if display is None else display
        self._lock = threading.Lock()
        self._line: TaskID | None = None
        self._done = 0
        self._invalid = 0
        self._wanted = False
        self._began = time.monotonic()
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        """Begin to wait until it is due."""
        self.show_in(PATIENCE_S)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take it off the terminal."""
        self.hide()

    def show_in(self, seconds: float) -> None:
        """Put it on the terminal after a while, unless `hide` is called before."""
        with self._lock:
            self._wanted = True
            self._timer = threading.Timer(seconds, self._show)
            self._timer.daemon = True
            self._timer.start()

    def report(self, result: object, done: int, total: int | None = None) -> None:
        """Note that another one is done; to be used as the progress function of the batch."""
        with self._lock:
            self._done = done
            self._total = self._total if total is None else total
            self._invalid += not getattr(result, "valid", True)
            if self._line is not None:
                self._display.update(self._line, done=done, total=self._total, notes=self._notes())

    @property
    def due_in_s(self) -> float:
        """Seconds after which a wait for the next result is long enough to be shown."""
        return max(QUICK_S, PATIENCE_S - (time.monotonic() - self._began))

    def _show(self) -> None:
        with self._lock:
            if self._line is None and self._wanted:
                taken_s = time.monotonic() - self._began
                self._line = self._display.add(self._what, self._total, taken_s=taken_s)
                self._display.update(self._line, done=self._done, total=self._total, notes=self._notes())

    def hide(self) -> None:
        """Take it off, or do not show it at all; idempotent."""
        with self._lock:
            self._wanted = False
            if self._timer is not None:
                self._timer.cancel()
            line, self._line = self._line, None
            if line is not None:
                self._display.remove(line)

    def _notes(self) -> str:
        parts = []
        taken_s = time.monotonic() - self._began
        if self._done and self._total is not None:
            parts.append(f"about {duration(taken_s / self._done * (self._total - self._done))} left")
        if self._invalid:
            parts.append(f"{self._invalid:,} invalid")
        return ", ".join(parts)


class StreamProgress:
    """The progress of results that are handed out one by one.

    The program that gets them may write to the terminal itself, so nothing is shown but during a wait for the
    next one, if that is long.

    Args:
        sources: What is evaluated.
        progress: The caller's function; None shows a bar.
        shown: Whether there is a terminal to show one on.
    """

    def __init__(self, sources: object, progress: Report | None, *, shown: bool) -> None:
        self._progress = progress
        self._size = size_of(sources)
        self._bar = BatchBar("evaluating", self._size) if shown and progress is None else None
        self._n_done = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for the next result."""
        if self._bar is None:
            yield
            return
        self._bar.show_in(self._bar.due_in_s)
        try:
            yield
        finally:
            self._bar.hide()

    def done(self, result: object, *, n_running: int) -> None:
        """Note a result; so many sources are still under way."""
        self._n_done += 1
        if self._bar is not None:
            self._bar.report(result, self._n_done)
        elif self._progress is not None:
            self._progress(result, self._n_done, self._size or self._n_done + n_running)


def _progress(console: Console | None) -> Progress:
    from rich.progress import (  # noqa: PLC0415 - see above
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    from evocell.api.console import SafeConsole  # noqa: PLC0415 - see above

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(separator=" of "),
        TimeElapsedColumn(),
        TextColumn("{task.fields[notes]}", markup=False),
        console=console or SafeConsole(stderr=True),
        transient=True,
    )


class BatchLines:
    """The progress function of a batch where there is no terminal: a line every few seconds, as a log has it.

    Nothing is written of a batch that takes less than the first interval.

    Args:
        what: What is done, such as ``"evaluating"``.
        total: How many there are; None if nobody knows.
        every_s: Seconds between two lines.
    """

    def __init__(self, what: str, total: int | None, *, every_s: float = LINES_S) -> None:
        self._what = what
        self._total = total
        self._every_s = every_s
        self._began = self._told = time.monotonic()
        self._invalid = 0

    def report(self, result: object, done: int, total: int | None = None) -> None:
        """Note that another one is done, and write a line if it is time for one."""
        now = time.monotonic()
        self._total = self._total if total is None else total
        self._invalid += not getattr(result, "valid", True)
        if now - self._told < self._every_s:
            return
        self._told = now
        line = f"evocell: {self._what} {done:,}"
        if self._total is not None:
            line += f" of {self._total:,}"
        if self._invalid:
            line += f", {self._invalid:,} invalid"
        per_s = done / max(now - self._began, 1e-9)
        line += f", {per_s:,.3g}/s"
        if self._total is not None and done < self._total:
            line += f", {duration((self._total - done) / per_s)} to go"
        from evocell.api.console import SafeConsole  # noqa: PLC0415 - only a long batch draws

        with suppress(AttributeError, OSError, ValueError):  # none, closed, or a full disk
            SafeConsole(stderr=True).print(line, soft_wrap=True, highlight=False)
            sys.stderr.flush()
