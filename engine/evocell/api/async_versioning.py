"""The engine as trio programs use it: other code for sandboxes, and the versions there were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import trio

from evocell.api.lifecycle import EngineLifecycle
from evocell.api.options import SandboxRef, check_evaluation, sandbox_id
from evocell.code.sources import FileTree
from evocell.errors import ConfigurationError
from evocell.evaluation.head_to_head import check_duel, head_to_head
from evocell.models.evaluation import Evaluation
from evocell.models.measurement import HeadToHead
from evocell.models.outcome import Outcome, Rejected
from evocell.models.references import Source
from evocell.models.references import sandbox_id as id_of
from evocell.models.specs import check_id
from evocell.models.versions import ModuleVersion, VersionDiff
from evocell.sandboxes.code_versions import read_source

if TYPE_CHECKING:
    from evocell.api.async_sandbox import AsyncSandbox
    from evocell.api.sandbox import Sandbox

__all__ = ["AsyncVersioning", "Version"]

Version: TypeAlias = "Source | AsyncSandbox | Sandbox | ModuleVersion"
"""A version of code: a source, what a sandbox holds, or one from its history."""


class AsyncVersioning(EngineLifecycle):
    """The part of `AsyncEngine` that reloads code and keeps its versions; see there."""

    async def hot_reload_source(
        self,
        sandbox: SandboxRef,
        source: Source,
        *,
        mutation_type: str = "mutation",
        keep_state: bool = False,
    ) -> Outcome:
        """Put other code into a sandbox.

        Args:
            sandbox: Which one.
            source: The new code.
            mutation_type: How it came to be.
            keep_state: False starts from a fresh fork, so that nothing of the former code remains, and
                rejected code leaves the sandbox in status ``error``. True swaps the code in for what runs:
                instances, classes and functions keep their identity and get the new code, and a
                module-level name keeps its value if the module still makes it in the same way. Code that
                is rejected, or whose modules raise, then changes nothing. docs/versions.md says what
                does not survive.

        Returns:
            `Completed` with the digest of the new version, or what kept the code from being loaded.

        Raises:
            SandboxNotFound: There is none, or it was destroyed meanwhile.
            ConfigurationError: The source is no tree of files, or an argument cannot be used.

        Cancellation: The sandbox is as it was, but that with `keep_state` its session may lose its state.
        """
        check_id(mutation_type, "mutation_type")
        with self._request():
            record = self._manager.get(sandbox_id(sandbox))
            return await self._reloading.reload(
                record, source, mutation_type=mutation_type, keep_state=keep_state
            )

    async def hot_reload(
        self,
        sandbox: SandboxRef,
        bundle: bytes,
        *,
        mutation_type: str = "mutation",
        keep_state: bool = False,
    ) -> Outcome:
        """Put the code of a zip or wheel into a sandbox; otherwise the same as `hot_reload_source`.

        Args:
            sandbox: Which one.
            bundle: The new code, the bytes of a zip or wheel.
            mutation_type: As in `hot_reload_source`.
            keep_state: As in `hot_reload_source`.
        """
        if not isinstance(bundle, bytes):
            raise ConfigurationError(
                f"hot_reload takes the bytes of a zip or wheel, not {type(bundle).__name__}; "
                "use hot_reload_source for text and files",
                "bundle",
            )
        return await self.hot_reload_source(
            sandbox, bundle, mutation_type=mutation_type, keep_state=keep_state
        )

    async def rollback_module(
        self, sandbox: SandboxRef, module: str, version: int, *, keep_state: bool = False
    ) -> Outcome:
        """Give one module the files it had in an earlier version, as a new version.

        The files of all other modules stay as they are. A package is a module with all that is below it.

        Args:
            sandbox: Which one.
            module: The module's dotted name.
            version: Number of the version, as in `history`.
            keep_state: As in `hot_reload_source`.

        Returns:
            `Completed` with the digest of the new version of the whole tree, or what kept the code from being
            loaded.

        Raises:
            SandboxNotFound: There is none, or it was destroyed meanwhile.
            ConfigurationError: There is no such module or version, or it is not kept any more.

        Cancellation: As for `hot_reload_source`.
        """
        with self._request():
            record = self._manager.get(sandbox_id(sandbox))
            return await self._reloading.rollback(record, module, version, keep_state=keep_state)

    async def get_module_version(self, sandbox: SandboxRef, module: str) -> ModuleVersion | None:
        """Return the version of a module that a sandbox has loaded.

        Returns:
            The version; None if the sandbox holds no code that runs.

        Raises:
            SandboxNotFound: There is no such sandbox.
            ConfigurationError: Its code has no such module.
        """
        with self._request():
            return await self._reloading.module_version(self._manager.get(sandbox_id(sandbox)), module)

    async def history(self, sandbox: SandboxRef, module: str) -> tuple[ModuleVersion, ...]:
        """Return the versions of a module of a sandbox, oldest first.

        The latest `Config.max_module_versions` are kept, also of a module that is not there any more.

        Raises:
            SandboxNotFound: There is no such sandbox.
            ConfigurationError: It never had such a module.
        """
        with self._request():
            return await self._reloading.history(self._manager.get(sandbox_id(sandbox)), module)

    async def past_versions(self, sandbox_id: SandboxRef, module: str | None = None) -> list[ModuleVersion]:
        """Return all versions there have been of a sandbox's modules, also when it is gone.

        They come from the store, with those of earlier engines if there is a state directory. What is not in
        `history` cannot be rolled back to, but its text is in the store.

        Args:
            sandbox_id: The sandbox, or its id; it may be gone.
            module: Only this module.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._request():
            await self._observer.store.flush()
            find = self._manager.kept_versions.find
            return await trio.to_thread.run_sync(find, id_of(sandbox_id), module)

    async def diff(
        self, sandbox: SandboxRef, module: str, old: int | None = None, new: int | None = None
    ) -> VersionDiff:
        """Say what changed in a module from one version to another.

        Args:
            sandbox: Which one.
            module: The module's dotted name.
            old: Number of the version to compare with; None for the one before `new`.
            new: Number of the version to compare; None for the latest.

        Returns:
            The changed lines, and the functions and classes that were added, removed or changed.

        Raises:
            SandboxNotFound: There is no such sandbox.
            ConfigurationError: There is no such module or version, or nothing before the first.
            OutcomeError: The guest could not compare them, such as for want of fuel.
        """
        with self._request():
            return await self._reloading.diff(self._manager.get(sandbox_id(sandbox)), module, old, new)

    async def head_to_head(
        self,
        first: Version,
        second: Version,
        evaluation: Evaluation,
        *,
        deadline_s: float | None = None,
    ) -> HeadToHead:
        """Run two versions on the same cases, side by side in one sandbox.

        The modules of both are loaded into one guest, under names with a prefix: ``first_program`` and
        ``second_program``. Code that cannot be followed there (imports by names that are known only when it
        runs, ``exec``) is rejected by name.

        Args:
            first: One version, such as the parent: a source, a `Sandbox`, or a `ModuleVersion` of `history`.
            second: The other one.
            evaluation: The cases, and how to score them; without harness, stop and total limits.
            deadline_s: Seconds in which everything must be over.

        Returns:
            The fitness of both, and each case side by side. Nothing is noted with the sandboxes.

        Raises:
            ConfigurationError: The evaluation cannot be shared, or a source is no tree of files.
            SandboxNotFound: There is no such sandbox.

        Cancellation: Every call is stopped, and there is no result.
        """
        check_duel(check_evaluation(evaluation))
        with self._request():
            # The trees stay where they are as long as their leases do.
            pairs = [await self._tree(version) for version in (first, second)]
            plan = await self._batches.plan(evaluation, deadline_s=deadline_s)
            return await head_to_head(self._worker, self._versions, plan, [tree for tree, _ in pairs])

    async def _tree(self, version: Version) -> tuple[FileTree, object]:
        if isinstance(version, ModuleVersion):
            lease = self._manager.trees.lease(version.digest)
            return await trio.to_thread.run_sync(self._versions.read, version.digest), lease
        if isinstance(version, str | Mapping | Path | bytes):
            return await read_source(version), None
        record = self._manager.get(sandbox_id(version))
        code = await self._manager.held_code(record)
        if isinstance(code, Rejected):
            raise ConfigurationError(f"sandbox {record.id!r} holds no code that runs: {code.error}", "id")
        return await trio.to_thread.run_sync(self._versions.read, code.digest), code
