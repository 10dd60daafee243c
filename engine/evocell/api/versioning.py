"""The engine as most programs use it: other code for sandboxes, and the versions there were."""

from __future__ import annotations

from functools import partial

from evocell.api.async_versioning import AsyncVersioning, Version
from evocell.api.options import SandboxRef
from evocell.api.portal import Portal
from evocell.models.evaluation import Evaluation
from evocell.models.measurement import HeadToHead
from evocell.models.outcome import Outcome
from evocell.models.references import Source
from evocell.models.versions import ModuleVersion, VersionDiff

__all__ = ["Versioning"]


class Versioning:
    """The part of `Engine` that reloads code and keeps its versions; see there."""

    _thread: Portal
    _engine: AsyncVersioning

    def hot_reload(
        self, sandbox: SandboxRef, bundle: bytes, *, mutation_type: str = "mutation", keep_state: bool = False
    ) -> Outcome:
        """Put the code of a zip or wheel into a sandbox; see `AsyncEngine.hot_reload`."""
        return self._thread.call(
            partial(
                self._engine.hot_reload, sandbox, bundle, mutation_type=mutation_type, keep_state=keep_state
            )
        )

    def hot_reload_source(
        self,
        sandbox: SandboxRef,
        source: Source,
        *,
        mutation_type: str = "mutation",
        keep_state: bool = False,
    ) -> Outcome:
        """Put other code into a sandbox; see `AsyncEngine.hot_reload_source`."""
        return self._thread.call(
            partial(
                self._engine.hot_reload_source,
                sandbox,
                source,
                mutation_type=mutation_type,
                keep_state=keep_state,
            )
        )

    def rollback_module(
        self, sandbox: SandboxRef, module: str, version: int, *, keep_state: bool = False
    ) -> Outcome:
        """Give one module the files of an earlier version; see `AsyncEngine.rollback_module`."""
        return self._thread.call(
            partial(self._engine.rollback_module, sandbox, module, version, keep_state=keep_state)
        )

    def get_module_version(self, sandbox: SandboxRef, module: str) -> ModuleVersion | None:
        """Return the loaded version of a module; see `AsyncEngine.get_module_version`."""
        return self._thread.call(partial(self._engine.get_module_version, sandbox, module))

    def history(self, sandbox: SandboxRef, module: str) -> tuple[ModuleVersion, ...]:
        """Return the versions of a module, oldest first; see `AsyncEngine.history`."""
        return self._thread.call(partial(self._engine.history, sandbox, module))

    def past_versions(self, sandbox_id: SandboxRef, module: str | None = None) -> list[ModuleVersion]:
        """Return all versions there have been of a sandbox's modules; see `AsyncEngine.past_versions`."""
        return self._thread.call(partial(self._engine.past_versions, sandbox_id, module))

    def diff(
        self, sandbox: SandboxRef, module: str, old: int | None = None, new: int | None = None
    ) -> VersionDiff:
        """Say what changed in a module between two versions; see `AsyncEngine.diff`."""
        return self._thread.call(partial(self._engine.diff, sandbox, module, old, new))

    def head_to_head(
        self,
        first: Version,
        second: Version,
        evaluation: Evaluation,
        *,
        deadline_s: float | None = None,
    ) -> HeadToHead:
        """Run two versions on the same cases, side by side in one sandbox; see `AsyncEngine.head_to_head`."""
        return self._thread.call(
            partial(self._engine.head_to_head, first, second, evaluation, deadline_s=deadline_s)
        )
