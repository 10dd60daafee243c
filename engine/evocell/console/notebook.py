"""A progress bar below the cell of a notebook.

It is an output of the cell that is drawn anew, of HTML that every front end shows (Jupyter, JupyterLab,
VS Code, Colab), so that neither widgets nor an extension of the front end are needed. Where HTML is not shown
it is a line.
"""

from __future__ import annotations

import sys
import time
from html import escape
from importlib import import_module
from secrets import token_hex
from typing import Any

from evocell.console.counting import DelayedBar, duration

__all__ = ["NotebookBar", "is_notebook"]

EVERY_S = 0.25
"""Seconds between two drawings."""


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


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
