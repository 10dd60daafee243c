"""Progress displays on standard error, for the first build of an image and for long batches.

A build announces what it will take and is shown from its first report on: as a bar on a terminal, as lines
of a log elsewhere. A batch is shown as a bar after two seconds, or where there is neither a terminal nor a
notebook as lines after ten, and only if neither its engine nor its call was given a progress function.

All bars are lines of a `Display`, which owns the terminal while there is at least one, and gives it back its
cursor at exit, whatever happens. The batches of a process share one display, because a terminal has room for
one. ``rich`` is imported when there is something to draw: most programs never need it.
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

from evocell.console.counting import BatchCount, duration
from evocell.console.notebook import NotebookBar, is_notebook
from evocell_runtime.build import BuildProgress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = [
    "PATIENCE_S",
    "BatchBar",
    "BatchLines",
    "ConsoleProgress",
    "Display",
    "Report",
    "StreamProgress",
    "batch_bar",
    "console_progress",
    "is_notebook",
    "is_terminal",
    "silent",
    "size_of",
]

PATIENCE_S = 2.0
"""A batch that takes no longer than this is not shown."""

QUICK_S = 0.25
"""A wait for the next result of a stream that is no longer than this is not shown."""

LINES_S = 10.0
"""Seconds between two lines about a batch where there is no terminal."""

DISK_GB = 0.7
"""What the guest takes on disk in all.

Source: 280 MB of native code, 54 MB of standard library and 34 MB of snapshot in the cache, 250 MB for the
package they are made from, 32 MB for wasmtime.
"""

_QUICK_BUILD_S = 45.0
_PLAIN_EVERY_S = 15.0
_DONE = 1.0

Report: TypeAlias = Callable[[Any, int, int], None]
"""A batch's progress function: called with what is done, how much is done, and how much there is."""


def silent(*progress: object) -> None:
    """Show nothing.

    As ``Engine(progress=evocell.silent)`` neither an image's build nor any batch is shown; as
    ``engine.evaluate(..., progress=evocell.silent)`` that batch is not.

    Args:
        *progress: Where the build, or the batch, is.
    """


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
    """The bars that are shown on one console at this moment; it may be used from any thread.

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

    def add(self, what: str, total: float | None, *, taken_s: float = 0.0) -> TaskID:
        """Show a bar of something that began so many seconds ago; the first bar opens the display."""
        with self._lock:
            if self._progress is None:
                self._progress = _progress(self._given)
                atexit.register(self._close)  # a terminal must get its cursor back, whatever happens
                self._progress.start()
            line = self._progress.add_task(what, total=total, amount="", notes="")
            for task in self._progress.tasks:
                if task.id == line:
                    task.start_time = self._progress.get_time() - taken_s
            return line

    def update(
        self, line: TaskID, what: str, done: float, total: float | None, *, amount: str, notes: str
    ) -> None:
        """Change a bar.

        Args:
            line: The bar.
            what: What is done.
            done: How much of it is done.
            total: How much there is; None if unknown.
            amount: The same as text.
            notes: What else to say.
        """
        with self._lock:
            if self._progress is not None:
                self._progress.update(
                    line, description=what, completed=done, total=total, amount=amount, notes=notes
                )

    def remove(self, line: TaskID) -> None:
        """Take a bar away; the last one closes the display."""
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


def _progress(console: Console | None) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - see above

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[notes]}", markup=False),
        console=console or _standard_error(),
        transient=True,
    )


def _standard_error() -> Console:
    from evocell.console.safe import SafeConsole  # noqa: PLC0415 - see above

    return SafeConsole(stderr=True)


_display = Display()
os.register_at_fork(after_in_child=_display.forget)


class BatchBar(BatchCount):
    """A progress bar of one batch, shown once the batch has taken `PATIENCE_S`; a context manager.

    Args:
        what: What is done, such as ``"evaluating"``.
        total: How many there are; None if unknown.
        display: Where it is shown; None for the process's own.
    """

    def __init__(self, what: str, total: int | None, *, display: Display | None = None) -> None:
        super().__init__(what, total)
        self._display = _display if display is None else display
        self._lock = threading.Lock()
        self._line: TaskID | None = None
        self._wanted = False
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
            self._count(result, done, total)
            self._draw()

    @property
    def due_in_s(self) -> float:
        """Seconds after which a wait for the next result is long enough to be shown."""
        return max(QUICK_S, PATIENCE_S - (time.monotonic() - self._began))

    def _show(self) -> None:
        with self._lock:
            if self._line is None and self._wanted:
                taken_s = time.monotonic() - self._began
                self._line = self._display.add(self._what, self._total, taken_s=taken_s)
                self._draw()

    def _draw(self) -> None:
        if self._line is not None:
            total = "?" if self._total is None else str(self._total)
            amount = f"{self._done:{len(total)}} of {total}"
            self._display.update(
                self._line, self._what, self._done, self._total, amount=amount, notes=self._notes()
            )

    def hide(self) -> None:
        """Take it off, or do not show it at all; idempotent."""
        with self._lock:
            self._wanted = False
            if self._timer is not None:
                self._timer.cancel()
            line, self._line = self._line, None
            if line is not None:
                self._display.remove(line)


def batch_bar(what: str, total: int | None) -> BatchBar | NotebookBar:
    """Return the bar of a batch for where it is shown: below the cell of a notebook, or on the terminal."""
    return NotebookBar(what, total) if is_notebook() else BatchBar(what, total)


class StreamProgress:
    """The progress of results that are handed out one by one.

    The program that gets them may write to the terminal itself, so the bar is on the terminal only during a
    wait for the next result, if that is long.

    Args:
        sources: What is evaluated.
        progress: The caller's function; None shows a bar.
        shown: Whether there is a terminal to show one on.
    """

    def __init__(self, sources: object, progress: Report | None, *, shown: bool) -> None:
        self._progress = progress
        self._size = size_of(sources)
        self._bar = batch_bar("evaluating", self._size) if shown and progress is None else None
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


class BatchLines(BatchCount):
    """The progress function of a batch where there is no terminal: a line every few seconds, as in a log.

    Nothing is written of a batch that takes less than the first interval.

    Args:
        what: What is done, such as ``"evaluating"``.
        total: How many there are; None if unknown.
        every_s: Seconds between two lines.
    """

    def __init__(self, what: str, total: int | None, *, every_s: float = LINES_S) -> None:
        super().__init__(what, total)
        self._every_s = every_s
        self._told = self._began

    def report(self, result: object, done: int, total: int | None = None) -> None:
        """Note that another one is done, and write a line if it is time for one."""
        now = time.monotonic()
        self._count(result, done, total)
        if now - self._told >= self._every_s:
            self._told = now
            with suppress(AttributeError, OSError, ValueError):  # none, closed, or a full disk
                _standard_error().print(self._text(now - self._began), soft_wrap=True, highlight=False)
                sys.stderr.flush()

    def _text(self, taken_s: float) -> str:
        line = f"evocell: {self._what} {self._done:,}"
        if self._total is not None:
            line += f" of {self._total:,}"
        if self._invalid:
            line += f", {self._invalid:,} invalid"
        per_s = self._done / max(taken_s, 1e-9)
        line += f", {per_s:,.3g}/s"
        if self._total is not None and self._done < self._total:
            line += f", {duration((self._total - self._done) / per_s)} to go"
        return line


class ConsoleProgress:
    """Shows `BuildProgress` on standard error: a bar on a terminal, lines elsewhere.

    Call it with each report; it draws nothing before the first one, so a start that finds its image in the
    cache stays silent. It may be called from any thread. The bar goes at the last report (fraction 1), or at
    the end of a ``with`` block, which also says that the image is ready unless the block raised.

    Args:
        console: Where to draw; None for standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._given = console
        self._lock = threading.Lock()
        self._latest: BuildProgress | None = None
        self._display: Display | None = None
        self._line: TaskID | None = None
        self._last_step = ""
        self._last_line_s = 0.0

    def __call__(self, progress: BuildProgress) -> None:
        """Show one report.

        Args:
            progress: Where the build is.
        """
        with self._lock:
            if self._latest is None:
                self._say(announcement(progress.eta_s))
            self._latest = progress
            if self._console.is_terminal:
                self._draw(progress)
            else:
                self._log(progress)

    def close(self) -> None:
        """Take the bar off the terminal; harmless if there is none."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        """Return the display itself; nothing is drawn yet."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the display; a build that nothing stopped has made its image."""
        self.close()
        latest, self._latest = self._latest, None
        if exc_type is None and latest is not None and latest.fraction < _DONE:
            self._say(ready_line(latest.elapsed_s))

    @property
    def _console(self) -> Console:
        self._given = self._given or _standard_error()
        return self._given

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw(self, progress: BuildProgress) -> None:
        if progress.fraction >= _DONE:
            self._stop()
            self._say(plain_line(progress))
            return
        if self._display is None or self._line is None:
            self._display = Display(self._console)
            self._line = self._display.add(progress.step, _DONE)
        left = "" if progress.eta_s is None else f"about {duration(progress.eta_s)} left"
        amount = f"{progress.fraction * 100:3.0f} %"
        self._display.update(self._line, progress.step, progress.fraction, _DONE, amount=amount, notes=left)

    def _log(self, progress: BuildProgress) -> None:
        new_step = progress.step != self._last_step
        silent_for_s = progress.elapsed_s - self._last_line_s
        if new_step or silent_for_s >= _PLAIN_EVERY_S or progress.fraction >= _DONE:
            self._last_step = progress.step
            self._last_line_s = progress.elapsed_s
            self._say(plain_line(progress))

    def _stop(self) -> None:
        if self._display is not None and self._line is not None:
            self._display.remove(self._line)
            self._display = self._line = None


def console_progress() -> ConsoleProgress:
    """Make a display for an image's build on standard error; what an engine uses if it is given none."""
    return ConsoleProgress()


def announcement(eta_s: float | None) -> str:
    """Say what a build will take, before it starts.

    Args:
        eta_s: Estimated seconds left; None while nothing is known.
    """
    if eta_s is not None and eta_s < _QUICK_BUILD_S:
        return f"Building a sandbox image from native code that is there already: {duration(eta_s)}, once."
    return (
        f"Building the sandbox image: about {DISK_GB:g} GB of disk and two minutes, once "
        "(0.3 GB of it is installed already). "
        "Later starts take a fraction of a second."
    )


def plain_line(progress: BuildProgress) -> str:
    """Render a build's progress as one line of a log."""
    place = f"{min(progress.steps_done + 1, progress.steps_total)}/{progress.steps_total}"
    if progress.fraction >= _DONE:
        return ready_line(progress.elapsed_s)
    left = "" if progress.eta_s is None else f", about {duration(progress.eta_s)} left"
    return f"image: step {place}: {progress.step} ({duration(progress.elapsed_s)} so far{left})"


def ready_line(elapsed_s: float) -> str:
    """Say that an image is there, and how long it took."""
    return f"image: ready after {duration(elapsed_s)}"
