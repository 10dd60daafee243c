"""HTML representations for notebooks: small tables with all guest text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["facts", "number", "table"]

_CELL_CHARS = 160


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "") -> str:
    """Return a table.

    Args:
        head: Titles of the columns.
        rows: Their cells; numbers are right-aligned.
        caption: What stands above it.
    """
    titles = "".join(f"<th>{_text(title)}</th>" for title in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    above = f"<caption>{_text(caption)}</caption>" if caption else ""
    return f"<table>{above}<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def facts(caption: str, pairs: Iterable[tuple[str, object]]) -> str:
    """Return a table of two columns, name and value, without pairs whose value is None.

    Args:
        caption: What stands above it.
        pairs: The rows.
    """
    rows = "".join(
        f"<tr><th>{_text(name)}</th>{_cell(value)}</tr>" for name, value in pairs if value is not None
    )
    return f"<table><caption>{_text(caption)}</caption><tbody>{rows}</tbody></table>"


def number(value: float | None) -> str:
    """Return a formatted number; empty for None."""
    return "" if value is None else f"{value:,.6g}"


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, int | float):
        shown = f"{value:,}" if isinstance(value, int) else number(value)
        return f'<td style="text-align:right">{shown}</td>'
    return f"<td>{_text(value)}</td>"


def _text(value: object) -> str:
    text = "" if value is None else str(value)
    text = text if len(text) <= _CELL_CHARS else text[: _CELL_CHARS - 1] + "…"
    return escape("".join(char if char.isprintable() else " " for char in text))
