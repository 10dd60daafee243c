"""Progress displays of batches, where neither the engine nor the call was given a progress function.

A batch is shown as a bar on a terminal or below the cell of a notebook after two seconds, or where there is
neither as lines after ten. The batches of a process share one `Display`. The bar of a notebook is an output
of the cell that is drawn anew, of HTML that every front end shows (Jupyter, JupyterLab, VS Code, Colab), so
that neither widgets nor an extension of the front end are needed. Where HTML is not shown it is a line.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager, suppress
from html import escape
from importlib import import_module
from secrets import token_hex
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from evocell.console.progress import Display, duration, standard_error

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = [
    "PATIENCE_S",
    "QUICK_S",
    "BatchBar",
    "BatchLines",
    "DelayedBar",
    "NotebookBar",
    "Report",
    "StreamProgress",
    "batch_bar",
    "is_notebook",
    "is_terminal",
    "shows_bars",
    "size_of",
]

PATIENCE_S = 2.0
"""Seconds after which a batch is shown as a bar; a shorter one is not."""

QUICK_S = 0.25
"""Seconds after which a wait for the next result of a stream is shown."""

EVERY_S = 0.25
"""Seconds between two drawings in a notebook."""

LINES_S = 10.0
"""Seconds between two log lines about a batch without a terminal."""

Report: TypeAlias = Callable[[Any, int, int], None]
"""A batch's progress function: called with the finished item, the number done, and the total."""


def is_terminal() -> bool:
    """Return whether standard error is a terminal that can redraw a line."""
    try:
        return sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb"}
    except (AttributeError, ValueError):  # it is missing or closed
        return False


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


def shows_bars() -> bool:
    """Whether a batch can be shown as a bar here."""
    return is_terminal() or is_notebook()


def size_of(items: object) -> int | None:
    """Return the number of items, if it is known without consuming them."""
    return len(items) if isinstance(items, Sized) else None


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


class NotebookBar(DelayedBar):
    """The bar of one batch below a cell.

    Args:
        what: The activity, such as ``"evaluating"``.
        total: The number of items; None if unknown.
    """

    def __init__(self, what: str, total: int | None) -> None:
        super().__init__(what, total)
        self._id = f"evocell-{token_hex(8)}"
        self._drawn = 0.0

    def _open(self) -> None:
        self._draw()

    def _update(self) -> None:
        if self._done == self._total or time.monotonic() - self._drawn >= EVERY_S:
            self._draw()

    def _close(self) -> None:
        self._draw()

    def _draw(self) -> None:
        text = self._text()
        total = "" if self._total is None else f' value="{self._done}" max="{max(1, self._total)}"'
        bar = f'<progress{total} style="width:40%;vertical-align:middle"></progress> {escape(text)}'
        shown: dict[str, Any] = {"text/html": f"<div>{bar}</div>", "text/plain": text}
        display = import_module("IPython.display").display  # it is there, or this is no notebook
        display(shown, raw=True, display_id=self._id, update=self._shown)
        self._drawn = time.monotonic()

    def _text(self) -> str:
        taken_s = time.monotonic() - self._began
        of = "" if self._total is None else f" of {self._total:,}"
        per_s = self._done / max(taken_s, 1e-9)
        parts = [f"{self._what} {self._done:,}{of}", f"{per_s:,.3g}/s", duration(taken_s), self._notes()]
        return ", ".join(part for part in parts if part)


_display = Display()
os.register_at_fork(after_in_child=_display.forget)


class BatchBar(DelayedBar):
    """The bar of one batch on a terminal.

    Args:
        what: The activity, such as ``"evaluating"``.
        total: The number of items; None if unknown.
        display: The display; None for the process's own.
    """

    def __init__(self, what: str, total: int | None, *, display: Display | None = None) -> None:
        super().__init__(what, total)
        self._display = _display if display is None else display
        self._line: TaskID | None = None

    def _open(self) -> None:
        taken_s = time.monotonic() - self._began
        self._line = self._display.add(self._what, self._total, taken_s=taken_s)
        self._update()

    def _update(self) -> None:
        if self._line is not None:
            total = "?" if self._total is None else str(self._total)
            amount = f"{self._done:{len(total)}} of {total}"
            self._display.update(
                self._line, self._what, self._done, self._total, amount=amount, notes=self._notes()
            )

    def _close(self) -> None:
        line, self._line, self._shown = self._line, None, False
        if line is not None:
            self._display.remove(line)


def batch_bar(what: str, total: int | None) -> BatchBar | NotebookBar:
    """Return the bar of a batch for where it is shown: below the cell of a notebook, or on the terminal."""
    return NotebookBar(what, total) if is_notebook() else BatchBar(what, total)


class StreamProgress:
    """Progress of a stream of results.

    The consuming program may write to the terminal itself, so the bar is shown only during a long wait for
    the next result.

    Args:
        sources: The sources.
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
        """Count a result, with the number of sources still under way."""
        self._n_done += 1
        if self._bar is not None:
            self._bar.report(result, self._n_done)
        elif self._progress is not None:
            self._progress(result, self._n_done, self._size or self._n_done + n_running)


class BatchLines(BatchCount):
    """Progress function of a batch without a terminal: a log line every few seconds.

    Nothing is written for a batch that takes less than the first interval.

    Args:
        what: The activity, such as ``"evaluating"``.
        total: The number of items; None if unknown.
        every_s: Seconds between two lines.
    """

    def __init__(self, what: str, total: int | None, *, every_s: float = LINES_S) -> None:
        super().__init__(what, total)
        self._every_s = every_s
        self._told = self._began

    def report(self, result: object, done: int, total: int | None = None) -> None:
        """Count a finished item, and write a line if one is due."""
        now = time.monotonic()
        self._count(result, done, total)
        if now - self._told >= self._every_s:
            self._told = now
            with suppress(AttributeError, OSError, ValueError):  # missing, closed, or a full disk
                standard_error().print(self._text(now - self._began), soft_wrap=True, highlight=False)
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
