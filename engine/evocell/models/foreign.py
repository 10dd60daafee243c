"""Text of foreign origin, made harmless before it reaches a terminal or a reader."""

from __future__ import annotations

__all__ = ["clean", "clean_line"]


def clean(text: str) -> str:
    """Replace what is neither printable, nor a line end, nor a tab: terminal codes, bidi marks and so on."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def clean_line(text: str) -> str:
    """Make one line of a text, so that it cannot pass for a line of ours."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
