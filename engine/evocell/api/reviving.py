"""The engine as most programs use it: bringing back what killed engines held."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from evocell.api.async_reviving import AsyncReviving
from evocell.api.options import SandboxRef
from evocell.api.portal import Portal

__all__ = ["Reviving"]


class Reviving:
    """The part of `Engine` that brings back sandboxes; see there."""

    _thread: Portal
    _engine: AsyncReviving

    def revive_sandboxes(self, ids: Sequence[SandboxRef] | None = None) -> list[str]:
        """Create again the sandboxes that killed engines held; see `AsyncEngine.revive_sandboxes`."""
        return self._thread.call(partial(self._engine.revive_sandboxes, ids))
