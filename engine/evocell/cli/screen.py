"""Where a command prints its tables."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console

__all__ = ["open_screen"]

_WIDE = 1000
"""Columns of what is no terminal: a row stays on its line, so that `grep` and `sort` find it whole."""


def open_screen(**options: Any) -> Console:
    """Return standard output as a console: as wide as the terminal, or as ``COLUMNS`` says, else very wide.

    Args:
        **options: As `rich.console.Console` takes them.
    """
    console = Console(**options)
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console
    return Console(**options, width=_WIDE)
