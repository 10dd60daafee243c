"""The audit log, as its owner asks it; the part of `AsyncEngine`."""

from __future__ import annotations

from functools import partial

import trio

from evocell.api.lifecycle import EngineLifecycle
from evocell.api.options import SandboxRef
from evocell.models.references import optional_id
from evocell.store.audit import AuditEntry, AuditKind

__all__ = ["AsyncAuditing"]


class AsyncAuditing(EngineLifecycle):
    """The part of `AsyncEngine` that is about the audit log; see there."""

    async def audit_log(
        self,
        *,
        kind: AuditKind | None = None,
        sandbox_id: SandboxRef | None = None,
        since: float | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[AuditEntry]:
        """Return what the security gate decided and which guests were stopped.

        Args:
            kind: Only entries of this kind: ``"allowed"``, ``"reported"`` (it would have been refused, but
                ``enforcement_enabled`` is off), ``"refused"``, ``"refused_running"`` (by the audit hook),
                ``"killed"``, ``"crashed"`` or ``"worker_lost"``.
            sandbox_id: Only those about this sandbox, which may be gone.
            since: Only those from this moment on, in seconds since 1970.
            after: Only those with a higher number than this.
            limit: How many at most, from 1 to 10,000.

        Returns:
            The newest that fit, the oldest of them first. With a ``state_dir`` those of earlier engines are
            among them.

        Raises:
            ConfigurationError: An argument cannot be used.
            StoreError: The store cannot be used.
        """
        with self._request():
            return await trio.to_thread.run_sync(
                partial(
                    self._observer.audit.entries,
                    kind=kind,
                    sandbox_id=optional_id(sandbox_id),
                    since=since,
                    after=after,
                    limit=limit,
                )
            )
