"""Cleaning of untrusted text before it reaches a terminal or a reader.

Text of a variant, a file, a store, a client or a package can contain terminal codes, bidirectional
controls, and line ends that forge a line of output. `clean` is the single place that decides which
characters pass; all output of `evocell` goes through it.
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
"""The first code point that JSON escapes as a surrogate pair."""


def clean(text: str) -> str:
    """Replace all characters but printable ones, line ends and tabs: terminal codes, bidi marks and so on."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def clean_line(text: str) -> str:
    """Clean a text and join it to one line, so that it cannot forge a line of output."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def clean_message(text: str) -> str:
    """Clean a message of possibly several lines; lines after the first are indented."""
    return clean(text).replace("\n", "\n  ")


def clean_json(document: str) -> str:
    """Escape unprintable characters in a one-line JSON document without changing its value."""
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
    """Clean warnings that reach standard error in a program without logging handlers."""
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
    """Clean this process's uncaught exceptions before they reach standard error."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(clean("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = show
