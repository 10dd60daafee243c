"""Terminal output of the commands; no other module of this package writes to the terminal.

Output may quote a variant, a file, a store or a package, so it is cleaned here, and JSON escapes all
unprintable characters. A test enforces that for all modules of the package.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import IO, Any

from evocell.console.safe import SafeConsole
from evocell.models.foreign import clean, clean_json, clean_message

__all__ = ["complain", "data_sink", "open_screen", "say", "say_json"]

_WIDE = 1000
"""Width without a terminal: rows are not wrapped, so that `grep` and `sort` work on whole rows."""


def open_screen(**options: Any) -> SafeConsole:
    """Return standard output as a console with the width of the terminal or ``COLUMNS``, else very wide.

    Args:
        **options: As `rich.console.Console` takes them.
    """
    console = SafeConsole(**options)
    if console.is_terminal or "width" in options or os.environ.get("COLUMNS", "").isdigit():
        return console
    return SafeConsole(**options, width=_WIDE)


def say(text: str) -> None:
    """Print a text to standard output, with a line end."""
    sys.stdout.write(clean(text) + "\n")


def complain(sentence: str) -> None:
    """Print a sentence to standard error in the form of every error of the command."""
    sys.stderr.write(f"evocell: {clean_message(sentence)}\n")


def say_json(document: object, *, indent: int | None = None, sort_keys: bool = False) -> None:
    """Print JSON to standard output, in printable ASCII only."""
    text = json.dumps(document, indent=indent, sort_keys=sort_keys, default=repr)
    sys.stdout.write("\n".join(map(clean_json, text.split("\n"))) + "\n")
    sys.stdout.flush()


def data_sink(file: IO[bytes]) -> Callable[[bytes], object]:
    """Return a function that writes text: unchanged to a file or pipe, cleaned to a terminal."""
    if not file.isatty():
        return file.write
    return lambda data: file.write(clean(data.decode("utf-8", "replace")).encode("utf-8", "replace"))
