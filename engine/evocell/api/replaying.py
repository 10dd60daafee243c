"""Doing evaluations again, and not doing them again; the part of `Engine`."""

from __future__ import annotations

from functools import partial

from evocell.api.async_replaying import AsyncReplaying
from evocell.api.options import SandboxRef
from evocell.api.portal import Portal
from evocell.models.recorded import EvaluationRecord, MemoInfo, Replay

__all__ = ["Replaying"]


class Replaying:
    """The part of `Engine` that is about records and memoisation; see there."""

    _thread: Portal
    _engine: AsyncReplaying

    def evaluation_records(
        self, *, sandbox_id: SandboxRef | None = None, key: str | None = None, limit: int = 100
    ) -> list[EvaluationRecord]:
        """Return records of the calls that evaluations made; see `AsyncEngine.evaluation_records`."""
        ask = partial(self._engine.evaluation_records, sandbox_id=sandbox_id, key=key, limit=limit)
        return self._thread.call(ask)

    def replay(self, record: EvaluationRecord) -> Replay:
        """Make a recorded call again, and say whether it went the same; see `AsyncEngine.replay`."""
        return self._thread.call(partial(self._engine.replay, record))

    def memo_info(self) -> MemoInfo:
        """Return how often a remembered outcome spared a call; see `AsyncEngine.memo_info`."""
        return self._thread.call(self._engine.memo_info)
