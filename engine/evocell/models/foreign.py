"""Cleaning of untrusted text before it reaches a terminal or a reader.

Whatever a variant, a file, a store, a client or a package wrote can hold terminal codes, marks that turn
the direction of writing, and line ends that forge a line of ours. `clean` is the one place that decides what
may pass; all that `evocell` prints goes through it.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

__all__ = ["clean", "clean_json", "clean_line", "clean_log", "clean_message", "clean_traces"]

_BEYOND = 0x10000
"""The first character that JSON escapes as two."""


def clean(text: str) -> str:
    """Replace what is neither printable, nor a line end, nor a tab: terminal codes, bidi marks and so on."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def clean_line(text: str) -> str:
    """Make one line of a text, so that it cannot pass for a line of ours."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def clean_message(text: str) -> str:
    """Clean a sentence that may quote several lines; those after the first are indented."""
    return clean(text).replace("\n", "\n  ")


def clean_json(document: str) -> str:
    """Escape what is not printable in a JSON document of one line, which then says the same."""
    return document if document.isprintable() else "".join(map(_escaped, document))


def _escaped(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if code < _BEYOND:
        return f"\\u{code:04x}"
    high, low = divmod(code - _BEYOND, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


class _CleanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return clean_message(super().format(record))


@contextmanager
def clean_log() -> Iterator[None]:
    """Have warnings of a program that set up no log reach standard error cleaned."""
    if logging.root.handlers:
        yield
        return
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_CleanFormatter())
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)


def clean_traces() -> None:
    """Have this process's uncaught exceptions reach standard error cleaned."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(clean("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = show
