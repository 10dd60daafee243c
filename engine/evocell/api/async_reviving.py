"""The engine as trio programs use it: bringing back what killed engines held."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from attrs import evolve

from evocell.api.lifecycle import EngineLifecycle
from evocell.api.options import SandboxRef, sandbox_ids
from evocell.errors import ConfigurationError
from evocell.models.specs import SandboxSpec
from evocell.observability.runs import LostSandbox, lost_sandboxes, note_revived
from evocell.orchestration.concurrency import map_bounded
from evocell.orchestration.records import SandboxRecord

__all__ = ["AsyncReviving"]


class AsyncReviving(EngineLifecycle):
    """The part of `AsyncEngine` that brings back sandboxes; see there."""

    async def revive_sandboxes(self, ids: Sequence[SandboxRef] | None = None) -> list[str]:
        """Create again the sandboxes that killed engines held here, with the code they had.

        What their sessions kept in memory is gone. A sandbox whose code is not in the store any more, or
        whose id somebody bears by now, is left as it is.

        Args:
            ids: Which ones; None for all there are.

        Returns:
            The ids of those that are there again.

        Raises:
            ConfigurationError: One of `ids` was not held by a killed engine, has been brought back already,
                or its code is gone; nothing has been brought back.
            CapacityError: There would be too many sandboxes; nothing has been brought back.
            StoreError: The store is damaged.

        Cancellation: None of them is there.
        """
        with self._request():
            lost = await trio.to_thread.run_sync(lost_sandboxes, self._store)
            found = {one.id: (one, spec) for one, spec in lost if spec.source is not None}
            wanted = list(dict.fromkeys(found if ids is None else sandbox_ids(ids)))
            if ids is None:
                alive = {record.id for record in self._manager.records()}
                wanted = [one for one in wanted if one not in alive]
            elif missing := [one for one in wanted if one not in found]:
                raise ConfigurationError(
                    f"{missing[0]!r} cannot be brought back: no killed engine held it, somebody brought it "
                    "back, or its code is not in the store",
                    "ids",
                )
            chosen = [found[one] for one in wanted]
            await self._revive(chosen)
            note_revived(self._store, [one for one, _ in chosen], self._observer.journal.run)
            await self._observer.settle()
            return wanted

    async def _revive(self, chosen: Sequence[tuple[LostSandbox, SandboxSpec]]) -> None:
        async def load(pair: tuple[SandboxRecord, SandboxSpec]) -> None:
            await self._manager.load(pair[0], pair[1].source)

        specs = [spec for _, spec in chosen]
        async with self._manager.reserved([evolve(spec, source=None) for spec in specs]) as records:
            await map_bounded(
                load,
                list(zip(records, specs, strict=True)),
                at_once=self._worker.slots + 1,
                grows_with=self._worker,
            )
