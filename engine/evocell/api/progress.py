"""How a person sees the first build of an image: what it will take, then how far it is."""

from __future__ import annotations

import atexit
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from evocell_runtime.build import BuildProgress

if TYPE_CHECKING:
    # Loaded when there is something to draw: most starts find their image, and need none of it.
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["ConsoleProgress", "console_progress", "silent"]

DISK_GB = 0.7
"""What the guest takes on disk in all.

Source: 280 MB of native code, 54 MB of standard library and 34 MB of snapshot in the cache, 250 MB for the
package they are made from, 32 MB for wasmtime.
"""

_QUICK_BUILD_S = 45.0
_PLAIN_EVERY_S = 15.0
_DONE = 1.0


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


def duration(seconds: float) -> str:
    """Render a span of time the way people say it: ``9 s``, ``1 min 50 s``."""
    whole = max(0, round(seconds))
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s"


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


class ConsoleProgress:
    """Shows `BuildProgress` on standard error: a live bar on a terminal, plain lines elsewhere.

    Call it with each report; it draws nothing before the first one, so a start that finds its image in the
    cache stays silent. It may be called from any thread. The display closes itself at the last report
    (fraction 1), or at the end of a ``with`` block, which also says that the image is ready unless the block
    raised.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._given = console
        self._lock = threading.Lock()
        self._latest: BuildProgress | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
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
        """Take the live display off the terminal; harmless if there is none."""
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
        """Close the display, whatever happened; a build that nothing stopped has made its image."""
        self.close()
        latest, self._latest = self._latest, None
        if exc_type is None and latest is not None and latest.fraction < _DONE:
            self._say(ready_line(latest.elapsed_s))

    @property
    def _console(self) -> Console:
        from evocell.api.console import SafeConsole  # noqa: PLC0415 - see above

        self._given = self._given or SafeConsole(stderr=True)
        return self._given

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw(self, progress: BuildProgress) -> None:
        if progress.fraction >= _DONE:
            self._stop()
            self._say(plain_line(progress))
            return
        if self._bar is None or self._task is None:
            self._bar = _bar(self._console)
            self._task = self._bar.add_task(progress.step, total=1.0, left="")
            # A build that raises never reports fraction 1; a terminal must get its cursor back all the same.
            atexit.register(self.close)
            self._bar.start()
        left = "" if progress.eta_s is None else f"about {duration(progress.eta_s)} left"
        self._bar.update(self._task, completed=progress.fraction, description=progress.step, left=left)

    def _log(self, progress: BuildProgress) -> None:
        new_step = progress.step != self._last_step
        silent_for_s = progress.elapsed_s - self._last_line_s
        if new_step or silent_for_s >= _PLAIN_EVERY_S or progress.fraction >= _DONE:
            self._last_step = progress.step
            self._last_line_s = progress.elapsed_s
            self._say(plain_line(progress))

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
            atexit.unregister(self.close)


def console_progress() -> ConsoleProgress:
    """Make a display for an image's build on standard error; what an engine uses if it is given none."""
    return ConsoleProgress()


def silent(*progress: object) -> None:
    """Show nothing.

    As ``Engine(progress=evocell.silent)`` neither an image's build nor any batch is shown; as
    ``engine.evaluate(..., progress=evocell.silent)`` that batch is not.

    Args:
        *progress: Where the build, or the batch, is.
    """


def _bar(console: Console) -> Progress:
    from rich.progress import (  # noqa: PLC0415 - see above
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        console=console,
        transient=True,
    )
