"""Console for all terminal output, on which untrusted text can neither control nor style the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from evocell.models.foreign import clean

__all__ = ["SafeConsole"]


class SafeConsole(Console):
    """A console that cleans all text it draws, with markup and emoji codes off.

    Args:
        **options: As `rich.console.Console` takes them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render, and clean all text but the console's own control codes."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(clean(segment.text), segment.style)
