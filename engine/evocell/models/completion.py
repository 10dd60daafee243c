"""What an interactive prompt offers of an object: what is public."""

from __future__ import annotations

__all__ = ["Completable"]


class Completable:
    """Leaves out of `dir`, and so of tab completion, what is internal."""

    __slots__ = ()

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.startswith("_") or name.startswith("__")]
