"""The audit log, as its owner asks it; the part of `Engine`."""

from __future__ import annotations

from functools import partial

from evocell.api.async_auditing import AsyncAuditing
from evocell.api.options import SandboxRef
from evocell.api.portal import Portal
from evocell.store.audit import AuditEntry, AuditKind

__all__ = ["Auditing"]


class Auditing:
    """The part of `Engine` that is about the audit log; see there."""

    _thread: Portal
    _engine: AsyncAuditing

    def audit_log(
        self,
        *,
        kind: AuditKind | None = None,
        sandbox_id: SandboxRef | None = None,
        since: float | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[AuditEntry]:
        """Return what the gate decided and which guests were stopped; see `AsyncEngine.audit_log`."""
        return self._thread.call(
            partial(
                self._engine.audit_log,
                kind=kind,
                sandbox_id=sandbox_id,
                since=since,
                after=after,
                limit=limit,
            )
        )
