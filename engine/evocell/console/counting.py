"""How far a batch is, in words, for every kind of display."""

from __future__ import annotations

import time

__all__ = ["BatchCount", "duration"]


def duration(seconds: float) -> str:
    """Render a span of time as people say it: ``9 s``, ``1 min 50 s``."""
    whole = max(0, round(seconds))
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s"


class BatchCount:
    """The progress of one batch.

    Args:
        what: What is done, such as ``"evaluating"``.
        total: How many there are; None if unknown.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._invalid = 0
        self._began = time.monotonic()

    def _count(self, result: object, done: int, total: int | None) -> None:
        self._done = done
        self._total = self._total if total is None else total
        self._invalid += not getattr(result, "valid", True)

    def _notes(self) -> str:
        parts = []
        taken_s = time.monotonic() - self._began
        if self._done and self._total is not None and self._done < self._total:
            parts.append(f"about {duration(taken_s / self._done * (self._total - self._done))} left")
        if self._invalid:
            parts.append(f"{self._invalid:,} invalid")
        return ", ".join(parts)
