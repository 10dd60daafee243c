"""Doing evaluations again, and not doing them again; the part of `AsyncEngine`."""

from __future__ import annotations

from functools import partial

import trio

from evocell.api.lifecycle import EngineLifecycle
from evocell.api.options import SandboxRef
from evocell.errors import ConfigurationError
from evocell.models.recorded import EvaluationRecord, MemoInfo, Replay
from evocell.models.references import optional_id

__all__ = ["AsyncReplaying"]


class AsyncReplaying(EngineLifecycle):
    """The part of `AsyncEngine` that is about records and memoisation; see there."""

    async def evaluation_records(
        self, *, sandbox_id: SandboxRef | None = None, key: str | None = None, limit: int = 100
    ) -> list[EvaluationRecord]:
        """Return records of the calls that evaluations made; an engine with a ``state_dir`` keeps them.

        Args:
            sandbox_id: Only those of this individual, which was the first to make the call.
            key: Only those whose key begins so.
            limit: How many at most, from 1 to 10,000.

        Returns:
            The newest that fit, the oldest of them first. Calls that share a fork
            (``isolation="candidate"``, sessions) depend on each other and have none.

        Raises:
            ConfigurationError: An argument cannot be used, or this engine keeps no records.
            StoreError: The store cannot be used.
        """
        with self._request():
            find = partial(self._pure.find, sandbox_id=optional_id(sandbox_id), key=key, limit=limit)
            return await trio.to_thread.run_sync(find)

    async def replay(self, record: EvaluationRecord) -> Replay:
        """Make a recorded call again, and say whether outcome and fuel are the same, bit for bit.

        Args:
            record: One of `evaluation_records`.

        Raises:
            StoreError: Its code or arguments are not kept any more.
            CapacityError: There is no room for another fork.

        Cancellation: The call is stopped.
        """
        if not isinstance(record, EvaluationRecord):
            raise ConfigurationError(
                f"replay takes one of evaluation_records(), not {type(record).__name__}", "record"
            )
        with self._request():
            return await self._pure.replay(record, self._versions, self._observer)

    async def memo_info(self) -> MemoInfo:
        """Return how often a remembered outcome spared a call of an evaluation with ``memoise``."""
        with self._request():
            return self._pure.info()
