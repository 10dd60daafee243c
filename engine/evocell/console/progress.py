"""Displays on standard error: bars on a terminal, and the progress of an image's build.

A build announces what it will take and is shown from its first report on: as a bar on a terminal, as lines
of a log elsewhere. All bars are lines of a `Display`, which owns the terminal while it has at least one bar,
and restores the cursor at exit in any case. ``rich`` is imported on first use: most programs never need it.
"""

from __future__ import annotations

import atexit
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from evocell_runtime.build import BuildProgress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = [
    "ConsoleProgress",
    "Display",
    "console_progress",
    "duration",
    "silent",
    "standard_error",
]

DISK_GB = 0.7
"""Total disk space of the guest.

Source: 280 MB of native code, 54 MB of standard library and 34 MB of snapshot in the cache, 250 MB for the
package they are made from, 32 MB for wasmtime.
"""

_QUICK_BUILD_S = 45.0
_PLAIN_EVERY_S = 15.0
_DONE = 1.0


def silent(*progress: object) -> None:
    """Show nothing.

    As ``Engine(progress=evocell.silent)`` neither an image's build nor any batch is shown; as
    ``engine.evaluate(..., progress=evocell.silent)`` that batch is not.

    Args:
        *progress: The report, which is ignored.
    """


def duration(seconds: float) -> str:
    """Render a span of time as people say it: ``9 s``, ``1 min 50 s``."""
    whole = max(0, round(seconds))
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s"


class Display:
    """The bars currently shown on one console; thread-safe.

    Args:
        console: Where to draw; None for standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._given = console
        self._lock = threading.Lock()
        self._progress: Progress | None = None

    def forget(self) -> None:
        """Reset in a forked child, whose parent continues to draw, and may have held the lock."""
        self._lock = threading.Lock()
        self._progress = None

    def add(self, what: str, total: float | None, *, taken_s: float = 0.0) -> TaskID:
        """Show a bar of an activity that began some seconds ago; the first bar opens the display."""
        with self._lock:
            if self._progress is None:
                self._progress = _progress(self._given)
                atexit.register(self._close)  # restores the cursor in any case
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
            what: The activity.
            done: The amount done.
            total: The total; None if unknown.
            amount: The amount as text.
            notes: Further text.
        """
        with self._lock:
            if self._progress is not None:
                self._progress.update(
                    line, description=what, completed=done, total=total, amount=amount, notes=notes
                )

    def remove(self, line: TaskID) -> None:
        """Remove a bar; the last one closes the display."""
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
        console=console or standard_error(),
        transient=True,
    )


def standard_error() -> Console:
    """Return a console on standard error."""
    from evocell.console.safe import SafeConsole  # noqa: PLC0415 - see above

    return SafeConsole(stderr=True)


class ConsoleProgress:
    """Shows `BuildProgress` on standard error: a bar on a terminal, lines elsewhere.

    Call it with each report; it draws nothing before the first one, so a start with a cached image is
    silent. It may be called from any thread. The bar is removed at the last report (fraction 1), or at the
    end of a ``with`` block, which also reports that the image is ready unless the block raised.

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
            progress: The report.
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
        """Remove the bar; no effect if there is none."""
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
        """Close the display; report that the image is ready unless the block raised."""
        self.close()
        latest, self._latest = self._latest, None
        if exc_type is None and latest is not None and latest.fraction < _DONE:
            self._say(ready_line(latest.elapsed_s))

    @property
    def _console(self) -> Console:
        self._given = self._given or standard_error()
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
    """Make a display for an image's build on standard error, the default of an engine."""
    return ConsoleProgress()


def announcement(eta_s: float | None) -> str:
    """Return the announcement of a build, with its cost.

    Args:
        eta_s: Estimated remaining seconds; None if unknown.
    """
    if eta_s is not None and eta_s < _QUICK_BUILD_S:
        return f"Building a sandbox image from native code that is there already: {duration(eta_s)}, once."
    return (
        f"Building the sandbox image: about {DISK_GB:g} GB of disk and two minutes, once "
        "(0.3 GB of it is installed already). "
        "Later starts take a fraction of a second."
    )


def plain_line(progress: BuildProgress) -> str:
    """Format a build's progress as a log line."""
    place = f"{min(progress.steps_done + 1, progress.steps_total)}/{progress.steps_total}"
    if progress.fraction >= _DONE:
        return ready_line(progress.elapsed_s)
    left = "" if progress.eta_s is None else f", about {duration(progress.eta_s)} left"
    return f"image: step {place}: {progress.step} ({duration(progress.elapsed_s)} so far{left})"


def ready_line(elapsed_s: float) -> str:
    """Return the line that reports a finished image and its build time."""
    return f"image: ready after {duration(elapsed_s)}"
