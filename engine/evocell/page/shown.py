"""The page in a cell of a notebook."""

from __future__ import annotations

from html import escape
from pathlib import Path

from attrs import field, frozen

from evocell.page.html import render
from evocell.page.search import RunData

__all__ = ["Page", "make_page"]


@frozen
class Page:
    """The page of `evocell report`, displayed by notebooks.

    Attributes:
        html: The whole page; it needs no network.
    """

    html: str = field(repr=False)

    def save(self, out: str | Path) -> Path:
        """Write the page to a file, and return its path."""
        path = Path(out)
        path.write_text(self.html, encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        # In a frame without the notebook's origin: what candidates wrote is text there, and stays apart.
        return (
            f'<iframe srcdoc="{escape(self.html)}" sandbox="allow-scripts" '
            'style="width:100%;height:720px;border:0" title="evocell report"></iframe>'
        )


def make_page(data: RunData) -> Page:
    """Return the page of what was read of a run."""
    return Page(render(data))
