"""A progress bar below the cell of a notebook.

It is an output of the cell that is drawn anew, of HTML that every front end shows (Jupyter, JupyterLab,
VS Code, Colab), so that neither widgets nor an extension of the front end are needed. Where HTML is not shown
it is a line.
"""

from __future__ import annotations

import sys
import threading
import time
from html import escape
from importlib import import_module
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

from evocell.console.counting import BatchCount, duration

__all__ = ["NotebookBar", "is_notebook"]

PATIENCE_S = 2.0
"""A batch that takes no longer than this is not shown."""

EVERY_S = 0.25
"""Seconds between two drawings."""


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


class NotebookBar(BatchCount):
    """The bar of one batch, shown once the batch has taken `PATIENCE_S`; a context manager.

    Args:
        what: What is done, such as ``"evaluating"``.
        total: How many there are; None if unknown.
    """

    def __init__(self, what: str, total: int | None) -> None:
        super().__init__(what, total)
        self._id = f"evocell-{token_hex(8)}"
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._shown = False
        self._drawn = 0.0

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
        """Draw it a last time, if it is there."""
        self.hide()

    @property
    def due_in_s(self) -> float:
        """Seconds after which a wait for the next result is long enough to be shown."""
        return max(EVERY_S, PATIENCE_S - (time.monotonic() - self._began))

    def show_in(self, seconds: float) -> None:
        """Show it after a while, unless `hide` is called before."""
        if self._shown:
            return
        with self._lock:
            self._timer = threading.Timer(seconds, self._show)
            self._timer.daemon = True
            self._timer.start()

    def hide(self) -> None:
        """Stop waiting, and draw where it has come to, if it is there; idempotent."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._shown:
                self._draw()

    def report(self, result: object, done: int, total: int | None = None) -> None:
        """Note that another one is done; to be used as the progress function of the batch."""
        with self._lock:
            self._count(result, done, total)
            last = self._done == self._total
            if self._shown and (last or time.monotonic() - self._drawn >= EVERY_S):
                self._draw()

    def _show(self) -> None:
        with self._lock:
            if self._timer is not None and not self._shown:
                self._draw()

    def _draw(self) -> None:
        text = self._text()
        total = "" if self._total is None else f' value="{self._done}" max="{max(1, self._total)}"'
        bar = f'<progress{total} style="width:40%;vertical-align:middle"></progress> {escape(text)}'
        shown: dict[str, Any] = {"text/html": f"<div>{bar}</div>", "text/plain": text}
        display = import_module("IPython.display").display  # it is there, or this is no notebook
        display(shown, raw=True, display_id=self._id, update=self._shown)
        self._shown = True
        self._drawn = time.monotonic()

    def _text(self) -> str:
        taken_s = time.monotonic() - self._began
        of = "" if self._total is None else f" of {self._total:,}"
        per_s = self._done / max(taken_s, 1e-9)
        parts = [f"{self._what} {self._done:,}{of}", f"{per_s:,.3g}/s", duration(taken_s), self._notes()]
        return ", ".join(part for part in parts if part)
